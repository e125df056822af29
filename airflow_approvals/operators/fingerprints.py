"""What a foreign task would do, as digests: its operator, arguments, rendered fields and code.

Approvers are shown digests because the values may hold data; a value that changes while people think changes
its digest, and the approval no longer fits.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow.sdk import ObjectStoragePath

from airflow_approvals.core.canonical import digest_of, sha256_hex
from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.operators.code_digests import Refer, digest_of_code, name_of

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, XComArg
    from airflow.sdk.definitions._internal.types import ArgNotSet

_SAFE_INTEGER = 2**53


def describe_task(operator: BaseOperator, *, fields: Iterable[str], show: Iterable[str]) -> dict[str, Any]:
    """Return what binds an approval to this task; raise `InvalidRequestError` naming what has no digest.

    `fields` are the rendered template fields of the operator itself; the constructor's other arguments, where
    they are not Airflow's own (retries, pools, ...), are told as `arguments`. (`kwargs_to_upstream` is how a
    `@task` hands its arguments on, before they are rendered.)
    """
    rendered = tuple(fields)
    given: Mapping[str, Any] = getattr(operator, "_BaseOperator__init_kwargs", {})
    arguments = sorted(given.keys() - set(rendered) - _airflow_arguments() - {"kwargs_to_upstream"})
    return {
        "operator": name_of(type(operator)),
        "fields": {name: digest_of_value(getattr(operator, name, None), name) for name in rendered},
        "arguments": {name: digest_of_value(given[name], name) for name in arguments},
        "shown": {name: plain(getattr(operator, name, None), name) for name in show},
    }


def digest_of_value(value: Any, name: str, refer: Refer | None = None) -> str:
    """Return the SHA-256 of the canonical JSON of `value`; `name` says where it stands."""
    told = plain(value, name, refer)
    try:
        return digest_of(told)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"argument {name}: {error}") from None


def plain(value: Any, name: str, refer: Refer | None = None) -> Any:
    """Return `value` as JSON, the same in every process, or raise `InvalidRequestError` naming `name`.

    `refer` tells functions and classes, where they are not to be told by a digest of their own.
    """
    if value is None or (isinstance(value, (str, bool)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, _xcom_argument()):
        # Outside of template fields Airflow never resolves it, so it brings no content along.
        return {"xcoms": [[operator.task_id, key] for operator, key in value.iter_references()]}
    if isinstance(value, _not_set()):
        return {"unset": type(value).__name__}  # left to the operator, whose code is told
    if isinstance(value, ObjectStoragePath):
        return {"object_storage": _object_storage(value, name)}
    for kinds, told in _PLAIN:
        if isinstance(value, kinds):
            return told(value, name)
    for kinds, told_within in _HOLDING:
        # Code may hold what is alive, such as `os.environ`, which each process has another of.
        if isinstance(value, kinds) and (refer is None or isinstance(value, _CONSTANT)):
            return told_within(value, name, refer)
    if callable(value):
        return refer(value, name) if refer else {"code": digest_of_code(value, name, plain)}
    raise InvalidRequestError(
        f"argument {name}: a {type(value).__module__}.{type(value).__qualname__} has no digest, so nobody "
        "could approve exactly it; pass text, numbers, times, lists or dicts"
    )


def _number(value: int | float, name: str) -> Any:
    # RFC 8785 knows doubles: larger integers are told exactly, as text.
    if isinstance(value, int) and abs(value) >= _SAFE_INTEGER:
        return {"integer": str(int(value))}
    if isinstance(value, float) and not abs(value) < float("inf"):
        return {"float": repr(value)}
    return value


def _object_storage(value: ObjectStoragePath, name: str) -> dict[str, Any]:
    parts = value.serialize()
    # What configures the store may hold keys: a field that is shown shows them as a digest.
    return {**parts, "kwargs": digest_of_value(parts["kwargs"], f"{name}.storage_options")}


def _dict(value: Mapping[Any, Any], name: str, refer: Refer | None) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise InvalidRequestError(
                f"argument {name}: its keys must be text to have a digest, found a {type(key).__name__}"
            )
    return {str(key): plain(each, f"{name}.{key}", refer) for key, each in value.items()}


def _list(value: Iterable[Any], name: str, refer: Refer | None) -> list[Any]:
    return [plain(each, f"{name}[{index}]", refer) for index, each in enumerate(value)]


def _set(value: Iterable[Any], name: str, refer: Refer | None) -> dict[str, Any]:
    return {"set": sorted(digest_of_value(each, name, refer and _refuse_in_set) for each in value)}


def _refuse_in_set(value: Any, name: str) -> Any:
    # Told by the order in which they are read, which a set has not twice.
    raise InvalidRequestError(f"argument {name}: functions in a set have no digest; put them into a list")


_PLAIN: tuple[tuple[Any, Any], ...] = (
    (Enum, lambda value, name: plain(value.value, name)),
    ((int, float), _number),
    (Decimal, lambda value, name: {"decimal": str(value)}),
    ((bytes, bytearray), lambda value, name: {"sha256": sha256_hex(bytes(value))}),
    ((datetime, date, time), lambda value, name: value.isoformat()),
    (timedelta, lambda value, name: {"seconds": str(value.total_seconds())}),
    ((PurePath, UUID), lambda value, name: str(value)),
)
_HOLDING: tuple[tuple[Any, Any], ...] = (
    (Mapping, _dict),
    ((set, frozenset), _set),
    (Sequence, _list),  # Airflow's lazy ones of XComs too; no data frame, whose items are not its content
)
_CONSTANT = (dict, MappingProxyType, list, tuple, range, set, frozenset)


@cache
def _airflow_arguments() -> frozenset[str]:
    from airflow.sdk import BaseOperator

    return frozenset(inspect.signature(BaseOperator.__init__).parameters) | {"default_args"}


@cache
def _not_set() -> type[ArgNotSet]:
    from airflow.sdk.definitions._internal.types import ArgNotSet

    return ArgNotSet


@cache
def _xcom_argument() -> type[XComArg]:
    from airflow.sdk import XComArg

    return XComArg
