"""JSON Lines: one object a line, UTF-8, types as coarse as the order of the lines cannot change.

Columns come in order of first appearance. A column that holds whole and broken numbers is `double`, whole
numbers beyond 64 bits are `integer`, and any other mixture is `mixed`. Lines of white space are no rows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from airflow_approvals.core.canonical import RepeatedNameError, without_repeats
from airflow_approvals.core.errors import SourceEmptyError, SourceUnreadableError
from airflow_approvals.core.model import Column
from airflow_approvals.staging.locations import ByteSource
from airflow_approvals.staging.streams import HashedFile, TextFile, unpack

BATCH_BYTES = 1024 * 1024
LINE_LIMIT = 8 * 1024 * 1024  # bytes
COLUMN_LIMIT = 10_000  # keys that are data (ids, dates) are no columns, and would fill memory
NUMBERS = ("int64", "integer", "double")  # each can be said by the next
KINDS = {bool: "bool", float: "double", str: "string", list: "list", dict: "struct"}


@dataclass(frozen=True)
class JsonBatch:
    """Some rows, each an object."""

    rows: list[dict[str, Any]]

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    def to_pylist(self) -> list[dict[str, Any]]:
        return self.rows


class JsonLinesPart:
    """One JSON Lines file."""

    def __init__(self, source: ByteSource, name: str, compression: str | None) -> None:
        self._name = name
        self._file = HashedFile(source, name)
        self._text = TextFile(unpack(self._file, compression), name)
        self._decoder = json.JSONDecoder(object_pairs_hook=without_repeats, parse_constant=_refuse_constant)
        self._types: dict[str, str] = {}
        self._line = 0
        self.sha256 = ""

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def schema(self) -> None:
        return None

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(name=name, type=kind) for name, kind in self._types.items())

    def __iter__(self) -> Iterator[JsonBatch]:
        rows: list[dict[str, Any]] = []
        used = 0
        lines = io.BufferedReader(self._text, BATCH_BYTES)
        while line := lines.readline(LINE_LIMIT + 1):
            self._line += 1
            if not line.isspace():
                rows.append(self._parse(line))
                used += len(line)
            if used >= BATCH_BYTES:
                yield JsonBatch(rows)
                rows, used = [], 0
        if rows:
            yield JsonBatch(rows)
        self.sha256 = self._file.finish()
        if not self._text.size:
            raise SourceEmptyError(f"{self._name}: holds no bytes; expected one JSON object a line")

    def _parse(self, line: bytes) -> dict[str, Any]:
        if len(line) > LINE_LIMIT:
            raise self._refusal(f"is longer than {LINE_LIMIT} bytes")
        try:
            row = self._decoder.decode(line.decode())
        except RepeatedNameError:
            reason = "has the same key twice in one object"
        except (ValueError, RecursionError):
            reason = "is not valid JSON"
        else:
            if not isinstance(row, dict):
                raise self._refusal("is not a JSON object")
            self._learn(row)
            return row
        # The parser's own error carries the line itself: it must not travel along.
        raise self._refusal(reason)

    def _learn(self, row: dict[str, Any]) -> None:
        types = self._types
        for key, value in row.items():
            known = types.get(key)
            kind = _kind(value)
            if kind == known or (kind == "null" and known):
                continue
            if known is None:
                self._check_name(key)
            types[key] = merge_types(known or "null", kind)

    def _check_name(self, key: str) -> None:
        if not key.strip() or not key.isprintable():
            raise self._refusal("has a key that is empty or cannot be shown as a column name")
        if len(self._types) >= COLUMN_LIMIT:
            raise self._refusal(
                f"brings more than {COLUMN_LIMIT} columns; keys that are data belong into values"
            )

    def _refusal(self, reason: str) -> SourceUnreadableError:
        return SourceUnreadableError(
            f"{self._name}: line {self._line} {reason}; expected one JSON object a line"
        )


def merge_types(one: str, other: str) -> str:
    """Return the narrowest type that says both; the order of the two does not matter."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if one in NUMBERS and other in NUMBERS:
        return max(one, other, key=NUMBERS.index)
    return "mixed"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    cls = type(value)
    if cls is int:
        return "int64" if -(2**63) <= value < 2**63 else "integer"
    return KINDS[cls]


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("not JSON")  # NaN and Infinity
