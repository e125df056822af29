"""The example DAGs are loaded as the dag processor does, and run."""

from __future__ import annotations

import json
import runpy
import sqlite3
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk import DAG

from airflow_approvals.core.model import Action, Evidence, State
from airflow_approvals.service import Opening
from tests.provider.runs import Runs, approve

pytestmark = pytest.mark.airflow

FOLDER = Path(__file__).resolve().parents[2] / "dags"


def load(name: str) -> DAG:
    dag = runpy.run_path(str(FOLDER / f"{name}.py"))["dag"]
    assert isinstance(dag, DAG)
    assert dag.dag_id == name
    return dag


@pytest.fixture(autouse=True)
def staging(staged: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_VAR_STAGING_FOLDER", str(staged.parent))
    return staged.parent


def test_gated_tasks(runs: Runs, staging: Path) -> None:
    run = runs.test(load("gated_tasks"))
    assert set(run.states.values()) == {"success"}
    assert (staging / "handed_over.csv").read_bytes() == (staging / "customers.csv").read_bytes()
    assert len(runs.asked) == 3


def test_gate_then_write(runs: Runs, staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = staging / "crm.db"
    monkeypatch.setenv("AIRFLOW_CONN_CRM", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE customers (id TEXT, city TEXT)")
    run = runs.test(load("gate_then_write"))
    assert set(run.states.values()) == {"success"}
    assert connection.execute("SELECT count(*) FROM customers").fetchone() == (3,)
    connection.close()


def test_wait_for_grant(runs: Runs) -> None:
    action: dict[str, Any] = {"kind": "grant", "destination": "role://reader"}
    opening = Opening(action=Action(**action), evidence=Evidence())
    with runs.site.person("engineer") as engineer:
        request, _ = engineer.open_request(opening, idempotency_key=str(uuid4()))
    approve(runs.site, request)
    run = runs.test(load("wait_for_grant"), run_conf={"request_id": request.id})
    assert run.states == {"approved": "success", "grant": "success"}
    with runs.site.person("engineer") as engineer:
        assert engineer.get_request(request.id).request.state is State.COMPLETED
