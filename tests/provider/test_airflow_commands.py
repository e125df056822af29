"""Real `airflow` commands in one home of their own, one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text

from airflow_approvals.provider import get_provider_info
from airflow_approvals.store.engine import open_engine
from airflow_approvals.store.schema import VERSION_TABLE, check_schema
from airflow_approvals.store.tables import metadata
from tests.databases import empty_database

pytestmark = pytest.mark.airflow

Airflow = Callable[..., str]
MANAGER = "airflow_approvals.store.manager.ApprovalsDBManager"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("sqlite", id="sqlite"),
        pytest.param("postgresql", id="postgresql", marks=pytest.mark.services),
    ],
)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty metadata database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('home') / 'airflow.db'}"
        return
    with empty_database(str(request.getfixturevalue("postgres_url")), "commands") as found:
        yield found


@pytest.fixture(scope="module")
def airflow(url: str, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """Run an `airflow` command on that database and return what it printed."""
    settings = {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__APPROVALS__WORKER_SECRET": "not to be seen",
    }
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    if "db-managers" not in schema["properties"]:  # Airflow 3.1: must be told
        settings["AIRFLOW__DATABASE__EXTERNAL_DB_MANAGERS"] = MANAGER

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("airflow")), *words],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    found = open_engine(url)
    yield found
    found.dispose()


def test_migrate_creates_our_tables_and_gives_back_a_guard_that_was_removed(
    airflow: Airflow, engine: Engine
) -> None:
    airflow("db", "migrate")
    check_schema(engine)
    airflow("db", "check-migrations", "--migration-wait-timeout", "1")
    with engine.begin() as connection:
        connection.execute(
            text(
                "DROP TRIGGER approvals_ledger_entry_is_append_only ON approvals_ledger_entry"
                if engine.dialect.name == "postgresql"
                else "DROP TRIGGER approvals_ledger_entry_refuses_update"
            )
        )
    airflow("db", "migrate")
    check_schema(engine)


def test_reset_without_init_leaves_nothing_of_ours(airflow: Airflow, engine: Engine) -> None:
    airflow("db", "reset", "--yes", "--skip-init")
    left = set(inspect(engine).get_table_names())
    assert not left & {*metadata.tables, VERSION_TABLE}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True, scope="module")
def test_airflow_lists_the_provider_and_its_options(airflow: Airflow) -> None:
    assert "airflow-approvals" in airflow("providers", "list", "--output", "plain")
    listed = airflow("config", "list", "--section", "approvals", "--defaults")
    for option in get_provider_info()["config"]["approvals"]["options"]:
        assert f"{option} = " in listed
    assert "not to be seen" not in listed
