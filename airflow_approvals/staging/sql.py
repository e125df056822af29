"""Writing a staged dataset into a table: staged, counted and proven in one transaction, or not at all.

The rows are loaded into a temporary table while the bytes they come from are hashed; the target is touched
only when every digest is the approved one and every row is there. Columns are compared first, and nothing
is converted in a way that loses anything, with one exception that CSV forces: it has no types, so its text
is read by the database as whatever type the target column has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from airflow_approvals.core.errors import (
    ConfigurationError,
    DestinationError,
    DigestMismatchError,
    InvalidRequestError,
    SchemaMismatchError,
)
from airflow_approvals.core.model import FileDigest, Snapshot
from airflow_approvals.staging.formats import Batch, find_layout, open_reader
from airflow_approvals.staging.locations import locate
from airflow_approvals.staging.publish import check_digest, check_names

Mode = Literal["append", "replace"]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What the target got."""

    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SourceColumn:
    """One column of the source, and the name that it has in the table."""

    name: str
    target: str
    type: str  # as in the snapshot
    untyped: bool  # CSV: text that the database reads


@dataclass(frozen=True, kw_only=True)
class TargetColumn:
    """One column of the table."""

    name: str
    type: str  # as the database calls it
    required: bool  # neither null nor a default
    writable: bool = True  # not computed by the database
    scale: int | None = None  # digits after the point, where they are limited


class Loader(Protocol):
    """One database's way to load rows in one transaction."""

    def transaction(self) -> AbstractContextManager[None]:
        """Begin; commit on leaving, roll back on an error; translate the driver's errors."""

    def find_columns(self, table: tuple[str, ...]) -> tuple[TargetColumn, ...]:
        """Return the table's columns, none when there is no such table."""

    def accepts(self, source: SourceColumn, target: TargetColumn) -> bool:
        """Return whether every value of the source's type can be kept by the target's."""

    def make_staging(self, table: tuple[str, ...], columns: tuple[SourceColumn, ...]) -> None: ...

    def load(self, batch: Batch) -> None: ...

    def move(self, *, mode: Mode) -> tuple[int, int]:
        """Move the staged rows to the target; return how many were staged, and how many arrived."""


def write_table(
    source_uri: str,
    *,
    expected: Snapshot,
    hook: Any,
    table: str,
    mode: Mode = "append",
    columns: Mapping[str, str] | None = None,
    source_conn_id: str | None = None,
) -> Written:
    """Write the dataset into `table` if, and only if, its bytes are the expected ones.

    `hook` is a PostgresHook, a SqliteHook, or a connection of psycopg, psycopg2 or sqlite3 that is in no
    transaction. `table` is `name` or `schema.name`, a part with a dot in double quotes. `columns` maps
    names of the source to names of the table; those left out keep their name. `replace` deletes the rows
    that are there, in the same transaction.
    """
    if mode not in ("append", "replace"):
        raise InvalidRequestError(f"mode {mode!r} is not known; expected append or replace")
    name = split_table_name(table)
    pairs = _pair_columns(expected, columns or {})
    location = locate(source_uri, source_conn_id)
    listing = location.list_parts()
    wanted = check_names(source_uri, listing, expected)
    layout = find_layout(listing, expected.format)
    connection, is_ours = (hook.get_conn(), True) if hasattr(hook, "get_conn") else (hook, False)
    try:
        loader = _loader_for(connection)
        with loader.transaction():
            _check_target(table, pairs, loader.find_columns(name), loader)
            loader.make_staging(name, pairs)
            for part in listing.parts:
                with location.open_part(part, steady=False) as file:
                    reader = open_reader(file, part, layout)
                    for batch in reader:
                        loader.load(batch)
                found = FileDigest(name=part.name, sha256=reader.sha256, size=reader.size)
                check_digest(part.name, wanted[part.name], found)
            _check_rows(table, expected.rows, *loader.move(mode=mode))
    finally:
        if is_ours:
            connection.close()
    return Written(rows=expected.rows, sha256=expected.sha256)


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


def _pair_columns(expected: Snapshot, mapping: Mapping[str, str]) -> tuple[SourceColumn, ...]:
    unknown = sorted(set(mapping) - {column.name for column in expected.columns})
    if unknown:
        raise SchemaMismatchError(f"{expected.uri}: has no columns {unknown}; map only what is there")
    pairs = tuple(
        SourceColumn(
            name=column.name,
            target=mapping.get(column.name, column.name),
            type=column.type,
            untyped=expected.format == "csv",
        )
        for column in expected.columns
    )
    if len({pair.target for pair in pairs}) != len(pairs):
        raise SchemaMismatchError(f"{expected.uri}: two columns are mapped to the same name")
    return pairs


def _check_target(
    table: str, pairs: tuple[SourceColumn, ...], targets: tuple[TargetColumn, ...], loader: Loader
) -> None:
    if not targets:
        raise DestinationError(f"{table}: there is no such table; create it, with the columns of the source")
    by_name = {target.name: target for target in targets}
    faults = []
    for position, pair in enumerate(pairs, start=1):
        target = by_name.get(pair.target)
        if target is None:
            faults.append(f"the table has no column for column number {position} of the source")
        elif not target.writable:
            faults.append(f"column {target.name!r} is computed by the database")
        elif not loader.accepts(pair, target):
            faults.append(f"column {target.name!r} is {target.type}, which cannot keep every {pair.type}")
    given = {pair.target for pair in pairs}
    faults += [
        f"column {target.name!r} must have a value and gets none"
        for target in targets
        if target.required and target.name not in given
    ]
    if faults:
        raise SchemaMismatchError(f"{table}: {'; '.join(faults)}; nothing was written")


def _check_rows(table: str, approved: int, staged: int, arrived: int) -> None:
    if not approved == staged == arrived:
        raise DigestMismatchError(
            f"{table}: {approved} rows were approved, {staged} were staged and {arrived} arrived; "
            "nothing was written; look for a trigger or rule on the table that drops rows"
        )


def _loader_for(connection: Any) -> Loader:
    drivers = {cls.__module__.partition(".")[0] for cls in type(connection).__mro__}
    if "sqlite3" in drivers:
        from airflow_approvals.staging.sql_sqlite import SqliteLoader

        return SqliteLoader(connection)
    if drivers & {"psycopg", "psycopg2"}:
        from airflow_approvals.staging.sql_postgres import PostgresLoader

        return PostgresLoader(connection)
    raise ConfigurationError(
        f"a connection of {type(connection).__module__} cannot be written to; expected PostgreSQL (psycopg, "
        "psycopg2) or SQLite (sqlite3): one transaction around everything is proven for these alone"
    )
