"""What of a recurring action is not as it was when it was approved: the words of `void_on`.

- `schema`: format, columns, their types and order, or how many datasets there are.
- `mask_policy`: the digest of the masking rules.
- `residual_pii`: more is left after masking than was, or masking is no longer verified.
- `entities`: a type of personal data that was not found before, in what leaves.
- `rows > 1.2x`, `bytes < 0.5x`, `files > 2x`: the count, held against so many times the approved one.

What is not known, then or now, has drifted: nobody has approved it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.model import Drift, Evidence, Snapshot

_COUNT = re.compile(r"(rows|bytes|files) ([<>]) (\d{1,4}(?:\.\d{1,3})?)x", re.ASCII)
_UNKNOWN = "not known"


def check_void_word(word: str) -> str:
    """Return `word` if `void_on` may say it; raise `ValueError` otherwise."""
    count = _COUNT.fullmatch(word)
    if count is None and word not in _WATCHED:
        raise ValueError(
            f"expected {', '.join(_WATCHED)}, or a count like rows > 1.2x, bytes < 0.5x, files > 2x; "
            f"found {word!r}"
        )
    if count is not None and (float(count[3]) < 1 if count[2] == ">" else float(count[3]) > 1):
        raise ValueError(f"{word!r} would end it at once: expected > at least 1x, or < at most 1x")
    return word


def check_can_be_watched(void_on: Sequence[str], evidence: Evidence) -> None:
    """Raise `InvalidRequestError` where `evidence` does not tell what later runs must be held against."""
    unknown = [word for word in void_on if _drift_of(word, evidence, evidence) is not None]
    if unknown:
        raise InvalidRequestError(
            f"a standing approval ends when {', '.join(unknown)} drifts, and the approved evidence does not "
            "tell what it was; scan and mask the data in the DAG first, or approve each run"
        )


def drifts_of(void_on: Sequence[str], approved: Evidence, found: Evidence) -> tuple[Drift, ...]:
    """Return everything of `void_on` that differs too much between the approved evidence and a later one."""
    drifts = (_drift_of(word, approved, found) for word in void_on)
    return tuple(drift for drift in drifts if drift is not None)


def _drift_of(word: str, approved: Evidence, found: Evidence) -> Drift | None:
    count = _COUNT.fullmatch(word)
    if count is None:
        told = _WATCHED[word](approved, found)
    else:
        told = _count_drift(count[1], count[2], count[3], approved, found)
    return None if told is None else Drift(watched=word, was=told[0], now=told[1])


_Told = tuple[str, str]


def _count_drift(what: str, sign: str, times: str, approved: Evidence, found: Evidence) -> _Told | None:
    was, now = _count(what, approved), _count(what, found)
    if was is None or now is None:
        return _words(was), _words(now)
    # In whole thousandths: a float would let 1.1 x 10 rows be 11.000000000000002.
    whole, _, part = times.partition(".")
    bound, reached = was * int(whole + part.ljust(3, "0")), now * 1000
    too_far = reached > bound if sign == ">" else reached < bound
    return (f"{was:,}", f"{now:,}") if too_far else None


def _count(what: str, evidence: Evidence) -> int | None:
    if not evidence.datasets:
        return None
    each: dict[str, Callable[[Snapshot], int]] = {
        "rows": lambda dataset: dataset.rows,
        "bytes": lambda dataset: dataset.size,
        "files": lambda dataset: len(dataset.files),
    }
    return sum(each[what](dataset) for dataset in evidence.datasets)


def _words(count: int | None) -> str:
    return _UNKNOWN if count is None else f"{count:,}"


def _schema_drift(approved: Evidence, found: Evidence) -> _Told | None:
    if not approved.datasets or not found.datasets:
        return _shape(approved), _shape(found)
    was = sorted((dataset.format, dataset.schema_sha256) for dataset in approved.datasets)
    now = sorted((dataset.format, dataset.schema_sha256) for dataset in found.datasets)
    if was == now:
        return None
    before, after = _columns(approved), _columns(found)
    moved = [f"without {name}" for name in before if name not in after]
    moved += [f"with {name}" for name in after if name not in before]
    moved += [f"{name} is {after[name]}" for name in after if before.get(name, after[name]) != after[name]]
    return _shape(approved), f"{_shape(found)}: {', '.join(moved) or 'in another order or form'}"


def _shape(evidence: Evidence) -> str:
    if not evidence.datasets:
        return _UNKNOWN
    shapes = (f"{dataset.format} of {len(dataset.columns)} columns" for dataset in evidence.datasets)
    return ", ".join(shapes)


def _columns(evidence: Evidence) -> dict[str, str]:
    return {column.name: column.type for dataset in evidence.datasets for column in dataset.columns}


def _mask_policy_drift(approved: Evidence, found: Evidence) -> _Told | None:
    was, now = _digest(approved), _digest(found)
    if was is not None and was == now:
        return None
    return (was or _UNKNOWN)[:12], (now or _UNKNOWN)[:12]


def _digest(evidence: Evidence) -> str | None:
    found = (evidence.pii or {}).get("rules_digest")
    return found if isinstance(found, str) and found else None


def _residual_drift(approved: Evidence, found: Evidence) -> _Told | None:
    was, now = _residual(approved), _residual(found)
    if was is not None and now is not None and now <= was:
        return None
    return _words(was), _words(now)


def _residual(evidence: Evidence) -> int | None:
    """Return what is left after masking; None unless a verification that holds says so."""
    pii = evidence.pii or {}
    left = pii.get("residual")
    is_proven = pii.get("scanned") is True and pii.get("verified") is True
    return left if is_proven and _is_count(left) else None


def _entities_drift(approved: Evidence, found: Evidence) -> _Told | None:
    was, now = _entities(approved), _entities(found)
    if was is not None and now is not None and now <= was:
        return None
    return _named(was), _named(now)


def _entities(evidence: Evidence) -> set[str] | None:
    pii = evidence.pii or {}
    if pii.get("scanned") is not True or not isinstance(pii.get("entities"), Mapping):
        return None
    return {str(name) for name, cells in pii["entities"].items() if cells}


def _named(entities: set[str] | None) -> str:
    return _UNKNOWN if entities is None else ", ".join(sorted(entities)) or "none"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_WATCHED: Mapping[str, Callable[[Evidence, Evidence], _Told | None]] = {
    "schema": _schema_drift,
    "mask_policy": _mask_policy_drift,
    "residual_pii": _residual_drift,
    "entities": _entities_drift,
}
