from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.orm import Session

from airflow_approvals.store.manager import ApprovalsDBManager
from airflow_approvals.store.schema import HEAD, check_schema
from airflow_approvals.store.tables import metadata

pytestmark = pytest.mark.airflow


@pytest.fixture
def engine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Airflow's engine, on a database of its own."""
    found = create_engine(database_url)
    monkeypatch.setattr("airflow.settings.engine", found)
    monkeypatch.setattr("airflow.settings.SQL_ALCHEMY_CONN", database_url)
    yield found
    found.dispose()


@pytest.fixture
def manager(engine: Engine) -> Iterator[ApprovalsDBManager]:
    with Session(engine) as session:
        yield ApprovalsDBManager(session)  # type: ignore[no-untyped-call]  # Airflow's


def test_airflow_sees_when_a_migration_is_missing(manager: ApprovalsDBManager, engine: Engine) -> None:
    assert not manager.check_migration()  # type: ignore[no-untyped-call]  # Airflow's
    manager.initdb()
    assert manager.check_migration()  # type: ignore[no-untyped-call]  # Airflow's
    check_schema(engine)


def test_creating_from_the_models_is_the_same_as_migrating(
    manager: ApprovalsDBManager, engine: Engine
) -> None:
    manager.create_db_from_orm()
    check_schema(engine)


def test_down_and_up_again_by_airflow(manager: ApprovalsDBManager, engine: Engine) -> None:
    manager.upgradedb()
    manager.downgrade("base")
    assert not set(inspect(engine).get_table_names()) & set(metadata.tables)
    manager.upgradedb(to_revision=HEAD)
    check_schema(engine)


def test_the_sql_can_be_read_before_it_is_run(
    manager: ApprovalsDBManager, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    manager.upgradedb(show_sql_only=True)
    printed = capsys.readouterr().out
    for table in metadata.tables:
        assert f"CREATE TABLE IF NOT EXISTS {table}" in printed
    assert "the ledger is append-only" in printed
    manager.downgrade("base", show_sql_only=True)
    assert "DROP TABLE approvals_ledger_entry" in capsys.readouterr().out
    assert inspect(engine).get_table_names() == []


def test_what_was_dropped_can_be_created_again(manager: ApprovalsDBManager, engine: Engine) -> None:
    manager.upgradedb()
    manager.session.rollback()
    with engine.begin() as connection:
        manager.drop_tables(connection)  # type: ignore[no-untyped-call]  # Airflow's
    assert inspect(engine).get_table_names() == []
    manager.session.rollback()
    manager.upgradedb()
    check_schema(engine)
