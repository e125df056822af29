"""Loading into PostgreSQL: `COPY` into a temporary table, one `INSERT ... SELECT`; psycopg or psycopg2."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from airflow_approvals.core.errors import (
    DestinationError,
    InvalidRequestError,
    LostWriteError,
    SchemaMismatchError,
)
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

STAGING = '"pg_temp"."airflow_approvals_staging"'
IDLE = 0  # libpq's transaction status, the same number in psycopg and psycopg2
DATA_EXCEPTIONS = "22"  # SQLSTATE class: a value is not what its column's type says
BROKEN = ("", "08", "57")  # SQLSTATE classes: no answer, connection exception, operator intervention

TEXT = {"text", "varchar", "bpchar"}
KEEPS = {
    "string": {*TEXT, "uuid", "json", "jsonb", "xml", "inet", "cidr", "citext"},
    "int": {"int2", "int4", "int8", "numeric"},  # too large a number is an error there, not another number
    "bool": {"bool"},
    "float": {"float8"},
    "decimal": {"numeric"},
    "date": {"date"},
    "time": {"time"},
    "timestamp": {"timestamp"},
    "timestamptz": {"timestamptz"},
    "binary": {"bytea"},
    "nested": {"json", "jsonb"},
}


class PostgresLoader:
    """One load into one PostgreSQL table."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._cursor: Any = None
        self._table: tuple[str, ...] = ()
        self._columns: tuple[SourceColumn, ...] = ()
        self._copied = 0
        self._busy_with = "the table"  # what a refusal is about
        self._committing = False

    @contextmanager
    def transaction(self, *, patience: int | None = None) -> Iterator[None]:
        connection = self._connection
        if connection.info.transaction_status != IDLE:
            raise InvalidRequestError(
                "the connection is in a transaction; end it first, this write needs its own"
            )
        autocommit = connection.autocommit
        connection.autocommit = False
        done = False
        try:
            with connection.cursor() as self._cursor:
                self._cursor.execute("SET LOCAL datestyle = 'ISO, YMD'")
                self._cursor.execute("SET LOCAL timezone = 'UTC'")
                if patience is not None:
                    self._cursor.execute(f"SET LOCAL lock_timeout = '{patience}s'")
                yield
            self._committing = True
            connection.commit()
            done = True
        except self._driver_error() as error:
            # The server's message can repeat a value, and its context the whole row.
            state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
        else:
            return
        finally:
            with suppress(self._driver_error()):  # a broken connection rolls back by itself
                if not done:
                    connection.rollback()
                connection.autocommit = autocommit
        raise self._refusal(str(state)) from None  # leaving a `with`, the error would follow as context

    def find_columns(self, table: tuple[str, ...]) -> tuple[TargetColumn, ...]:
        self._table = table
        self._busy_with = quoted(*table)
        self._cursor.execute(
            "SELECT a.attname, t.typname, a.atttypmod, a.attnotnull, a.atthasdef OR a.attidentity <> '', "
            "a.attgenerated <> '' OR a.attidentity = 'a' FROM pg_catalog.pg_attribute a "
            "JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped",
            (quoted(*table),),
        )
        return tuple(
            TargetColumn(
                name=name,
                type=kind,
                required=notnull and not default,
                writable=not computed,
                # numeric(p, s): ((p << 16) | s) + 4, the scale in 11 bits with a sign
                scale=((mod - 4 & 0x7FF) ^ 1024) - 1024 if kind == "numeric" and mod >= 4 else None,
            )
            for name, kind, mod, notnull, default, computed in self._cursor.fetchall()
        )

    def create(self, table: tuple[str, ...], columns: Sequence[NewColumn]) -> None:
        self._cursor.execute(create_statement(quoted(*table), columns))

    def accepts(self, source: SourceColumn, target: TargetColumn) -> bool:
        family = family_of(source.type)
        if source.untyped or family == "null":
            return True
        if family == "decimal" and target.scale is not None:  # a smaller scale rounds, without a word
            return target.type == "numeric" and target.scale >= int(source.type.split(",")[1].rstrip(") "))
        if source.type in ("float", "halffloat") and target.type == "float4":
            return True
        return target.type in KEEPS.get(family, set())

    def mark(self, marker: Marker) -> Marker | None:
        run = self._cursor.execute
        markers, target = self._find_markers()
        self._busy_with = markers
        run("SELECT pg_catalog.to_regclass(%s) IS NULL", (markers,))
        if self._cursor.fetchone()[0]:
            # Two first writes at once: without this one of them fails, IF NOT EXISTS or not.
            run("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext(%s))", (markers,))
            run(
                f"CREATE TABLE IF NOT EXISTS {markers} (request_id text PRIMARY KEY, "
                "target_table text NOT NULL, sha256 text, row_count bigint, "
                "written_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            )
        named = markers.replace("%", "%%")  # both drivers read the statement for %s
        run(
            f"INSERT INTO {named} (request_id, target_table, sha256, row_count) VALUES (%s, %s, %s, %s) "  # noqa: S608  # quoted
            "ON CONFLICT (request_id) DO NOTHING",
            (marker.request_id, target, marker.sha256, marker.rows),
        )
        found = None
        if self._cursor.rowcount != 1:
            found = self._read_marker(named, marker.request_id)
        self._busy_with = quoted(*self._table)
        return found

    def _find_markers(self) -> tuple[str, str]:
        self._cursor.execute(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
            "ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(%s)",
            (quoted(*self._table),),
        )
        schema, name = self._cursor.fetchone()
        return quoted(schema, MARKERS), quoted(schema, name)

    def _read_marker(self, named: str, request_id: str) -> Marker:
        self._cursor.execute(
            f"SELECT sha256, row_count FROM {named} WHERE request_id = %s",  # noqa: S608  # quoted
            (request_id,),
        )
        found = self._cursor.fetchone()
        if found is None:
            raise DestinationError(f"{self._busy_with}: does not keep what is put there; nothing was written")
        return Marker(request_id=request_id, sha256=found[0], rows=found[1])

    def make_staging(self, table: tuple[str, ...], columns: tuple[SourceColumn, ...]) -> None:
        self._columns = columns
        names = ", ".join(quoted(column.target) for column in columns)
        self._cursor.execute(
            f"CREATE TEMPORARY TABLE airflow_approvals_staging ON COMMIT DROP AS "  # noqa: S608  # quoted
            f"SELECT {names} FROM {quoted(*table)} WITH NO DATA"
        )

    def load(self, batch: Batch) -> None:
        names = ", ".join(quoted(column.target) for column in self._columns)
        statement = f"COPY {STAGING} ({names}) FROM STDIN (FORMAT csv, NULL '', ENCODING 'UTF8')"
        data = self._json_rows(batch) if isinstance(batch, JsonBatch) else self._arrow_rows(batch)
        if hasattr(self._cursor, "copy_expert"):
            self._cursor.copy_expert(statement, io.BytesIO(data))
        else:
            with self._cursor.copy(statement) as copy:
                copy.write(data)
        self._copied += batch.num_rows

    def move(self, *, mode: Mode) -> tuple[int, int]:
        run = self._cursor.execute
        target = quoted(*self._table)
        names = ", ".join(quoted(column.target) for column in self._columns)
        run(f"SELECT count(*) FROM {STAGING}")  # noqa: S608  # a constant
        staged = int(self._cursor.fetchone()[0])
        if mode == "replace":
            run(f"LOCK TABLE {target} IN SHARE ROW EXCLUSIVE MODE")  # nobody else's rows between the two
            run(f"DELETE FROM {target}")  # noqa: S608  # quoted
        run(f"INSERT INTO {target} ({names}) SELECT {names} FROM {STAGING}")  # noqa: S608  # quoted
        return staged, int(self._cursor.rowcount)

    def _json_rows(self, batch: JsonBatch) -> bytes:
        names = [column.name for column in self._columns]
        try:
            text = "".join(",".join(_field(row.get(name)) for name in names) + "\n" for row in batch.rows)
            return text.encode()
        except ValueError:
            pass  # the message may repeat the value
        raise self._refusal(DATA_EXCEPTIONS)

    def _arrow_rows(self, batch: Any) -> bytes:
        import pyarrow as pa
        from pyarrow import csv as pacsv

        plain = plain_batch(batch)
        arrays = []
        for column in self._columns:
            array = plain.column(column.name)
            family = family_of(str(array.type))
            if family in ("binary", "nested"):
                array = pa.array([_text(value) for value in array.to_pylist()], pa.string())
            arrays.append(array)
        sink = io.BytesIO()
        pacsv.write_csv(
            pa.record_batch(arrays, names=[column.target for column in self._columns]),
            sink,
            # What is there is quoted, what is null is not: the empty string and null stay apart.
            pacsv.WriteOptions(include_header=False, quoting_style="all_valid"),
        )
        return sink.getvalue()

    def _driver_error(self) -> type[Exception]:
        if any(cls.__module__.startswith("psycopg2") for cls in type(self._connection).__mro__):
            import psycopg2

            return psycopg2.Error  # type: ignore[no-any-return]  # untyped
        import psycopg

        return psycopg.Error

    def _refusal(self, state: str) -> Exception:
        where = self._busy_with
        if state.startswith(DATA_EXCEPTIONS):
            return SchemaMismatchError(
                f"{where}: a value among the {self._copied}th row and later is not of its column's type "
                f"(SQLSTATE {state}); nothing was written"
            )
        if self._committing and state[:2] in BROKEN:
            return LostWriteError(
                f"{where}: the connection broke; without an answer to COMMIT nobody knows whether the "
                "rows are there: look before running this again"
            )
        if state[:2] in BROKEN:
            return DestinationError(
                f"{where}: the connection broke before COMMIT; it is as it was before; run this again"
            )
        return DestinationError(
            f"{where}: the database refused (SQLSTATE {state}); it is as it was before; "
            "see its rights and constraints"
        )


def _field(value: Any) -> str:
    text = _text(value)
    return "" if text is None else '"' + text.replace('"', '""') + '"'


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, (list, dict, tuple)):
        return json_text(value)
    if isinstance(value, float):
        return repr(value)
    return str(value)
