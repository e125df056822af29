"""An engine of our own on Airflow's metadata database, so that our transactions are never part of Airflow's.

SQLite: a writing transaction takes the one write lock at its start (BEGIN IMMEDIATE) and waits for it, so it
can never fail half-way for a lock that it would have needed earlier. The journal stays WAL, as Airflow sets
it, with every commit synced to disk: a receipt must not be lost after it was handed out. PostgreSQL: READ
COMMITTED with row locks; waiting for a lock ends after `LOCK_WAIT_SECONDS`. A connection that turns out to be
one to a standby is given up with all others of its time: after a failover the name may lead elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, exc, make_url, text

from airflow_approvals.core.errors import ConfigurationError, ServiceUnavailableError

LOCK_WAIT_SECONDS = 30
READ_ONLY = "25006"
"""SQLSTATE of a change that a standby, or a database that is set to be read, was asked for."""


def open_engine(sql_alchemy_conn: str, connect_args: Mapping[str, Any] | None = None) -> Engine:
    """Return an engine for `[database] sql_alchemy_conn`; raise `ConfigurationError` for other databases."""
    try:
        url = make_url(sql_alchemy_conn)
    except exc.ArgumentError:
        # The library's message repeats the URL, password and all.
        raise ConfigurationError(
            "[database] sql_alchemy_conn: expected a SQLAlchemy URL, found something else; "
            "correct it in airflow.cfg"
        ) from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        return _sqlite_engine(sql_alchemy_conn, dict(connect_args or {}))
    if backend == "postgresql":
        return _postgresql_engine(url, dict(connect_args or {}))
    raise ConfigurationError(
        f"[database] sql_alchemy_conn: approvals are kept in SQLite or PostgreSQL, found {backend}; "
        "move Airflow's metadata database to PostgreSQL"
    )


class Database:
    """Airflow's metadata database as we use it: whole transactions, or reads of what is committed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # SQLite's waiting writers sleep and try again in no order; threads of one process queue here.
        self._one_writer = threading.Lock() if engine.dialect.name == "sqlite" else None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection in a transaction, committed when the block ends, rolled back when it raises."""
        with self._turn(), translated(), self._engine.connect() as connection:
            connection = connection.execution_options(approvals_writes=True)
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s'"))
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection to read what is committed."""
        with translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._one_writer is None:
            yield
            return
        if not self._one_writer.acquire(timeout=LOCK_WAIT_SECONDS):
            raise ServiceUnavailableError(
                f"another change to the metadata database has taken over {LOCK_WAIT_SECONDS} s; "
                "nothing was decided, try again"
            )
        try:
            yield
        finally:
            self._one_writer.release()


@contextmanager
def translated() -> Iterator[None]:
    """Raise `ServiceUnavailableError` where the database is away, or a lock was not to be had in time.

    Away is also one that shuts down, has no connection left, or takes no changes since a failover.
    """
    try:
        yield
    # The engine hides parameters: what is in the tables must not reach a log by way of the cause.
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise ServiceUnavailableError(
            f"the metadata database did not answer in time ({type(error).__name__}); "
            "nothing was decided, try again"
        ) from error
    except exc.DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise ServiceUnavailableError(
            "the metadata database takes no changes now, as a standby does not (or its connection broke); "
            "nothing was decided, try again"
        ) from error


def _postgresql_engine(url: URL, connect_args: dict[str, Any]) -> Engine:
    engine = create_engine(
        url,
        connect_args=connect_args,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        pool_size=10,
        max_overflow=30,
        pool_timeout=LOCK_WAIT_SECONDS,
        pool_pre_ping=True,
        pool_recycle=1800,
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET jit = off")  # our questions are short: compiling one takes longer than its answer
        cursor.close()
        connection.commit()

    @event.listens_for(engine, "handle_error")
    def _give_up_standby(context: ExceptionContext) -> None:
        # The answer to a ping is no different there, so nothing else would take it out of the pool.
        original = context.original_exception
        state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
        if state == READ_ONLY:
            context.is_disconnect = True

    return engine


def _sqlite_engine(sql_alchemy_conn: str, connect_args: dict[str, Any]) -> Engine:
    connect_args = {"timeout": LOCK_WAIT_SECONDS, **connect_args, "check_same_thread": False}
    engine = create_engine(
        sql_alchemy_conn, connect_args=connect_args, hide_parameters=True, pool_size=10, max_overflow=30
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: `_begin` does
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("approvals_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
