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
from airflow.sdk import DAG

from airflow_approvals.core.errors import ServiceUnavailableError
from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.hooks.approvals import ApprovalsHook
from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.operators.sql import ApprovedSqlWriteOperator
from tests.provider.runs import Runs, approve, deny
from tests.provider.site import Site

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


def test_rows_are_not_appended_twice_after_a_lost_worker(
    runs: Runs, staged: Path, crm: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = ApprovalsHook.report_outcome
    reports: list[str] = []

    def lost_at_first(hook: ApprovalsHook, request_id: str, **kwargs: Any) -> ApprovalRequest:
        reports.append(hook.ti_id)
        if len(reports) == 1:
            raise ServiceUnavailableError("the worker is gone")
        return report(hook, request_id, **kwargs)

    monkeypatch.setattr(ApprovalsHook, "report_outcome", lost_at_first)
    run = runs.test(write_dag("lost_rows", staged, retries=1, retry_delay=timedelta(0)))
    assert run.states == {"load": "failed"}  # somebody must look: the table does not tell
    assert len(rows(crm)) == 3
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.FAILED
    assert request.outcome is not None
    assert "look there" in request.outcome.detail


def test_arguments_are_checked_when_the_dag_is_parsed(staged: Path) -> None:
    with pytest.raises(ValueError, match="mode"):
        write_dag("parsed", staged, mode="truncate")
    with pytest.raises(ValueError, match="mode"):
        write_dag("parsed", staged, parameters={"mode": "append"})
    assert "AIRFLOW_CONN_CRM" not in os.environ
