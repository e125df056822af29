from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.store.engine import open_engine
from airflow_approvals.store.schema import (
    ALEMBIC_FILE,
    HEAD,
    VERSION_TABLE,
    check_schema,
    create_tables,
    missing_guards,
)
from airflow_approvals.store.tables import metadata, requests


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    found = open_engine(database_url)
    yield found
    found.dispose()


def migrate(engine: Engine, revision: str) -> None:
    config = Config(ALEMBIC_FILE)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if revision == "base" else command.upgrade)(config, revision)


def our_tables(engine: Engine) -> set[str]:
    return {name for name in inspect(engine).get_table_names() if name.startswith("approvals_")}


def test_the_newest_migration_is_the_one_that_is_checked_for() -> None:
    assert ScriptDirectory.from_config(Config(ALEMBIC_FILE)).get_heads() == [HEAD]


def test_migrations_and_tables_agree(engine: Engine) -> None:
    create_tables(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "compare_type": True,
                "compare_server_default": True,
                "include_object": lambda item, name, kind, *_: kind != "table" or name in metadata.tables,
            },
        )
        assert compare_metadata(context, metadata) == []
        assert missing_guards(connection) == []


def test_down_and_up_again(engine: Engine) -> None:
    migrate(engine, "head")
    check_schema(engine)
    migrate(engine, "base")
    assert our_tables(engine) == set()
    migrate(engine, "head")
    check_schema(engine)
    assert our_tables(engine) == set(metadata.tables)


def test_a_migration_that_was_cut_off_is_taken_up_again(engine: Engine) -> None:
    with engine.begin() as connection:
        requests.create(connection)
    migrate(engine, "head")
    check_schema(engine)


def test_tables_made_without_migrations_are_guarded_too_and_leave_nothing_behind(engine: Engine) -> None:
    with engine.begin() as connection:
        metadata.create_all(connection)
        assert missing_guards(connection) == []
    with engine.begin() as connection:
        metadata.drop_all(connection)
    assert our_tables(engine) == set()
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            left = connection.scalar(text("SELECT to_regproc('approvals_refuse_change')"))
        assert left is None


def test_a_database_that_was_never_migrated_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="run `airflow db migrate`"):
        check_schema(engine)


OTHER_VERSIONS = {
    "an old one": "UPDATE alembic_version_approvals SET version_num = '0000'",
    "none": "DELETE FROM alembic_version_approvals",
    "two": "INSERT INTO alembic_version_approvals VALUES ('9999')",
}


@pytest.mark.parametrize("change", OTHER_VERSIONS.values(), ids=OTHER_VERSIONS.keys())
def test_a_database_of_another_version_is_refused(engine: Engine, change: str) -> None:
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(text(change))
    with pytest.raises(ConfigurationError, match=f"expected approvals schema {HEAD}, found"):
        check_schema(engine)


def test_a_table_that_is_missing_is_named(engine: Engine) -> None:
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE approvals_checkpoint"))
    with pytest.raises(ConfigurationError, match="missing tables approvals_checkpoint"):
        check_schema(engine)


def test_a_ledger_that_lost_its_guard_is_refused(engine: Engine) -> None:
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(
            text(
                "ALTER TABLE approvals_ledger_entry DISABLE TRIGGER approvals_ledger_entry_is_append_only"
                if engine.dialect.name == "postgresql"
                else "DROP TRIGGER approvals_ledger_entry_refuses_update"
            )
        )
    with pytest.raises(ConfigurationError, match=r"approvals_ledger_entry_\w+.*verify the ledger"):
        check_schema(engine)


@pytest.mark.parametrize(
    ("url", "found"),
    [("mysql://u:secret@h/db", "found mysql"), ("not a url, secret", "expected a SQLAlchemy URL")],
)
def test_a_database_that_cannot_hold_a_ledger_is_refused_without_its_password(url: str, found: str) -> None:
    with pytest.raises(ConfigurationError, match=found) as caught:
        open_engine(url)
    assert "secret" not in str(caught.value)
