"""Writes a dataset into a table for request `r1`, and is killed right before or right after its COMMIT."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from airflow_approvals.staging.snapshot import snapshot
from airflow_approvals.staging.sql import write_table
from airflow_approvals.staging.sql_postgres import PostgresLoader
from airflow_approvals.staging.sql_sqlite import SqliteLoader
from airflow_approvals.staging.sql_tables import Mode


def connect(driver: str, where: str, schema: str) -> Any:
    if driver == "sqlite":
        import sqlite3

        return sqlite3.connect(where)
    if driver == "psycopg2":
        import psycopg2

        return psycopg2.connect(where, options=f"-c search_path={schema}")
    import psycopg

    return psycopg.connect(where, options=f"-c search_path={schema}")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_commit(loader: Any) -> None:
    move = loader.move

    def move_then_die(self: Any, *, mode: Mode) -> None:
        move(self, mode=mode)
        die()

    loader.move = move_then_die


def main(source: str, mode: str, moment: str, *database: str) -> None:
    if moment == "before COMMIT":
        die_before_commit(SqliteLoader)
        die_before_commit(PostgresLoader)
    write_table(
        source,
        expected=snapshot(source),
        hook=connect(*database),
        table="t",
        mode="replace" if mode == "replace" else "append",
        request_id="r1",
    )
    die()


if __name__ == "__main__":
    main(*sys.argv[1:])
