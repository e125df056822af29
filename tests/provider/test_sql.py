"""The SQL write in a real Airflow: all approved rows arrive, or none."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, BaseHook
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_approvals.core.errors import LostWriteError, ServiceUnavailableError
from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.hooks.approvals import ApprovalsHook
from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.operators.sql import ApprovedSqlWriteOperator
from airflow_approvals.staging.sql import write_table
from tests.provider.runs import Runs, approve, deny
from tests.provider.site import POLICY, Site

pytestmark = pytest.mark.airflow


@pytest.fixture
def crm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """A database with an empty table, behind the Airflow connection `crm`."""
    file = tmp_path / "crm.db"
    monkeypatch.setenv("AIRFLOW_CONN_CRM", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE customers (id TEXT, city TEXT)")
    connection.commit()
    yield connection
    connection.close()


def rows(crm: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return crm.execute("SELECT id, city FROM customers ORDER BY id").fetchall()


def write_dag(name: str, staged: Path, **kwargs: Any) -> DAG:
    with DAG(name) as dag:
        ApprovedSqlWriteOperator(
            task_id="load", **{"source": str(staged), "conn_id": "crm", "table": "customers", **kwargs}
        )
    return dag


def test_approved_rows_are_written(runs: Runs, staged: Path, crm: sqlite3.Connection) -> None:
    run = runs.test(write_dag("written", staged))
    assert run.states == {"load": "success"}
    assert rows(crm) == [("1", "Graz"), ("2", "Linz"), ("3", "Wels")]
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.COMPLETED
    assert request.action.destination == "sql://crm/customers"


def test_denied_rows_are_not_written(runs: Runs, staged: Path, crm: sqlite3.Connection) -> None:
    run = runs.test(write_dag("not_written", staged), deny)
    assert run.states == {"load": "failed"}
    assert rows(crm) == []


def test_rows_that_changed_since_are_not_written(runs: Runs, staged: Path, crm: sqlite3.Connection) -> None:
    def change_then_approve(site: Site, request: ApprovalRequest) -> None:
        staged.write_text("id,city\n9,Steyr\n")
        approve(site, request)

    run = runs.test(write_dag("changed_rows", staged), change_then_approve)
    assert run.states == {"load": "failed"}
    assert rows(crm) == []
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [State.FAILED]


def test_a_gate_upstream_names_the_same_write(runs: Runs, staged: Path, crm: sqlite3.Connection) -> None:
    with DAG("gate_then_write") as dag:
        ApprovalGateOperator(
            task_id="gate",
            kind="write",
            source=str(staged),
            destination="sql://crm/customers",
            parameters={"mode": "replace"},
        ) >> ApprovedSqlWriteOperator(
            task_id="load",
            source=str(staged),
            conn_id="crm",
            table="customers",
            mode="replace",
            request_id="{{ ti.xcom_pull('gate') }}",
        )
    run = runs.test(dag)
    assert run.states == {"gate": "success", "load": "success"}
    assert len(rows(crm)) == 3


def test_another_database_is_refused_before_anybody_is_asked(
    runs: Runs, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FEED", json.dumps({"conn_type": "http", "host": "feed.invalid"}))
    run = runs.test(write_dag("other_database", staged, conn_id="feed"))
    assert run.states == {"load": "failed"}
    assert not runs.site.requests_of(run.run_id)


def reads_of(monkeypatch: pytest.MonkeyPatch, *, sealed: type[Exception] | None = None) -> list[str]:
    """Note whatever connection is read; the first read is refused as that of a sealed one, if so told."""
    read: list[str] = []
    get_hook = BaseHook.get_hook

    def noted(conn_id: str, **kwargs: Any) -> Any:
        read.append(conn_id)
        if sealed is not None and len(read) == 1:
            raise sealed(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        return get_hook(conn_id, **kwargs)

    monkeypatch.setattr(BaseHook, "get_hook", noted)
    return read


def test_a_protected_connection_is_not_read_before_the_approval(
    runs: Runs, staged: Path, crm: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.site.put_policy(f'{POLICY}protected_connections: ["cr*"]\n')
    read = reads_of(monkeypatch)
    unread: list[bool] = []

    def look_then_approve(site: Site, request: ApprovalRequest) -> None:
        unread.append(not read)
        approve(site, request)

    run = runs.test(write_dag("protected", staged), look_then_approve)
    assert run.states == {"load": "success"}
    assert unread == [True]
    assert "crm" in read
    assert len(rows(crm)) == 3


@pytest.mark.parametrize("sealed", [PermissionError, AirflowRuntimeError])
def test_a_sealed_connection_is_looked_at_when_it_is_approved(
    runs: Runs,
    staged: Path,
    crm: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    sealed: type[Exception],
) -> None:
    read = reads_of(monkeypatch, sealed=sealed)
    run = runs.test(write_dag("sealed", staged))
    assert run.states == {"load": "success"}
    assert len(read) > 1
    assert len(rows(crm)) == 3


def lose_the_first_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first try of a task end as if its worker were gone before it could report."""
    report = ApprovalsHook.report_outcome
    reports: list[str] = []

    def lost_at_first(hook: ApprovalsHook, request_id: str, **kwargs: Any) -> ApprovalRequest:
        reports.append(hook.ti_id)
        if len(reports) == 1:
            raise ServiceUnavailableError("the worker is gone")
        return report(hook, request_id, **kwargs)

    monkeypatch.setattr(ApprovalsHook, "report_outcome", lost_at_first)


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_rows_are_not_written_twice_after_a_lost_worker(
    runs: Runs, staged: Path, crm: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    lose_the_first_report(monkeypatch)
    run = runs.test(write_dag(f"lost_{mode}", staged, mode=mode, retries=1, retry_delay=timedelta(0)))
    assert run.states == {"load": "success"}
    assert len(rows(crm)) == 3
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.COMPLETED
    assert request.outcome is not None
    assert request.outcome.digest == request.evidence.datasets[0].sha256
    assert request.outcome.detail == "found complete by a later try"
    assert run.xcom("load")["rows"] == 3


def test_somebody_must_look_where_the_markers_cannot_be_read(
    runs: Runs, staged: Path, crm: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_markers(operator: ApprovedSqlWriteOperator, *args: Any) -> Any:
        facts = act(operator, *args)
        crm.executescript("DROP TABLE approvals_write; CREATE TABLE approvals_write (x)")
        return facts

    act = ApprovedSqlWriteOperator.act
    monkeypatch.setattr(ApprovedSqlWriteOperator, "act", without_markers)
    lose_the_first_report(monkeypatch)
    run = runs.test(write_dag("lost_markers", staged, retries=1, retry_delay=timedelta(0)))
    assert run.states == {"load": "failed"}
    assert len(rows(crm)) == 3
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.FAILED
    assert request.outcome is not None
    assert "look into both tables" in request.outcome.detail


ENDS: dict[str, tuple[bool, dict[str, str], list[State], int]] = {
    "the rows are in": (True, {"load": "success"}, [State.COMPLETED], 3),
    "nothing is in": (False, {"load": "failed"}, [State.FAILED], 0),
}


@pytest.mark.parametrize(("committed", "states", "requests", "count"), ENDS.values(), ids=ENDS.keys())
def test_a_commit_without_an_answer_is_looked_up_before_anything_is_reported(
    runs: Runs,
    staged: Path,
    crm: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    committed: bool,
    states: dict[str, str],
    requests: list[State],
    count: int,
) -> None:
    def unanswered(*args: Any, **kwargs: Any) -> Any:
        if committed:
            write_table(*args, **kwargs)
        raise LostWriteError("the connection broke")

    monkeypatch.setattr("airflow_approvals.staging.sql.write_table", unanswered)
    run = runs.test(write_dag(f"unanswered_{committed}", staged))
    assert run.states == states
    assert [request.state for request in runs.site.requests_of(run.run_id)] == requests
    assert len(rows(crm)) == count


def test_arguments_are_checked_when_the_dag_is_parsed(staged: Path) -> None:
    with pytest.raises(ValueError, match="mode"):
        write_dag("parsed", staged, mode="truncate")
    with pytest.raises(ValueError, match="mode"):
        write_dag("parsed", staged, parameters={"mode": "append"})
    assert "AIRFLOW_CONN_CRM" not in os.environ
