"""A PostgreSQL table or view read as Arrow batches: one `COPY` into a temporary file, then typed."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from airflow_approvals.core.errors import InvalidRequestError, SchemaMismatchError, SourceUnreadableError
from airflow_approvals.staging.sql_stored import (
    BATCH_ROWS,
    StoredColumn,
    StoredTable,
    TableReader,
    no_table,
)
from airflow_approvals.staging.sql_tables import quoted

ROW_LIMIT = 16 * 1024 * 1024  # bytes of one row, as text


@contextmanager
def open_postgres(connection: Any, table: tuple[str, ...]) -> Iterator[TableReader]:
    """Open a table for one reading; the connection is afterwards as it was."""
    if connection.info.transaction_status != 0:
        raise InvalidRequestError(
            "the connection is in a transaction; end it first, this reading needs its own"
        )
    autocommit = connection.autocommit
    connection.autocommit = False
    failure = ""
    try:
        with connection.cursor() as cursor, tempfile.TemporaryFile() as spool:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for setting in ("datestyle = 'ISO, YMD'", "timezone = 'UTC'", "bytea_output = 'hex'",
                            "intervalstyle = 'iso_8601'", "extra_float_digits = 3",
                            # In the order in which they are stored, each time.
                            "synchronize_seqscans = off", "max_parallel_workers_per_gather = 0"):  # fmt: skip
                cursor.execute(f"SET LOCAL {setting}")
            stored, schema = _postgres_columns(cursor, table)
            _copy_out(cursor, table, stored, spool)
            yield TableReader(stored, schema, _postgres_batches(spool, schema, quoted(*table)))
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("psycopg", "psycopg2"):
            raise
        failure = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or type(error).__name__
    finally:
        if not connection.closed:
            connection.rollback()
            connection.autocommit = autocommit
    if failure:
        raise SourceUnreadableError(
            f"{quoted(*table)}: the database refused to be read ({failure}); see its rights"
        )


def _postgres_columns(cursor: Any, table: tuple[str, ...]) -> tuple[StoredTable, Any]:
    import pyarrow as pa

    cursor.execute(
        "SELECT a.attname, t.typname, a.atttypmod, a.attnotnull, "
        "pg_catalog.format_type(a.atttypid, a.atttypmod), "
        "coalesce(pg_catalog.array_position(i.indkey::int2[], a.attnum) + 1, 0) "
        "FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
        "LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisprimary "
        "WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped "
        "ORDER BY a.attnum",
        (quoted(*table),),
    )
    fields, columns = [], []
    for name, kind, modifier, required, declared, key in cursor.fetchall():
        arrow = _postgres_type(kind, modifier)
        as_text = arrow is None and kind not in ("text", "varchar", "bpchar")
        fields.append(pa.field(name, pa.string() if arrow is None else arrow, nullable=not required))
        columns.append(
            StoredColumn(name=name, declared=declared, required=required, key=key, as_text=as_text)
        )
    if not columns:
        raise no_table(table)
    return StoredTable(kind="postgresql", columns=tuple(columns)), pa.schema(fields)


def _postgres_type(kind: str, modifier: int) -> Any:
    """Return the Arrow type of a PostgreSQL type, None for what is read as text."""
    import pyarrow as pa

    if (
        kind == "numeric" and modifier >= 4
    ):  # numeric(p, s): ((p << 16) | s) + 4, the scale in 11 bits with a sign
        precision, scale = (modifier - 4) >> 16, ((modifier - 4 & 0x7FF) ^ 1024) - 1024
        if 0 <= scale <= precision <= 76:
            return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    known: dict[str, Any] = {
        "bool": pa.bool_(), "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(),
        "float4": pa.float32(), "float8": pa.float64(), "bytea": pa.binary(), "date": pa.date32(),
        "time": pa.time64("us"), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", tz="UTC"),
    }  # fmt: skip
    return known.get(kind)


def _copy_out(cursor: Any, table: tuple[str, ...], stored: StoredTable, spool: IO[bytes]) -> None:
    columns = ", ".join(quoted(one.name) for one in stored.columns)
    order = ", ".join(_place(one) for one in stored.key)
    # Of a SELECT, so that views and partitioned tables can be read; null is nothing, all else is quoted.
    statement = (
        f"COPY (SELECT {columns} FROM {quoted(*table)}{f' ORDER BY {order}' if order else ''}) TO STDOUT "  # noqa: S608  # quoted
        "(FORMAT csv, NULL '', FORCE_QUOTE *, ENCODING 'UTF8')"
    )
    if hasattr(cursor, "copy_expert"):
        cursor.copy_expert(statement, spool)
    else:
        with cursor.copy(statement) as copy:
            for block in copy:
                spool.write(block)
    spool.seek(0)


def _place(column: StoredColumn) -> str:
    """Return what rows are ordered by: texts by their bytes, as in every other database."""
    is_text = column.declared.startswith(("text", "character"))
    return quoted(column.name) + (' COLLATE "C"' if is_text else "")


def _postgres_batches(spool: IO[bytes], schema: Any, table: str) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv as pacsv

    if not spool.read(1):
        return
    spool.seek(0)
    done = 0
    too_long = False
    try:
        batches = pacsv.open_csv(
            pa.PythonFile(spool, mode="r"),
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=ROW_LIMIT, column_names=schema.names
            ),
            parse_options=pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in schema.names},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        for batch in batches:
            for first in range(0, batch.num_rows, BATCH_ROWS):
                some = batch.slice(first, BATCH_ROWS)
                yield _typed(some, schema, table, done)
                done += some.num_rows
    except pa.ArrowInvalid:
        too_long = True  # Arrow's message repeats the row
    if too_long:
        raise SourceUnreadableError(
            f"{table}: after row {done - 1} a row is longer than {ROW_LIMIT} bytes; expected less; "
            "leave the column out with a view"
        )


def _typed(batch: Any, schema: Any, table: str, done: int) -> Any:
    import pyarrow as pa

    arrays = []
    for field, column in zip(schema, batch.columns, strict=True):
        read = _reading_of(field.type)
        try:
            made = read(column)
        except (pa.ArrowInvalid, ValueError):
            made = None
        if made is None:
            raise SchemaMismatchError(
                f"{table}: row {done + _first_bad(read, column)}, column {field.name!r} holds what "
                f"{field.type} has no place for (infinity, NaN, a year before 1); expected a finite value; "
                "read a view that casts it to text"
            )
        arrays.append(made)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _reading_of(kind: Any) -> Callable[[Any], Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(kind):
        return lambda column: pc.equal(column, "t")
    if pa.types.is_binary(kind):
        return lambda column: pa.array(
            [None if text is None else bytes.fromhex(text[2:]) for text in column.to_pylist()], kind
        )
    if pa.types.is_time(kind):
        clock = datetime.time.fromisoformat
        return lambda column: pa.array(
            [None if text is None else clock(text) for text in column.to_pylist()], kind
        )
    return lambda column: column.cast(kind)


def _first_bad(read: Callable[[Any], Any], column: Any) -> int:
    import pyarrow as pa

    for row in range(len(column)):
        try:
            read(column.slice(row, 1))
        except (pa.ArrowInvalid, ValueError):
            return row
    return 0
