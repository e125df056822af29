"""Loading into SQLite: `BEGIN IMMEDIATE`, a temporary table like the target, one `INSERT ... SELECT`."""

from __future__ import annotations

import datetime
import decimal
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airflow_approvals.core.errors import DestinationError, InvalidRequestError, SchemaMismatchError
from airflow_approvals.staging.formats import Batch
from airflow_approvals.staging.jsonl_parts import JsonBatch
from airflow_approvals.staging.sql_tables import (
    MARKERS,
    Marker,
    Mode,
    NewColumn,
    SourceColumn,
    TargetColumn,
    create_statement,
    family_of,
    quoted,
)
from airflow_approvals.staging.sql_values import json_text, plain_batch

STAGING = '"temp"."airflow_approvals_staging"'

# What each family of types may be written to: SQLite's column affinities, of which BLOB converts nothing.
# What an affinity would convert with loss, or into another type, is left out.
KEEPS = {
    "string": {"TEXT", "BLOB"},
    "int": {"INTEGER", "NUMERIC", "BLOB"},
    "bool": {"INTEGER", "NUMERIC", "BLOB"},
    "float": {"REAL", "BLOB"},
    "decimal": {"TEXT", "BLOB"},
    "date": {"TEXT", "NUMERIC", "BLOB"},
    "time": {"TEXT", "NUMERIC", "BLOB"},
    "timestamp": {"TEXT", "NUMERIC", "BLOB"},
    "timestamptz": {"TEXT", "NUMERIC", "BLOB"},
    "binary": {"BLOB"},
    "nested": {"TEXT", "NUMERIC", "BLOB"},
    "null": {"TEXT", "INTEGER", "NUMERIC", "REAL", "BLOB"},
}


class SqliteLoader:
    """One load into one SQLite table."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._table: tuple[str, ...] = ()
        self._columns: tuple[SourceColumn, ...] = ()

    @contextmanager
    def transaction(self, *, patience: int | None = None) -> Iterator[None]:
        connection = self._connection
        if connection.in_transaction:
            raise InvalidRequestError(
                "the connection is in a transaction; end it first, this write needs its own"
            )
        level = connection.isolation_level
        # Python's sqlite3 would begin and commit where it sees fit; statements alone decide here.
        connection.isolation_level = None
        own_patience = connection.execute("PRAGMA busy_timeout").fetchone()[0]  # in milliseconds
        try:
            if patience is not None:
                connection.execute(f"PRAGMA busy_timeout = {patience * 1000}")
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # SQLite's message can repeat names from the schema only, yet extensions may say more.
            reason = getattr(error, "sqlite_errorname", type(error).__name__)
        else:
            return
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute(f"PRAGMA busy_timeout = {own_patience}")
            connection.isolation_level = level
        raise DestinationError(
            f"{quoted(*self._table)}: the database refused ({reason}); "
            "it is as it was before; see its constraints"
        ) from None  # leaving a `with`, the error would follow as context

    def find_columns(self, table: tuple[str, ...]) -> tuple[TargetColumn, ...]:
        self._table = table if len(table) == 2 else ("main", *table)
        rows = self._connection.execute(
            'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?, ?)',
            (self._table[1], self._table[0]),
        ).fetchall()
        return tuple(
            TargetColumn(
                name=name,
                type=declared or "BLOB",
                required=bool(notnull) and default is None and not pk,
                writable=hidden not in (2, 3),
            )
            for name, declared, notnull, default, pk, hidden in rows
        )

    def create(self, table: tuple[str, ...], columns: Sequence[NewColumn]) -> None:
        self._connection.execute(create_statement(quoted(*self._table), columns))

    def accepts(self, source: SourceColumn, target: TargetColumn) -> bool:
        return source.untyped or affinity_of(target.type) in KEEPS.get(family_of(source.type), set())

    def mark(self, marker: Marker) -> Marker | None:
        run = self._connection.execute
        markers = quoted(self._table[0], MARKERS)
        run(
            f"CREATE TABLE IF NOT EXISTS {markers} (request_id TEXT NOT NULL PRIMARY KEY, "
            "target_table TEXT NOT NULL, sha256 TEXT, row_count INTEGER, "
            "written_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        put = run(
            f"INSERT INTO {markers} (request_id, target_table, sha256, row_count) VALUES (?, ?, ?, ?) "  # noqa: S608  # quoted
            "ON CONFLICT (request_id) DO NOTHING",
            (marker.request_id, quoted(*self._table), marker.sha256, marker.rows),
        )
        if put.rowcount == 1:
            return None
        found = run(
            f"SELECT sha256, row_count FROM {markers} WHERE request_id = ?",  # noqa: S608  # quoted
            (marker.request_id,),
        ).fetchone()
        if found is None:
            raise DestinationError(f"{markers}: does not keep what is put there; nothing was written")
        return Marker(request_id=marker.request_id, sha256=found[0], rows=found[1])

    def make_staging(self, table: tuple[str, ...], columns: tuple[SourceColumn, ...]) -> None:
        self._columns = columns
        names = ", ".join(quoted(column.target) for column in columns)
        run = self._connection.execute
        run(f"DROP TABLE IF EXISTS {STAGING}")
        # A table made from a SELECT keeps the affinities, and none of the constraints.
        run(f"CREATE TABLE {STAGING} AS SELECT {names} FROM {quoted(*self._table)} WHERE 0")  # noqa: S608  # quoted

    def load(self, batch: Batch) -> None:
        rows = batch.to_pylist() if isinstance(batch, JsonBatch) else plain_batch(batch).to_pylist()
        marks = ", ".join("?" * len(self._columns))
        try:
            self._connection.executemany(
                f"INSERT INTO {STAGING} VALUES ({marks})",  # noqa: S608  # marks only
                ([_value(row.get(column.name)) for column in self._columns] for row in rows),
            )
        except (OverflowError, ValueError):
            pass  # the message may repeat the value
        else:
            return
        raise SchemaMismatchError(
            f"{quoted(*self._table)}: the source holds a number, text or structure that SQLite cannot keep "
            "(beyond 64 bits, NaN, half a character); nothing was written"
        )

    def move(self, *, mode: Mode) -> tuple[int, int]:
        run = self._connection.execute
        self._check_numbers()
        staged = int(run(f"SELECT count(*) FROM {STAGING}").fetchone()[0])  # noqa: S608  # a constant
        target = quoted(*self._table)
        names = ", ".join(quoted(column.target) for column in self._columns)
        if mode == "replace":
            run(f"DELETE FROM {target}")  # noqa: S608  # quoted
        before = int(run(f"SELECT count(*) FROM {target}").fetchone()[0])  # noqa: S608  # quoted
        run(f"INSERT INTO {target} ({names}) SELECT * FROM {STAGING} ORDER BY rowid")  # noqa: S608  # quoted
        after = int(run(f"SELECT count(*) FROM {target}").fetchone()[0])  # noqa: S608  # quoted
        run(f"DROP TABLE {STAGING}")
        return staged, after - before

    def _check_numbers(self) -> None:
        """SQLite keeps text in a number column without a word; text from CSV must have become a number."""
        declared = {target.name: target.type for target in self.find_columns(self._table)}
        for column in self._columns:
            if column.untyped and affinity_of(declared[column.target]) in ("INTEGER", "REAL"):
                self._check_number(column, declared[column.target])

    def _check_number(self, column: SourceColumn, declared: str) -> None:
        name = quoted(column.target)
        wrong = "'text'" if affinity_of(declared) == "REAL" else "'text', 'real'"
        row = self._connection.execute(
            f"SELECT rowid FROM {STAGING} WHERE typeof({name}) IN ({wrong}) LIMIT 1"  # noqa: S608  # quoted
        ).fetchone()
        if row:
            raise SchemaMismatchError(
                f"{quoted(*self._table)}: row {row[0]} has no {declared} in column {column.target!r}; "
                "nothing was written"
            )


def affinity_of(declared: str) -> str:
    """Return the affinity of a declared type (https://www.sqlite.org/datatype3.html, 3.1)."""
    text = declared.upper()
    rules = {
        "INTEGER": ("INT",),
        "TEXT": ("CHAR", "CLOB", "TEXT"),
        "BLOB": ("BLOB",),
        "REAL": ("REAL", "FLOA", "DOUB"),
    }
    return next((kind for kind, words in rules.items() if any(word in text for word in words)), "NUMERIC")


def _value(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("NaN")  # SQLite would store NULL
    if isinstance(value, (list, dict, tuple)):
        return json_text(value)
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return value
