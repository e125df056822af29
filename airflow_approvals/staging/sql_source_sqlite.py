"""A SQLite table read as Arrow batches: typed by what its columns hold, which may be anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airflow_approvals.core.errors import InvalidRequestError, SchemaMismatchError, SourceUnreadableError
from airflow_approvals.staging.sql_sqlite import affinity_of
from airflow_approvals.staging.sql_stored import (
    BATCH_ROWS,
    StoredColumn,
    StoredTable,
    TableReader,
    no_table,
)
from airflow_approvals.staging.sql_tables import quoted

BATCH_BYTES = 8 * 1024 * 1024  # of texts and blobs, aimed at


@contextmanager
def open_sqlite(connection: Any, table: tuple[str, ...]) -> Iterator[TableReader]:
    """Open a table for one reading; the connection is afterwards as it was."""
    if connection.in_transaction:
        raise InvalidRequestError(
            "the connection is in a transaction; end it first, this reading needs its own"
        )
    level, factory = connection.isolation_level, connection.text_factory
    connection.isolation_level = None
    # Text comes as bytes: the driver's own error for text that is not UTF-8 repeats the text.
    connection.text_factory = bytes
    try:
        connection.execute("BEGIN")
        yield _sqlite_reader(connection, table if len(table) == 2 else ("main", *table))
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.isolation_level, connection.text_factory = level, factory


def _sqlite_reader(connection: Any, table: tuple[str, ...]) -> TableReader:
    import pyarrow as pa

    found = connection.execute(
        'SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?, ?)', (table[1], table[0])
    ).fetchall()
    declared = [
        (name.decode(), kind.decode(), bool(required), key)
        for name, kind, required, key, hidden in found
        if hidden != 1
    ]
    if not declared:
        raise no_table(table)
    kinds = ", ".join(f"group_concat(DISTINCT typeof({quoted(name)}))" for name, *_ in declared)
    held = connection.execute(f"SELECT {kinds} FROM {quoted(*table)}").fetchone()  # noqa: S608  # quoted
    fields, columns = [], []
    for (name, kind, required, key), words in zip(declared, held, strict=True):
        held_kinds = frozenset((words or b"").decode().split(",")) - {"", "null"}
        arrow, as_text = _sqlite_type(connection, table, name, affinity_of(kind or "BLOB"), held_kinds)
        fields.append(pa.field(name, arrow, nullable=not required))
        columns.append(StoredColumn(name=name, declared=kind, required=required, key=key, as_text=as_text))
    schema = pa.schema(fields)
    stored = StoredTable(kind="sqlite", columns=tuple(columns))
    return TableReader(stored, schema, _sqlite_batches(connection, table, schema, _order(stored)))


def _order(stored: StoredTable) -> str:
    return f" ORDER BY {', '.join(quoted(one.name) for one in stored.key)}" if stored.key else ""


def _sqlite_type(
    connection: Any, table: tuple[str, ...], name: str, affinity: str, held: frozenset[str]
) -> tuple[Any, bool]:
    """Return the Arrow type that keeps everything the column holds, and whether it is only its text."""
    import pyarrow as pa

    plain = {"integer": pa.int64(), "real": pa.float64(), "text": pa.string(), "blob": pa.binary()}
    empty = {"INTEGER": "integer", "REAL": "real", "BLOB": "blob"}
    converts = affinity in ("NUMERIC", "INTEGER")  # these make a number of its text again, and 3 of 3.0
    if len(held) <= 1:
        kind = next(iter(held), empty.get(affinity, "text"))
        is_other = {"text": affinity not in ("TEXT", "BLOB"), "real": converts}
        return plain[kind], is_other.get(kind, False)
    if held == {"integer", "real"} and converts and _are_exact_as_floats(connection, table, name):
        return pa.float64(), True
    if "blob" not in held and converts:
        return pa.string(), True
    other = sorted(held)[1]
    kinds = connection.execute(f"SELECT typeof({quoted(name)}) FROM {quoted(*table)}")  # noqa: S608  # quoted
    row = next(row for row, (kind,) in enumerate(kinds) if kind == other.encode())
    raise SchemaMismatchError(
        f"{quoted(*table)}: column {name!r} holds {' and '.join(sorted(held))} (row {row} is the first with "
        f"{other}); expected one kind of value; read a view that casts it"
    )


def _are_exact_as_floats(connection: Any, table: tuple[str, ...], name: str) -> bool:
    column = quoted(name)
    least, most = connection.execute(
        f"SELECT min({column}), max({column}) FROM {quoted(*table)} WHERE typeof({column}) = 'integer'"  # noqa: S608  # quoted
    ).fetchone()
    return bool(least >= -(2**53) and most <= 2**53)


def _sqlite_batches(connection: Any, table: tuple[str, ...], schema: Any, order: str) -> Iterator[Any]:
    names = ", ".join(map(quoted, schema.names))
    rows: list[tuple[Any, ...]] = []
    done = used = 0
    for row in connection.execute(f"SELECT {names} FROM {quoted(*table)}{order}"):  # noqa: S608  # quoted
        rows.append(row)
        used += sum(len(value) for value in row if isinstance(value, bytes))
        if len(rows) >= BATCH_ROWS or used >= BATCH_BYTES:
            yield _sqlite_batch(rows, schema, quoted(*table), done)
            done += len(rows)
            rows, used = [], 0
    if rows:
        yield _sqlite_batch(rows, schema, quoted(*table), done)


def _sqlite_batch(rows: Sequence[tuple[Any, ...]], schema: Any, table: str, done: int) -> Any:
    import pyarrow as pa

    arrays = []
    for field, values in zip(schema, zip(*rows, strict=True), strict=True):
        made = values if not pa.types.is_string(field.type) else _decoded(values, table, field.name, done)
        arrays.append(pa.array(made, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _decoded(values: Sequence[Any], table: str, column: str, done: int) -> list[str | None]:
    made: list[str | None] = []
    for value in values:
        try:
            made.append(
                value.decode() if isinstance(value, bytes) else None if value is None else repr(value)
            )
        except UnicodeDecodeError:
            break
    if len(made) < len(values):
        raise SourceUnreadableError(
            f"{table}: row {done + len(made)}, column {column!r} holds bytes that are not UTF-8; "
            "expected text"
        )
    return made
