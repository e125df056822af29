"""One suite, two databases: every test that takes `store` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store

DATABASES = [
    pytest.param("sqlite", id="sqlite"),
    pytest.param("postgresql", id="postgresql", marks=pytest.mark.services),
]


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of its own for each test, empty."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'airflow.db'}"
        return
    server = str(request.getfixturevalue("postgres_url"))
    # A schema is as empty as a database, and much cheaper to make.
    name = f"approvals_{uuid4().hex}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    url = make_url(server).update_query_dict({"options": f"-csearch_path={name}"})
    yield url.render_as_string(hide_password=False)
    _drop(admin, name)
    admin.dispose()


def _drop(admin: Engine, schema: str, *, tries: int = 5) -> None:
    """Drop it; a thread of a server that was stopped may still be at its last query, and be in the way."""
    for left in reversed(range(tries)):
        try:
            with admin.connect() as connection:
                connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        except OperationalError:  # PostgreSQL has ended a deadlock
            if not left:
                raise
            time.sleep(0.5)
        else:
            return


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    """A store on a database with our tables."""
    found = create_store(database_url)
    create_tables(found.engine)
    yield found
    found.close()


@pytest.fixture
def empty_store(tmp_path: Path) -> Iterator[SqlStore]:
    """A second store, on SQLite, to compare with."""
    found = create_store(f"sqlite:///{tmp_path / 'second.db'}")
    create_tables(found.engine)
    yield found
    found.close()
