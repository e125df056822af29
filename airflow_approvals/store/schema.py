"""Is the database ready for us: the tables at the right version, the ledger's guards in place."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.store.append_only import find_guards, guard_names
from airflow_approvals.store.engine import Database
from airflow_approvals.store.tables import metadata

MIGRATION_FOLDER = (Path(__file__).parent / "migrations").as_posix()
ALEMBIC_FILE = (Path(__file__).parent / "alembic.ini").as_posix()
VERSION_TABLE = "alembic_version_approvals"
HEAD = "0005"
"""The newest migration."""


def create_tables(engine: Engine) -> None:
    """Run the migrations on `engine`, where there is no Airflow to do it (`airflow db migrate`)."""
    from alembic import command
    from alembic.config import Config

    config = Config(ALEMBIC_FILE)
    with Database(engine).writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)


def check_schema(engine: Engine) -> None:
    """Raise `ConfigurationError` unless tables, version and the ledger's guards are as we need them."""
    with Database(engine).reading() as connection:
        existing = set(inspect(connection).get_table_names())
        missing = sorted({*metadata.tables, VERSION_TABLE} - existing)
        if missing:
            raise _not_migrated(f"missing tables {', '.join(missing)}")
        version = _version(connection)
        if version != HEAD:
            raise _not_migrated(f"expected approvals schema {HEAD}, found {version or 'none'}")
        unguarded = missing_guards(connection)
    if unguarded:
        raise ConfigurationError(
            f"metadata database: triggers of the append-only ledger are gone ({', '.join(unguarded)}); "
            "verify the ledger, it may have been changed, then run `airflow db migrate` to have them again"
        )


def missing_guards(connection: Connection) -> list[str]:
    """Return the names of the triggers that are gone or disabled."""
    return sorted(guard_names(connection.dialect.name) - find_guards(connection))


def _version(connection: Connection) -> str | None:
    query = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608  # our own table name
    found = sorted(connection.execute(query).scalars())
    return ", ".join(found) or None


def _not_migrated(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"metadata database: {what}; run `airflow db migrate` (Airflow 3.1: first set [database] "
        "external_db_managers = airflow_approvals.store.manager.ApprovalsDBManager)"
    )
