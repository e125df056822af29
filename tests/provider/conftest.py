"""One Airflow for all tests here, started when the first one needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.api.client import TaskInstanceOperations
from airflow.sdk.execution_time.comms import TaskRescheduleStartDate

from airflow_approvals.triggers.approval import ApprovalTrigger
from tests.provider.runs import Runs
from tests.provider.site import (
    PEOPLE,
    POLICY,
    Site,
    airflow_settings,
    free_port,
    login,
    migrate,
    start,
    stop,
    wait_until_healthy,
)

# Airflow, FastAPI and Starlette warn about one another while a DAG runs in this process; ours stay errors.
WARNINGS = pytest.mark.filterwarnings("default", "error:::airflow_approvals", "error:::tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "runs" in getattr(item, "fixturenames", ()):
            item.add_marker(WARNINGS)


@pytest.fixture(scope="session")
def site(airflow_home: Path) -> Iterator[Site]:
    """A migrated Airflow with its API server on a loopback port."""
    port = free_port()
    settings = airflow_settings(airflow_home, port=port)
    os.environ.update(settings)  # DAGs run in this process
    policy_file = airflow_home / "approvals" / "policy.yaml"
    policy_file.parent.mkdir(exist_ok=True)
    policy_file.write_text(POLICY)
    migrate(airflow_home, settings)
    server = start(airflow_home, settings, "api-server", "--host", "127.0.0.1", "--port", str(port))
    try:
        base_url = f"http://127.0.0.1:{port}"
        wait_until_healthy(base_url)
        tokens = {name: login(base_url, name) for name in PEOPLE}
        yield Site(home=airflow_home, base_url=base_url, tokens=tokens)
    finally:
        stop(server)


@pytest.fixture(scope="session")
def one_execution_api() -> Iterator[None]:
    """One execution API in this process: Airflow builds one for every task, most of the time of a test."""
    from airflow.sdk.execution_time import supervisor

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(supervisor, "in_process_api_server", cache(supervisor.in_process_api_server))
        monkeypatch.setattr(TaskInstanceOperations, "get_reschedule_start_date", _with_its_type)
        yield


_get_reschedule_start_date = TaskInstanceOperations.get_reschedule_start_date


def _with_its_type(self: TaskInstanceOperations, *args: Any, **kwargs: Any) -> TaskRescheduleStartDate:
    """Airflow 3.1.0 leaves it a text; on its way to a real worker, not in this process, it is made a time."""
    answer = _get_reschedule_start_date(self, *args, **kwargs)
    return TaskRescheduleStartDate.model_validate(answer.model_dump(warnings=False))


@pytest.fixture
def runs(site: Site, one_execution_api: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """What runs DAGs; decisions are not held back, because no scheduler is there to be confused."""
    monkeypatch.setattr(ApprovalTrigger, "hold_back", 0.0)
    with Runs(site) as runs:
        yield runs
        site.put_policy(POLICY)


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A staged file of three rows; `outbox` beside it is where partners look."""
    (tmp_path / "outbox").mkdir()
    file = tmp_path / "customers.csv"
    file.write_text("id,city\n1,Graz\n2,Linz\n3,Wels\n")
    return file
