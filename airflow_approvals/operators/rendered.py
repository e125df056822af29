"""What templates and XComs have made of a task's fields, held against what the fields are for.

A task upstream that was skipped, or returned nothing, must not turn "this dataset" into "no dataset", nor
"the request of that gate" into one of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from os import PathLike
from pathlib import PurePath
from typing import Any
from uuid import UUID

from airflow_approvals.core.errors import InvalidRequestError

_TEXT = ((str,), "text")
_TELLABLE = (str, int, float, Decimal, date, time, timedelta, PurePath, UUID, Enum)
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "parameters": ((Mapping,), "a dict"),
    "pii_report": ((Mapping, str), "a report, the path of its file, or what the task that wrote it returned"),
    "scan_report": (
        (Mapping, str),
        "a report, the path of its file, or what the task that wrote it returned",
    ),
    "scan": ((Mapping,), "a dict of settings"),
    "links": ((Sequence,), "a list of addresses"),
    "token_columns": ((Sequence,), "a list of names"),
    **dict.fromkeys(
        (
            "kind",
            "source",
            "source_conn_id",
            "destination",
            "destination_conn_id",
            "justification",
            "policy",
            "request_id",
            "conn_id",
            "table",
            "external_dag_id",
            "external_task_id",
            "external_run_id",
            "masked_conn_id",
            "plan_digest",
            "domain",
            "keys_conn_id",
        ),
        _TEXT,
    ),
    **dict.fromkeys(("masked", "plan", "key_file", "report"), ((str, PathLike), "a path")),
}


def check_fields(task: Any, *always: str) -> None:
    """Raise `InvalidRequestError` where a rendered field of `task` has come to nothing, or to something else.

    What the DAG gives, `task.given_fields`, must be there still, and `always` in any case.
    """
    fields = {name: getattr(task, name) for name in task.template_fields}
    check_rendered(task.task_id, fields, needed=(*always, *task.given_fields))


def check_rendered(task_id: str, found: Mapping[str, Any], *, needed: Collection[str]) -> None:
    """Raise `InvalidRequestError` for a needed field that is empty now, or one that is not of its kind.

    `found` are the fields as they are at run time, `needed` the names of those that the DAG gives. Fields
    that are not of this package are left alone.
    """
    for name, value in found.items():
        # "None" is what a template makes of an XCom that is not there.
        if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
            if name in needed:
                raise InvalidRequestError(
                    f"task {task_id}: {name} was given, but is empty now: no task upstream has told it "
                    "(marked successful, skipped, or without a result?); run that one, then this"
                )
        elif name in _KINDS:
            kinds, words = _KINDS[name]
            if not isinstance(value, kinds) or (isinstance(value, str) and str not in kinds):
                raise InvalidRequestError(
                    f"task {task_id}: {name}: expected {words}, found a {type(value).__qualname__}; "
                    "correct what the DAG, its template or the task upstream hands over"
                )
            if name == "parameters":
                _check_tellable(f"task {task_id}: {name}", value)


def _check_tellable(where: str, value: Any) -> None:
    """Raise unless approvers can be shown exactly `value`, and it is the same again in another process."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for key, each in value.items():
            _check_tellable(f"{where}.{key}", each)
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            _check_tellable(f"{where}[{index}]", each)
    elif not (value is None or isinstance(value, _TELLABLE)) or not _is_finite(value):
        raise InvalidRequestError(
            f"{where}: a {type(value).__qualname__} cannot be approved exactly as it is; expected text, "
            "finite numbers, times, lists, or dicts whose keys are text"
        )


def _is_finite(value: Any) -> bool:
    return not isinstance(value, (float, Decimal)) or isfinite(value)


def given(**fields: Any) -> tuple[str, ...]:
    """Return the names of the fields that a DAG gives."""
    return tuple(name for name, value in fields.items() if value is not None)
