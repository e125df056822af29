"""What every test stands on: an Airflow home of its own, chosen before anything imports Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest


def _use_own_airflow_home() -> Path:
    home = Path(tempfile.mkdtemp(prefix="airflow-approvals-tests-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "dags").mkdir()
    for name in [name for name in os.environ if name.startswith("AIRFLOW__")]:
        del os.environ[name]  # the settings of whoever runs the tests
    os.environ.update(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__DAGS_FOLDER=str(home / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home / 'airflow.db'}",
        AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS="False",
        AIRFLOW__API__SECRET_KEY="the secret key of the tests",
        AIRFLOW__API_AUTH__JWT_SECRET="the JWT secret of the tests, long enough to sign with",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS="engineer:user,alice:user,bob:user,admin:admin",
    )
    return home


AIRFLOW_HOME = _use_own_airflow_home()


def pytest_report_header() -> str:
    """Say what Marquez it is that the lineage tests speak to."""
    return (
        f"Marquez: {os.environ.get('APPROVALS_TEST_MARQUEZ', 'NOT A REAL ONE, a stand-in takes its place')}"
    )


WHOLE_AIRFLOWS = {
    "test_crashes.py": "crashes",
    "test_marquez.py": "lineage",
    "test_compose.py": "lineage",
    "test_slack_end_to_end.py": "commands",
    "test_airflow_commands.py": "commands",
}
"""Files that start every process of Airflow, by the group in which they run one after the other."""
SHARED_AIRFLOWS = {("enforcement", "cluster"), ("provider", "site")}
"""Fixtures that give one Airflow to the tests of several files: each is a group, too."""


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file in one process, and each Airflow: a machine of two cores has no room for more of them.

    They begin first, so that no process is left alone with one at the end.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_airflow_of(item) or item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: _airflow_of(item) is None)


def _airflow_of(item: pytest.Item) -> str | None:
    """Return the group of a test that needs processes of Airflow's own."""
    folder = item.path.parent.name
    for fixture in getattr(item, "fixturenames", ()):
        if (folder, fixture) in SHARED_AIRFLOWS and item.path.name not in WHOLE_AIRFLOWS:
            return f"{folder} {fixture}"
    return WHOLE_AIRFLOWS.get(item.path.name)


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """Return the AIRFLOW_HOME of this test session."""
    return AIRFLOW_HOME


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """Return the SQLAlchemy URL of an empty PostgreSQL; tests that use it are marked `services`."""
    url = os.environ.get("APPROVALS_TEST_POSTGRES")
    if not url:
        pytest.fail("no PostgreSQL: run these tests through make test-services", pytrace=False)
    return url
