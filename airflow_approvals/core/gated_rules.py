"""Which tasks the platform owner has gated: `gated_operators` of the policy file, held against one task.

Read at every parse of a DAG file: nothing but the standard library and the globs of the policy is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.core.policy_match import covers, covers_name

KIND = "write"
"""What a gated task does, unless its rule has another word for it."""

_WORDS = ("operator", "policy", "kind", "destination")
_LISTS = ("dag_id", "dag_tags", "task_id", "conn_id", "to", "show", "connections", "variables")
CRITERIA = ("operator", "dag_id", "dag_tags", "task_id", "conn_id", "to")
"""What a rule can ask of a task; every one that is given must fit."""


@dataclass(frozen=True, kw_only=True)
class GateRule:
    """One entry of `gated_operators`; `number` counts from 1."""

    number: int
    policy: str
    operator: str | None = None  # name or dotted path of the class, or of one that it is made from
    dag_id: tuple[str, ...] = ()  # globs; one of them must fit, as in every list
    dag_tags: tuple[str, ...] = ()
    task_id: tuple[str, ...] = ()
    conn_id: tuple[str, ...] = ()
    to: tuple[str, ...] = ()  # URI globs, held against the rendered destination when the task runs
    destination: str | None = None  # template of where the task writes
    kind: str = KIND
    show: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What is known of a task when its file was parsed."""

    dag_id: str
    dag_tags: tuple[str, ...]
    task_id: str
    classes: tuple[str, ...]  # the class and all that it is made from, by name and by dotted path
    conn_ids: tuple[str, ...]
    has_unknown_conn: bool = False  # a connection that is known only when the task runs


def rules_from(value: object) -> tuple[GateRule, ...]:
    """Return the rules of the `gated_operators` list; raise `PolicyError` for anything that is none."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise PolicyError("gated_operators: expected a list")
    return tuple(_rule(part, number) for number, part in enumerate(value, start=1))


def rules_for(rules: Iterable[GateRule], task: TaskFacts) -> tuple[GateRule, ...]:
    """Return the rules that may gate `task`, in order, up to the first that does so wherever it writes."""
    found: list[GateRule] = []
    for rule in rules:
        if find_mismatch(rule, task) is None:
            found.append(rule)
            if not rule.to:
                break
    return tuple(found)


def find_mismatch(rule: GateRule, task: TaskFacts) -> str | None:
    """Return why `rule` passes over `task`, in words; None when it does not (`to` is judged at run time)."""
    if rule.operator is not None and rule.operator not in task.classes:
        return f"its operator is no {rule.operator}"
    if rule.dag_id and not _one_covers(rule.dag_id, (task.dag_id,)):
        return f"its DAG is not {', '.join(rule.dag_id)}"
    if rule.dag_tags and not set(rule.dag_tags) & set(task.dag_tags):
        return f"its DAG has no tag {', '.join(rule.dag_tags)}"
    if not names_task_id(rule, task.task_id):
        return f"its task id is not {', '.join(rule.task_id)}"
    # A connection that only the run will tell may be any: gated.
    if rule.conn_id and not task.has_unknown_conn and not _one_covers(rule.conn_id, task.conn_ids):
        return f"it names no connection {', '.join(rule.conn_id)}"
    return None


def names_task_id(rule: GateRule, task_id: str) -> bool:
    """Return whether `rule` is, as far as the task's id goes, for this task."""
    return not rule.task_id or any(covers_name(glob, task_id) for glob in rule.task_id)


def reason_of(rule: GateRule) -> str:
    """Return in words what it is about a task that makes `rule` gate it."""
    asked = [f"operator {rule.operator}"] if rule.operator else []
    for name, word in (
        ("dag_id", "DAG"),
        ("dag_tags", "tag"),
        ("task_id", "task id"),
        ("conn_id", "connection"),
        ("to", "destination"),
    ):
        if globs := getattr(rule, name):
            asked.append(f"{word} {' or '.join(globs)}")
    return f"gated_operators {rule.number}: {', '.join(asked)} (policy {rule.policy})"


def is_for_destination(rule: GateRule, destination: str) -> bool:
    """Return whether `rule` gates a task that writes to `destination`.

    Raises `InvalidRequestError` for a place that can be read in two ways.
    """
    return not rule.to or covers(rule.to, destination)


def _one_covers(globs: Iterable[str], names: Iterable[str]) -> bool:
    names = tuple(names)
    return any(covers_name(glob, name) for glob in globs for name in names)


def _rule(part: object, number: int) -> GateRule:
    where = f"gated_operators {number}"
    if not isinstance(part, Mapping):
        raise PolicyError(f"{where}: expected a map of keys")
    known = {field.name for field in fields(GateRule)} - {"number"}
    if unknown := sorted(str(key) for key in part if key not in known):
        raise PolicyError(f"{where}: unknown key {', '.join(unknown)}")
    given: dict[str, Any] = {key: value for key, value in part.items() if value is not None}
    for name in _WORDS:
        if name in given and not (isinstance(given[name], str) and given[name]):
            raise PolicyError(f"{where}: {name}: expected a word")
    for name in _LISTS:
        if name in given:
            given[name] = _texts(given[name], f"{where}: {name}")
    if "policy" not in given:
        raise PolicyError(f"{where}: policy is missing")
    rule = GateRule(number=number, **given)
    check_rule(rule)
    return rule


def check_rule(rule: GateRule) -> None:
    """Raise `PolicyError` for a rule that would gate everything by accident, or cannot tell what it gates."""
    if not any(getattr(rule, name) for name in CRITERIA):
        raise PolicyError(f"gated_operators {rule.number}: names no task; give one of {', '.join(CRITERIA)}")
    if rule.to and rule.destination is None:
        raise PolicyError(
            f"gated_operators {rule.number}: `to` is held against the destination; say how to tell it, as in "
            'destination: "s3://{{ task.dest_bucket_name }}/{{ task.dest_bucket_key }}"'
        )


def _texts(value: object, where: str) -> tuple[str, ...]:
    texts = tuple(value) if isinstance(value, list | tuple) else ()
    if not all(isinstance(text, str) and text for text in texts):
        raise PolicyError(f"{where}: expected a list of words")
    return texts
