"""What the write into a table is about: columns on both sides, safe names, and what a database must offer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.staging.formats import Batch

Mode = Literal["append", "replace"]

MARKERS = "approvals_write"
"""The table beside the target that tells which requests were written, one row each."""


@dataclass(frozen=True, kw_only=True)
class SourceColumn:
    """One column of the source, and the name that it has in the table."""

    name: str
    target: str
    type: str  # as in the snapshot
    untyped: bool  # text that the database reads: CSV, and types that Arrow has not


@dataclass(frozen=True, kw_only=True)
class TargetColumn:
    """One column of the table."""

    name: str
    type: str  # as the database calls it
    required: bool  # neither null nor a default
    writable: bool = True  # not computed by the database
    scale: int | None = None  # digits after the point, where they are limited


@dataclass(frozen=True, kw_only=True)
class NewColumn:
    """One column of a table that is to be made."""

    name: str
    declared: str  # in the database's words; they go into the statement as they are
    required: bool
    key: int = 0  # place in the primary key, from 1; 0 is none


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What is on record about one request: what it wrote, or (no digest) that it never will."""

    request_id: str
    sha256: str | None = None
    rows: int | None = None


class Loader(Protocol):
    """One database's way to load rows in one transaction."""

    def transaction(self, *, patience: int | None = None) -> AbstractContextManager[None]:
        """Begin; commit on leaving, roll back on an error; translate the driver's errors.

        `patience` is for how many seconds locks are waited for, where the connection's own is not right.
        """

    def find_columns(self, table: tuple[str, ...]) -> tuple[TargetColumn, ...]:
        """Return the table's columns, none when there is no such table."""

    def create(self, table: tuple[str, ...], columns: Sequence[NewColumn]) -> None:
        """Make a table with these columns, without constraints but for NOT NULL and the primary key."""

    def accepts(self, source: SourceColumn, target: TargetColumn) -> bool:
        """Return whether every value of the source's type can be kept by the target's."""

    def mark(self, marker: Marker) -> Marker | None:
        """Put the marker beside the target, or return the one that its request has already.

        Another transaction that is about to put one for the same request is waited for.
        """

    def make_staging(self, table: tuple[str, ...], columns: tuple[SourceColumn, ...]) -> None: ...

    def load(self, batch: Batch) -> None: ...

    def move(self, *, mode: Mode) -> tuple[int, int]:
        """Move the staged rows to the target; return how many were staged, and how many arrived."""


def split_table_name(table: str) -> tuple[str, ...]:
    """Return the parts of `name` or `schema.name`; a part in double quotes may hold anything."""
    part = r'("(?:[^"\0]|"")+"|[^".\0]+)'
    found = re.fullmatch(rf"{part}(?:\.{part})?", table)
    if not found:
        raise InvalidRequestError(f"table {table!r} is not a name; expected name or schema.name")
    return tuple(
        text[1:-1].replace('""', '"') if text.startswith('"') else text for text in found.groups() if text
    )


def quoted(*names: str) -> str:
    """Return a name for SQL, every part in double quotes."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def create_statement(name: str, columns: Sequence[NewColumn]) -> str:
    """Return the statement that makes a table; `name` is quoted."""
    lines = [f"{quoted(one.name)} {one.declared}{' NOT NULL' if one.required else ''}" for one in columns]
    key = sorted((one for one in columns if one.key), key=lambda one: one.key)
    if key:
        lines.append(f"PRIMARY KEY ({', '.join(quoted(one.name) for one in key)})")
    return f"CREATE TABLE {name} ({', '.join(lines)})"


def family_of(type_name: str) -> str:
    """Return the family of an Arrow type by its name: string, int, float, bool, decimal, timestamp, ..."""
    if found := re.match(r"dictionary<values=([^,]+),", type_name):
        return family_of(found[1])
    if type_name.startswith("timestamp"):
        return "timestamptz" if "tz=" in type_name else "timestamp"
    for pattern, family in _FAMILIES.items():
        if re.match(pattern, type_name):
            return family
    return "other"


_FAMILIES = {
    r"(large_)?string|string_view": "string",
    r"u?int\d+$|integer$": "int",
    r"halffloat|float|double": "float",
    r"bool": "bool",
    r"decimal": "decimal",
    r"date": "date",
    r"time\d+": "time",
    r"(large_|fixed_size_)?binary": "binary",
    r"(large_|fixed_size_)?list|struct|map": "nested",
    r"null": "null",
}
