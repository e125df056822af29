"""What a function would do, as one digest: its source, and the values that it brings along.

Source alone would let a default argument, a variable of an outer function or a constant of the file change
unseen while people think. What a task's function brings along must have a digest. What it names of its module
is told as far as it has one: constants, and functions and classes of the same file, with what these bring
along; the rest (imports, connections, loggers, ...) by name or class. So is a decorator that is imported,
with what it was given as far as that has a digest.
"""

from __future__ import annotations

import dis
import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from logging import Logger
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from airflow_approvals.core.canonical import digest_of, sha256_hex
from airflow_approvals.core.errors import InvalidRequestError

Refer = Callable[[Any, str], Any]
"""Tells a function or class; the text says where it stands."""
Tell = Callable[[Any, str, Refer], Any]
"""Tells a value as JSON, or raises `InvalidRequestError`."""

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
_INNER = ("<locals>", "<lambda>")
_OF_A_PATH = re.compile(r"unusual_prefix_[0-9a-f]{40}_")
"""Stands before the modules of DAG files: where they lie, which may differ from worker to worker."""


def digest_of_code(function: Any, name: str, tell: Tell) -> str:
    """Return the SHA-256 of `function`; raise `InvalidRequestError` where something of it has no digest."""
    reader = _Reader(tell, _own_file(function))
    reader.read_later(function, name)
    return digest_of(reader.read_all())


class _Reader:
    """Reads each function once, and tells it by its place among all: they may name each other in circles."""

    def __init__(self, tell: Tell, own_file: str | None) -> None:
        self._tell_plain = tell
        self._own_file = own_file
        self._found: list[tuple[Any, str, bool]] = []
        self._places: dict[tuple[int, bool], int] = {}

    def read_later(self, code: Any, name: str, *, strict: bool = True) -> dict[str, int]:
        """Return the place of `code`; with `strict` all that it brings along must have a digest."""
        place = self._places.setdefault((id(code), strict), len(self._found))
        if place == len(self._found):
            self._found.append((code, name, strict))
        return {"place": place}

    def read_all(self) -> list[Any]:
        return [self._read(*found) for found in self._found]  # which grows meanwhile

    def _read(self, code: Any, name: str, strict: bool) -> Any:
        refer = partial(self.read_later, strict=strict)
        if isinstance(code, partial):
            parts = {"function": code.func, "args": list(code.args), "keywords": code.keywords}
            return {"partial": self._tell(parts, name, refer, strict=strict)}
        if isinstance(code, MethodType):
            owner = code.__self__
            told = (
                name_of(owner) if isinstance(owner, type) else self._tell(owner, name, refer, strict=strict)
            )
            return {"method": refer(code.__func__, name), "self": told}
        if isinstance(code, FunctionType):
            return self._function(code, name, strict)
        if not isinstance(code, type) and hasattr(code, "__wrapped__"):  # as functools.cache makes it
            return {"wrapper": name_of(type(code)), "wrapped": refer(code.__wrapped__, name)}
        return _instance_unless(strict, code, lambda: _source_digest(code, name))

    def _function(self, function: FunctionType, name: str, strict: bool) -> dict[str, Any]:
        code = function.__code__
        is_own = code.co_filename == self._own_file
        strict = strict and is_own

        def told(kind: str, values: Iterator[tuple[str, Any]], *, strict: bool) -> dict[str, Any]:
            refer = partial(self._named, strict=strict)
            where = f"{name} ({code.co_name}, {kind} {{}})"
            return {
                each: self._tell(value, where.format(each), refer, strict=strict) for each, value in values
            }

        brought = {
            "defaults": told("default of", _defaults(function), strict=strict),
            "variables": told("variable", _variables(function), strict=strict),
        }
        if not is_own:
            module = str(function.__globals__.get("__name__"))
            return {"named": f"{_without_path(module)}.{code.co_qualname}", **brought}
        return {
            # Of its code: asked for a function, `inspect` reads the one that it wraps.
            "source": _instance_unless(strict, code, lambda: _source_digest(code, name)),
            "globals": told("global", _globals(function), strict=False),
            **brought,
        }

    def _tell(self, value: Any, name: str, refer: Refer, *, strict: bool) -> Any:
        if isinstance(value, ModuleType | Logger):
            return {"named": name_of(value)}
        return _instance_unless(strict, value, lambda: self._tell_plain(value, name, refer))

    def _named(self, value: Any, name: str, *, strict: bool) -> Any:
        """Tell what a function names; what can be imported from elsewhere has a name for good."""
        place: str | None
        if isinstance(value, FunctionType):  # by its code: a wrapper bears the name of what it wraps
            place, own_name = value.__code__.co_filename, value.__code__.co_qualname
        elif isinstance(value, type):
            place, own_name = _file_of(value), value.__qualname__
        elif isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType | type):
            return {"named": f"{name_of(value.__self__)}.{value.__name__}"}
        else:
            return self.read_later(value, name, strict=strict)
        if place != self._own_file and not any(word in own_name for word in _INNER):
            return {"named": name_of(value)}
        if isinstance(value, type):
            return _instance_unless(False, value, lambda: _source_digest(value, name))
        return self.read_later(value, name, strict=strict)


def _own_file(function: Any) -> str | None:
    """Return the file of the function itself, under what decorators and others have put around it."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return function.__code__.co_filename if isinstance(function, FunctionType) else None


def _instance_unless(strict: bool, value: Any, tell: Callable[[], Any]) -> Any:
    try:
        return tell()
    except InvalidRequestError:
        if strict:
            raise
        return {"instance": name_of(value if isinstance(value, type) else type(value))}


def _defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    # As they are called with, whatever a decorator has put into `__signature__`; tenacity gives its wrapper,
    # which takes any arguments, the defaults of what it wraps.
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    for place, value in enumerate(reversed(function.__defaults__ or ())):
        yield names[-1 - place] if place < len(names) else f"{place + 1} from the last", value
    yield from (function.__kwdefaults__ or {}).items()


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned
            continue
        yield name, value


def _globals(function: FunctionType) -> Iterator[tuple[str, Any]]:
    there = function.__globals__
    yield from ((name, there[name]) for name in sorted(set(_named_by(function.__code__))) if name in there)


def _named_by(code: CodeType) -> Iterator[str]:
    yield from (each.argval for each in dis.get_instructions(code) if each.opname in _LOADS)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _named_by(inner)


def _source_digest(code: Any, name: str) -> str:
    try:
        return sha256_hex(inspect.getsource(code).encode())
    except (OSError, TypeError):
        raise InvalidRequestError(
            f"argument {name}: its source cannot be read, so nobody could approve exactly it; "
            "pass a function from a file"
        ) from None


def _file_of(cls: type) -> str | None:
    try:
        return inspect.getsourcefile(cls)
    except TypeError:  # built in
        return None


def name_of(value: Any) -> str:
    """Return the name of a module, logger, class or function, the same on every worker."""
    if isinstance(value, Logger):
        name = value.name
    elif isinstance(value, ModuleType):
        name = value.__name__
    else:
        name = f"{value.__module__}.{value.__qualname__}"
    return _without_path(name)


def _without_path(module: str) -> str:
    """Return the name of a module of a DAG file without where that file lies."""
    return _OF_A_PATH.sub("", module)
