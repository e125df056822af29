"""What every test stands on: an Airflow home of its own, chosen before anything imports Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

# How long an example takes says nothing: machines are shared.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


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
# The servers of the tests are on this machine; slack_sdk has no exception for them.
PROXIES = {name: os.environ.pop(name) for name in [*os.environ] if name.lower().endswith("_proxy")}
"""The proxies of whoever runs the tests, for those that install something."""


def pytest_report_header() -> str:
    """Say what Marquez it is that the lineage tests speak to."""
    return (
        f"Marquez: {os.environ.get('APPROVALS_TEST_MARQUEZ', 'NOT A REAL ONE, a stand-in takes its place')}"
    )


AIRFLOWS = {
    "one cluster": (
        "enforcement/test_attacks.py",
        "enforcement/test_cluster_policy.py",
        "enforcement/test_common_ai.py",
        "enforcement/test_hitl.py",
    ),
    "killed": ("provider/test_crashes.py",),
    "one API server": (
        "provider/test_airflow_ui.py",
        "provider/test_example_dags.py",
        "provider/test_export.py",
        "provider/test_gated.py",
        "provider/test_hook.py",
        "provider/test_pii.py",
        "provider/test_sensor.py",
        "provider/test_sql.py",
    ),
    "with Marquez": ("lineage/test_marquez.py", "docker/test_compose.py"),
    "two databases": ("channels/test_slack_end_to_end.py", "provider/test_airflow_commands.py"),
}
"""Files that need processes of Airflow; those of one group run one after the other."""
GROUPS = {f"tests/{file}": group for group, files in AIRFLOWS.items() for file in files}
FIRST = {
    *AIRFLOWS,
    "tests/pii/test_bad_input.py",
    "tests/pii/test_exact_scan.py",
    "tests/pii/test_scan_tables.py",
    "tests/pii/test_spark.py",
    "tests/web/test_fuzz.py",
}
"""What takes longest: groups, and files of their own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest begin first, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: _group_of(item.nodeid) not in FIRST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Keep each file in one process, and the files of one group: two cores have no room for more Airflows."""
    return ByGroup(config, log)


class ByGroup(LoadFileScheduling):  # type: ignore[misc]  # xdist is untyped
    def _split_scope(self, nodeid: str) -> str:
        return _group_of(nodeid)


def _group_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return GROUPS.get(file, file)


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
