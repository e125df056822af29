"""Databases that tests write into: how to connect, and what is there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any

Connect = Callable[[], Any]


def libpq_url() -> str:
    """Return the address of the tests' PostgreSQL as its drivers want it."""
    url = os.environ["APPROVALS_TEST_POSTGRES"].replace("+psycopg2", "").replace("+psycopg", "")
    return url.replace("postgres://", "postgresql://")


def run(connect: Connect, statement: str) -> list[tuple[Any, ...]]:
    connection = connect()
    cursor = connection.cursor()
    cursor.execute(statement)
    rows = cursor.fetchall() if cursor.description else []
    connection.commit()
    connection.close()
    return [tuple(row) for row in rows]


def is_sqlite(connect: Connect) -> bool:
    connection = connect()
    connection.close()
    return isinstance(connection, sqlite3.Connection)
