"""Every part of a real Airflow is killed while a gate waits: nothing is lost, nothing published twice."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.staging.snapshot import snapshot
from tests.provider.runs import approve
from tests.provider.site import (
    PEOPLE,
    POLICY,
    Site,
    airflow_settings,
    call_airflow,
    free_port,
    login,
    migrate,
    start,
    stop,
    wait_until_healthy,
)

pytestmark = pytest.mark.airflow

TRIES_AGAIN = "_should_retry" in {each.name for each in attrs.fields(ActivitySubprocess)}
"""Whether Airflow itself tries a task again whose process was killed; Airflow 3.1.0 fails it for good."""

DAG_FILE = '''
import os, signal
from datetime import timedelta
from pathlib import Path
from airflow.sdk import DAG
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.pii import PiiMaskOperator
from airflow_approvals.operators.sql import ApprovedSqlWriteOperator

FOLDER = Path({folder!r})


class KilledOnce(ApprovedExportOperator):
    """Publishes, and is killed before anybody knows; the second try is not."""

    def act(self, context, used):
        facts = super().act(context, used)
        if context["ti"].try_number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return facts


class KilledAfterCommit(ApprovedSqlWriteOperator):
    """Writes rows, and is killed before anybody knows; the second try is not."""

    def act(self, context, used):
        facts = super().act(context, used)
        if context["ti"].try_number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return facts


class KilledBeforeCommit(ApprovedSqlWriteOperator):
    """Is killed when all its rows are in place, and nothing is committed; the second try is not."""

    def act(self, context, used):
        from airflow_approvals.staging import sql

        if context["ti"].try_number == 1:
            sql._check_rows = lambda *counts: os.kill(os.getpid(), signal.SIGKILL)
        return super().act(context, used)


class KilledWhileMasking(PiiMaskOperator):
    """Is killed when two parts are masked; the second try is not."""

    def execute(self, context):
        from airflow_approvals.pii.masking import datasets

        note, finished = datasets.note_finished, []

        def note_and_die(*args, **kwargs):
            finished.append(note(*args, **kwargs))
            if len(finished) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return finished[-1]

        if context["ti"].try_number == 1:
            datasets.note_finished = note_and_die
        return super().execute(context)


with DAG("waiting"):
    ApprovedExportOperator(
        task_id="publish",
        source=str(FOLDER / "customers.csv"),
        destination=str(FOLDER / "outbox") + "/{{{{ run_id }}}}.csv",
    )
with DAG("killed"):
    KilledOnce(
        task_id="publish",
        source=str(FOLDER / "customers.csv"),
        destination=str(FOLDER / "outbox") + "/{{{{ run_id }}}}.csv",
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
for killed in (KilledAfterCommit, KilledBeforeCommit):
    with DAG(killed.__name__):
        killed(
            task_id="publish",
            source=str(FOLDER / "customers.csv"),
            conn_id="crm",
            table="customers",
            retries=2,
            retry_delay=timedelta(seconds=1),
        )
with DAG("masking"):
    KilledWhileMasking(
        task_id="publish",
        source=str(FOLDER / "parts"),
        masked=str(FOLDER / "masked"),
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
'''
PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")


@dataclass(kw_only=True)
class Cluster:
    """All processes of one Airflow, each of which can be killed and started again."""

    site: Site
    port: int
    settings: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def outbox(self) -> Path:
        return self.site.home / "outbox"

    def start(self, part: str) -> None:
        more = ("--host", "127.0.0.1", "--port", str(self.port)) if part == "api-server" else ()
        self.running[part] = start(self.site.home, self.settings, part, *more)
        if part == "api-server":
            wait_until_healthy(self.site.base_url)

    def kill(self, part: str) -> None:
        stop(self.running.pop(part), kill=True)

    def stop(self) -> None:
        for part in list(self.running):
            stop(self.running.pop(part), kill=True)

    def trigger(self, dag_id: str, run_id: str) -> None:
        body = {"dag_run_id": run_id, "logical_date": None}
        # 409: an earlier call, though it was answered with an error, had started the run.
        self._until(
            f"DAG {dag_id} is known",
            lambda: self._call("POST", f"/{dag_id}/dagRuns", json=body).status_code in (200, 409),
        )

    def state(self, dag_id: str, run_id: str) -> str | None:
        return self._told(f"/{dag_id}/dagRuns/{run_id}/taskInstances/publish").get("state")

    def returned(self, dag_id: str, run_id: str) -> dict[str, Any]:
        path = f"/{dag_id}/dagRuns/{run_id}/taskInstances/publish/xcomEntries/return_value"
        told: dict[str, Any] = self._told(path)["value"]
        return told

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        return self._told(f"/{dag_id}/dagRuns/{run_id}").get("state")

    def wait_for_state(self, dag_id: str, run_id: str, state: str) -> None:
        self._until(f"{run_id} is {state}", lambda: self.state(dag_id, run_id) == state)

    def try_again(self, dag_id: str, run_id: str) -> None:
        """Clear the killed task as a person would, where Airflow does not try it again by itself."""
        if TRIES_AGAIN:
            return
        # Its scheduler would end a run whose only task was cleared while it decided that the run has failed.
        self._until(f"{run_id} has failed", lambda: self.run_state(dag_id, run_id) == "failed")
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["publish"], "reset_dag_runs": True}
        path = f"/{dag_id}/clearTaskInstances"
        self._until(f"{run_id} is cleared", lambda: self._call("POST", path, json=body).status_code == 200)

    def wait_for_request(self, run_id: str, count: int) -> ApprovalRequest:
        """Return the latest of the run's requests, once it waits and there are this many."""
        self._until(f"{run_id} has asked", lambda: len(self.site.requests_of(run_id)) == count)
        waiting = [each for each in self.site.requests_of(run_id) if each.state is State.PENDING]
        assert len(waiting) == 1
        return waiting[0]

    @contextmanager
    def customers(self) -> Iterator[sqlite3.Connection]:
        """Open the database behind the connection `crm`, with an empty table of customers."""
        connection = sqlite3.connect(self.site.home / "crm.db", isolation_level=None)
        connection.execute("DROP TABLE IF EXISTS customers")
        connection.execute("CREATE TABLE customers (id TEXT, city TEXT)")
        yield connection
        connection.close()

    def request_of(self, run_id: str) -> ApprovalRequest:
        """Return the one request of the run: nobody was asked twice."""
        (request,) = self.site.requests_of(run_id)
        return request

    def _told(self, path: str) -> dict[str, Any]:
        told: dict[str, Any] = self._call("GET", path).json()
        return told

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return call_airflow(self.site, method, f"/dags{path}", user="engineer", **options)

    def _until(self, what: str, holds: Callable[[], bool], *, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if holds():
                return
            time.sleep(0.5)
        logs = "\n".join(log.read_text(errors="replace")[-1500:] for log in self.site.home.glob("*.log"))
        raise AssertionError(f"not within {seconds} s: {what}\n{logs}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A whole Airflow with two gates waiting in it for each part that will be killed."""
    home = tmp_path_factory.mktemp("cluster")
    for folder in ("dags", "outbox", "approvals"):
        (home / folder).mkdir()
    (home / "customers.csv").write_text("id,city\n1,Graz\n2,Linz\n3,Wels\n")
    (home / "approvals" / "policy.yaml").write_text(POLICY)
    (home / "dags" / "waiting.py").write_text(DAG_FILE.format(folder=str(home)))
    port = free_port()
    settings = {
        **airflow_settings(home, port=port),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW_CONN_CRM": json.dumps({"conn_type": "sqlite", "host": str(home / "crm.db")}),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
    }
    migrate(home, settings)
    base_url = f"http://127.0.0.1:{port}"
    cluster = Cluster(site=Site(home=home, base_url=base_url, tokens={}), port=port, settings=settings)
    try:
        for part in PARTS:
            cluster.start(part)
        cluster.site.tokens.update({name: login(base_url, name) for name in PEOPLE})
        for part in PARTS:
            cluster.trigger("waiting", f"kill_{part}")
        for part in PARTS:
            cluster.wait_for_state("waiting", f"kill_{part}", "deferred")
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_while_a_gate_waits_loses_nothing(cluster: Cluster, part: str) -> None:
    run_id = f"kill_{part}"
    request = cluster.request_of(run_id)
    assert request.state is State.PENDING
    cluster.kill(part)
    if part != "api-server":
        approve(cluster.site, request)  # while it is down
    cluster.start(part)
    if part == "api-server":
        approve(cluster.site, request)
    cluster.wait_for_state("waiting", run_id, "success")
    assert cluster.request_of(run_id).state is State.COMPLETED
    assert (cluster.outbox / f"{run_id}.csv").read_bytes() == (
        cluster.site.home / "customers.csv"
    ).read_bytes()


def test_a_worker_that_is_killed_after_its_write_has_written_once(cluster: Cluster) -> None:
    cluster.trigger("killed", "kill_worker")
    cluster.wait_for_state("killed", "kill_worker", "deferred")
    approve(cluster.site, cluster.request_of("kill_worker"))
    cluster.try_again("killed", "kill_worker")
    cluster.wait_for_state("killed", "kill_worker", "success")
    request = cluster.request_of("kill_worker")
    assert request.state is State.COMPLETED
    assert request.outcome is not None
    assert request.outcome.detail == "found complete by a later try"
    assert (cluster.outbox / "kill_worker.csv").exists()


def test_a_worker_that_is_killed_after_commit_has_written_its_rows_once(cluster: Cluster) -> None:
    with cluster.customers() as customers:
        cluster.trigger("KilledAfterCommit", "after_commit")
        approve(cluster.site, cluster.wait_for_request("after_commit", 1))
        cluster.try_again("KilledAfterCommit", "after_commit")
        cluster.wait_for_state("KilledAfterCommit", "after_commit", "success")
        assert customers.execute("SELECT count(*), count(DISTINCT id) FROM customers").fetchone() == (3, 3)
    request = cluster.request_of("after_commit")
    assert request.state is State.COMPLETED
    assert request.outcome is not None
    assert request.outcome.detail == "found complete by a later try"


def test_a_worker_that_is_killed_before_commit_has_written_nothing_and_asks_anew(cluster: Cluster) -> None:
    with cluster.customers() as customers:
        cluster.trigger("KilledBeforeCommit", "before_commit")
        approve(cluster.site, cluster.wait_for_request("before_commit", 1))
        cluster.try_again("KilledBeforeCommit", "before_commit")
        second = cluster.wait_for_request("before_commit", 2)
        assert customers.execute("SELECT count(*) FROM customers").fetchone() == (0,)
        approve(cluster.site, second)
        cluster.wait_for_state("KilledBeforeCommit", "before_commit", "success")
        assert customers.execute("SELECT count(*), count(DISTINCT id) FROM customers").fetchone() == (3, 3)
    states = {each.id: each.state for each in cluster.site.requests_of("before_commit")}
    assert states.pop(second.id) is State.COMPLETED
    assert State.COMPLETED not in states.values()


def test_a_masking_that_is_killed_goes_on_with_the_next_part(cluster: Cluster) -> None:
    for part in range(4):
        rows = (f"{part}{row},ada{part}{row}@example.com" for row in range(10))
        (cluster.site.home / "parts").mkdir(exist_ok=True)
        (cluster.site.home / "parts" / f"{part}.csv").write_text("\n".join(["id,email", *rows]) + "\n")
    masked = cluster.site.home / "masked"
    cluster.trigger("masking", "kill_masking")
    cluster.try_again("masking", "kill_masking")
    cluster.wait_for_state("masking", "kill_masking", "success")
    told = cluster.returned("masking", "kill_masking")
    assert (told["resumed_parts"], told["rows"]) == (2, 40)
    assert told["sha256"] == snapshot(str(masked)).sha256
    assert "@example.com" not in "".join(part.read_text() for part in masked.iterdir())
    assert [name for name in cluster.site.home.glob(".airflow-approvals-*") if name.is_dir()] == []
