"""Which Airflow connections a task names in its arguments: told when it is parsed, and again when it runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

SUFFIX = "conn_id"
"""How operators call such an argument: `conn_id`, `aws_conn_id`, `_source_conn_id`, ..."""


@dataclass(frozen=True, kw_only=True)
class NamedConnections:
    """Ids that are known, and whether there are others that only the run will tell."""

    ids: tuple[str, ...]
    has_unknown: bool


def connections_of(task: BaseOperator) -> NamedConnections:
    """Return what the attributes and arguments of a task name; rendered or not."""
    given: Mapping[str, Any] = getattr(task, "_BaseOperator__init_kwargs", {})
    places = (vars(task), given, _call_of(vars(task)))
    return _told([value for names in places for value in _values(names)])


def connections_of_mapped(mapped: MappedOperator) -> NamedConnections:
    """Return what the arguments of a mapped task name, and the defaults of those that it leaves out."""
    expanded = getattr(mapped.expand_input, "value", None)
    names = set(mapped.partial_kwargs)
    values = list(_values(mapped.partial_kwargs))
    if isinstance(expanded, Mapping):
        names |= set(expanded)
        for value in _values(expanded):
            # `.expand(conn_id=["a", "b"])` is told; what comes from another task is not.
            values.extend(value if isinstance(value, list | tuple) else [value])
    else:
        values.append(mapped.expand_input)  # `.expand_kwargs` of another task: any argument may come
    defaults = _defaults(mapped.operator_class)
    values.extend(value for name, value in defaults if name not in names)
    return _told(values)


def _call_of(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a Python task's function is called with, by the names of its parameters."""
    given = attributes.get("op_kwargs")
    named = dict(given) if isinstance(given, Mapping) else {}
    try:
        parameters = inspect.signature(attributes["python_callable"]).parameters
        return {**dict(zip(parameters, attributes.get("op_args") or (), strict=False)), **named}
    except (KeyError, TypeError, ValueError):
        return named


def _values(names: Mapping[str, Any]) -> Iterable[Any]:
    return (value for name, value in list(names.items()) if name.endswith(SUFFIX))


def _told(values: Iterable[Any]) -> NamedConnections:
    ids: set[str] = set()
    has_unknown = False
    for value in values:
        if isinstance(value, str) and "{{" not in value and "{%" not in value:
            ids.add(value)
        elif value is not None:
            has_unknown = True
    return NamedConnections(ids=tuple(sorted(ids - {""})), has_unknown=has_unknown)


@lru_cache(maxsize=1024)
def _defaults(cls: type[BaseOperator]) -> tuple[tuple[str, Any], ...]:
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        for name, parameter in _parameters(base):
            if name.endswith(SUFFIX) and parameter.default is not inspect.Parameter.empty:
                found.setdefault(name, parameter.default)
    return tuple(found.items())


def _parameters(base: type) -> Iterable[tuple[str, inspect.Parameter]]:
    try:
        return inspect.signature(vars(base)["__init__"]).parameters.items()
    except (KeyError, TypeError, ValueError):
        return ()
