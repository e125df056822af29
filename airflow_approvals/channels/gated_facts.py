"""What a gated task would do, for people: first what its author shows; what is bound by digest, by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

TASK = "task"
"""The parameter in which a gated task stands, as `operators.gated_task` writes it."""

_WRITTEN = frozenset({"task_id", "operator", "fields", "arguments", "shown", "connections", "variables"})
_DIGEST = re.compile("[0-9a-f]{64}")

Fact = tuple[str, str]


def gated_facts(told: object) -> tuple[Fact, ...]:
    """Return all that a gated task's parameter says but the digests; nothing where it has another form.

    Workers wrote it, so a value may be anything: it is told as it is.
    """
    if not isinstance(told, dict) or not told.keys() <= _WRITTEN:
        return ()
    match told:
        case {
            "operator": str(operator),
            "fields": dict(fields),
            "arguments": dict(bound),
            "shown": dict(shown),
        }:
            if all(map(_is_digest, [*fields.values(), *bound.values()])):
                return tuple(_facts(told, operator, [*fields, *bound], shown))
    return ()


def gated_changes(was: object, now: object) -> Iterator[tuple[str, str, str]]:
    """Yield what two parameters of gated tasks tell differently: label, how it was, how it is.

    What is not shown is told by digest. Yields nothing where one of the two has another form.
    """
    if not gated_facts(was) or not gated_facts(now):
        return
    before, after = _parts(was), _parts(now)
    for label in {**before, **after}:
        then, found = before.get(label, "none"), after.get(label, "none")
        if then != found:
            yield label, then, found


def _parts(told: Any) -> dict[str, str]:
    bound = {**told["fields"], **told["arguments"]}
    return {
        "runs": in_words([told["operator"], str(told.get("task_id", ""))]),
        **{f"its {name}": f"digest {bound[name][:16]}" for name in bound},
        **{f"its {name}": in_words(value) for name, value in told["shown"].items()},
        **{f"may read {kind}": in_words(told[kind]) for kind in ("connections", "variables") if kind in told},
    }


def in_words(value: object) -> str:
    """Return a parameter for people: text as it is, names with commas, all else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _facts(
    told: Mapping[str, Any], operator: str, bound: list[str], shown: Mapping[str, Any]
) -> Iterator[Fact]:
    yield "runs", f"{operator.rpartition('.')[2]} {in_words(told.get('task_id', ''))}".strip()
    for field, value in shown.items():
        yield f"its {field}", in_words(value)
    for kind in ("connections", "variables"):
        if kind in told:
            yield "may read", f"{kind} {in_words(told[kind])}"
    hidden = [field for field in bound if field not in shown]
    if hidden:
        yield "not shown", f"{', '.join(hidden)}: bound by digest, so that they cannot change"


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
