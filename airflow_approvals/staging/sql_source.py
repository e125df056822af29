"""A table read as Arrow batches in one look at the database, and staged as Parquet: bounded memory.

| PostgreSQL (`COPY`)                | Arrow                  | SQLite, by what a column holds      | Arrow  |
| ---------------------------------- | ---------------------- | ----------------------------------- | ------ |
| bool, int2-8, float4-8             | the same               | whole numbers only                  | int64  |
| numeric(p, s)                      | decimal128, decimal256 | broken numbers only                 | double |
| date, time, timestamp, timestamptz | the same, microseconds | texts only                          | string |
| bytea                              | binary                 | blobs only                          | binary |
| all else (uuid, jsonb, arrays)     | string, its text       | texts and numbers, by affinity      | string |

The last line is text of which the database makes the same value again: `as_text` says which columns these
are. Numbers of SQLite's that are whole here and broken there are doubles, where none is beyond 2^53.
Rows come in the order of the primary key; without one, in that in which they are stored. What has no place in
these types is refused by row (the first is 0) and column, never left out and never changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.staging.sql_stored import StoredTable, TableReader
from airflow_approvals.staging.sql_tables import split_table_name


def stage_table(hook: Any, table: str, path: Path) -> StoredTable:
    """Write the rows of `table` into a Parquet file at `path`, as they are at one moment.

    `hook` is a PostgresHook, a SqliteHook, or a connection of psycopg, psycopg2 or sqlite3 that is in no
    transaction; nothing is changed in the database. Raises a `DatasetError`; then there is no file.
    """
    from pyarrow import parquet

    try:
        with (
            open_table(hook, table) as reader,
            parquet.ParquetWriter(path, reader.schema, compression="zstd") as writer,
        ):
            for batch in reader.batches:
                writer.write_batch(batch)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return reader.stored


@contextmanager
def open_table(hook: Any, table: str) -> Iterator[TableReader]:
    """Open a table for one reading, in a transaction of its own that changes nothing."""
    name = split_table_name(table)
    connection, is_ours = (hook.get_conn(), True) if hasattr(hook, "get_conn") else (hook, False)
    try:
        drivers = {cls.__module__.partition(".")[0] for cls in type(connection).__mro__}
        if "sqlite3" in drivers:
            from airflow_approvals.staging.sql_source_sqlite import open_sqlite

            with open_sqlite(connection, name) as reader:
                yield reader
        elif drivers & {"psycopg", "psycopg2"}:
            from airflow_approvals.staging.sql_source_postgres import open_postgres

            with open_postgres(connection, name) as reader:
                yield reader
        else:
            raise ConfigurationError(
                f"a connection of {type(connection).__module__} cannot be read as a table; expected "
                "PostgreSQL (psycopg, psycopg2) or SQLite (sqlite3)"
            )
    finally:
        if is_ours:
            connection.close()
