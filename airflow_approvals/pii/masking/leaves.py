"""Nested values taken apart into leaves and put together again: JSON text, structs, lists, maps."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from airflow_approvals.core.canonical import without_repeats
from airflow_approvals.pii.cells import pointer


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """One leaf and where it stands; keys that may be data are leaves as well."""

    value: Any
    path: str  # JSON pointer, with `*` for any place in a list
    context: tuple[str, ...]  # the column, then the field names down to here
    is_key: bool = False


_FIELD_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_.:$-]*", re.ASCII)
Visit = Callable[[Leaf], Any]
"""Returns what stands there instead."""


def parse_json(text: str, *, pairs: bool = False) -> Any:
    """Return the dict or list that a text holds as JSON, None when it holds none.

    A text in which a key comes twice in one object is none: of its two values a dict would hide one. With
    `pairs`, objects are lists of their pairs, also of those whose key comes again.
    """
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text, object_pairs_hook=list if pairs else without_repeats, parse_float=_finite)
    except (ValueError, RecursionError):
        return None


def _finite(digits: str) -> float:
    """Refuse a number that Python takes for infinity: it could not be written back."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError
    return number


def write_json(value: Any, like: str) -> str:
    """Return JSON text, with blanks behind commas and colons where `like` has them."""
    separators = (", ", ": ") if '": ' in like or '", ' in like else (",", ":")
    return json.dumps(value, ensure_ascii=like.isascii(), separators=separators)


def rebuild(value: Any, visit: Visit, context: tuple[str, ...], path: str = "") -> Any:
    """Return a copy of a nested value with every leaf, and every key that may be data, as `visit` has it."""
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        for key, inner in value.items():
            name = key
            if is_data(key):
                name = str(visit(Leaf(value=key, path=f"{path}/*", context=context, is_key=True)))
            step = "*" if is_data(key) else pointer(key)
            # A key that was data says nothing to the reader of what is under it.
            below = context if is_data(key) else (*context, key)
            made[_free(name, made)] = rebuild(inner, visit, below, f"{path}/{step}")
        return made
    if isinstance(value, list):
        return [_item(item, visit, context, f"{path}/*") for item in value]
    return visit(Leaf(value=value, path=path, context=context))


@lru_cache(1 << 12)  # the same names come with every document
def is_data(key: str) -> bool:
    """Return whether a key of an object looks like a value (an address, a number) and not like a word.

    Words are what people name fields: a letter, then letters, up to four digits, `_`, `-`, `.`, `:` or `$`.
    """
    return sum(map(str.isdigit, key)) > 4 or not _FIELD_NAME.fullmatch(key)


def _item(item: Any, visit: Visit, context: tuple[str, ...], path: str) -> Any:
    if isinstance(item, tuple) and len(item) == 2:  # an Arrow map's pair of key and value
        key = visit(Leaf(value=item[0], path=path, context=context, is_key=True))
        return key, rebuild(item[1], visit, context, path)
    return rebuild(item, visit, context, path)


def _free(name: str, taken: dict[str, Any]) -> str:
    """Two keys may get the same placeholder: neither value may be lost by that."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name} {number}"
    return free
