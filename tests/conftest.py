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


LONGEST = (
    "test_attacks.py",
    "test_hitl.py",
    "test_crashes.py",
    "test_airflow_commands.py",
    "test_airflow_ui.py",
    "test_publish_crash.py",
    "test_slack_end_to_end.py",
    "test_slack_flow.py",
    "test_compose.py",
    "test_marquez.py",
    "test_pages.py",
)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file in one process, and let the longest begin first: none shall be left alone at the end.

    The tests of the one cluster of tests/enforcement stay together, whatever file they are in.
    """
    for item in items:
        has_cluster = "cluster" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("cluster" if has_cluster else item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.path.name not in LONGEST)


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
