"""One whole Airflow with gated operators and sealed secrets, in which DAGs of all intentions have run."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx

from airflow_approvals.core.model import ApprovalRequest, State
from demo.embedded import patient
from tests.provider.runs import approve, deny
from tests.provider.site import (
    PEOPLE,
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

PASSWORD = "the production password"
TOKEN = "the production token"
POLICY = """
version: 1
groups:
  data-stewards: {users: [alice, bob]}
  admins: {users: [admin]}
  reviewers: {users: [alice, admin, engineer]}
policies:
  - name: outbound
    match: {action: [export], destination: ["s3://partner-*/**"]}
    require: [{group: data-stewards}]
  - name: any-task
    match: {action: [write, note]}
    require: [{group: data-stewards}]
  - name: answers
    match: {action: [answer]}
    require: [{group: reviewers}]
protected_connections: ["prod_*", {name: vault_db, policies: [outbound]}]
protected_variables: ["prod_*"]
gated_operators:
  - {operator: SQLExecuteQueryOperator, policy: any-task}
  - {operator: Send, policy: outbound, kind: export, destination: "s3://{{ task.bucket }}/{{ task.key }}",
     to: ["s3://partner-*/**"]}
  - {task_id: ["gated_*"], dag_tags: [plain], policy: any-task, variables: [prod_token]}
"""
EXAMPLES, HITL_EXAMPLE = "airflow.providers.standard.example_dags", "example_hitl_operator.py"
PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")

SECRETS = """
import json, os
from airflow.models import Connection, Variable
from airflow.utils.session import create_session
with create_session() as session:
    for name in ("prod_db", "vault_db", "dev_db"):
        session.add(Connection(conn_id=name, conn_type="sqlite", host=os.environ["DATABASE"]))
    session.add(Connection(conn_id="prod_api", conn_type="http", host="api.example.com", login="etl",
                           password={password!r}, port=8443, extra=json.dumps({{"key": {token!r}}})))
    session.add(Variable(key="prod_token", val={token!r}))
    session.add(Variable(key="dev_token", val="a token of no worth"))
"""


@dataclass(kw_only=True)
class Cluster:
    """All processes of one Airflow, and what its DAGs left behind."""

    site: Site
    settings: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.site.home

    @property
    def database(self) -> Path:
        """The file behind `prod_db`."""
        return self.home / "production.db"

    def rows(self) -> list[str]:
        with closing(sqlite3.connect(self.database)) as connection:
            return [row[0] for row in connection.execute("SELECT what FROM written ORDER BY what")]

    def left(self, name: str) -> str:
        """Return what a DAG noted under this name; "" when it never came to that."""
        file = self.home / "left" / name
        return file.read_text() if file.exists() else ""

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `airflow approvals ...` where the API server runs."""
        return subprocess.run(
            [sys.executable, "-m", "airflow_approvals.cli.main", *arguments],
            capture_output=True,
            text=True,
            cwd=self.home,
            timeout=120,
            env={**os.environ, **patient(self.settings), "COLUMNS": "200"},
        )

    def python(self, script: str) -> str:
        """Run a script as the platform owner would, with the metadata database at hand."""
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            cwd=self.home,
            timeout=120,
            env={**os.environ, **patient(self.settings), "DATABASE": str(self.database)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def api(self, method: str, path: str, *, user: str = "admin", **kwargs: Any) -> httpx.Response:
        return call_airflow(self.site, method, path, user=user, **kwargs)

    def trigger(self, dag_id: str) -> None:
        body = {"dag_run_id": dag_id, "logical_date": None}
        path = f"/dags/{dag_id}/dagRuns"
        self.until(
            f"DAG {dag_id} is known",
            lambda: self.api("POST", path, user="engineer", json=body).status_code in (200, 409),
        )

    def states(self, dag_id: str) -> dict[str, str | None]:
        """Return the state of every task of the run, mapped ones as `task[index]`."""
        answer = self.api("GET", f"/dags/{dag_id}/dagRuns/{dag_id}/taskInstances").json()
        return {
            ti["task_id"] if ti["map_index"] < 0 else f"{ti['task_id']}[{ti['map_index']}]": ti["state"]
            for ti in answer["task_instances"]
        }

    def task_instance(self, dag_id: str, task_id: str, *, map_index: int = -1) -> str:
        """Return the id of a task instance."""
        mapped = f"/{map_index}" if map_index >= 0 else ""
        path = f"/dags/{dag_id}/dagRuns/{dag_id}/taskInstances/{task_id}{mapped}"
        return str(self.api("GET", path).json()["id"])

    def wait_for_requests(self, dag_id: str, count: int = 1) -> list[ApprovalRequest]:
        self.until(f"{dag_id} has asked", lambda: len(self.pending(dag_id)) == count)
        return self.pending(dag_id)

    def answer_as_they_come(
        self, *, approved: tuple[str, ...], denied: tuple[str, ...], until_ended: tuple[str, ...]
    ) -> None:
        """Approve or deny whatever these DAGs ask, until all that is named has ended."""
        seen: set[str] = set()

        def all_ended() -> bool:
            for dag_id in (*approved, *denied):
                for request in self.pending(dag_id):
                    if request.id not in seen:
                        seen.add(request.id)
                        (deny if dag_id in denied else approve)(self.site, request)
            return all(
                self.api("GET", f"/dags/{dag_id}/dagRuns/{dag_id}").json().get("state")
                in ("success", "failed")
                for dag_id in until_ended
            )

        self.until(f"{', '.join(until_ended)} have ended", all_ended, seconds=300)

    def pending(self, dag_id: str) -> list[ApprovalRequest]:
        return [each for each in self.site.requests_of(dag_id) if each.state is State.PENDING]

    def story(self, request: ApprovalRequest) -> list[str]:
        """Return the kinds of the ledger's entries about one request."""
        with closing(sqlite3.connect(self.home / "airflow.db")) as connection:
            query = "SELECT kind FROM approvals_ledger_entry WHERE request_id = ? ORDER BY idx"
            return [kind for (kind,) in connection.execute(query, (request.id,))]

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """Return the ledger's entries of one kind."""
        with closing(sqlite3.connect(self.home / "airflow.db")) as connection:
            query = "SELECT body FROM approvals_ledger_entry WHERE kind = ? ORDER BY idx"
            return [json.loads(body) for (body,) in connection.execute(query, (kind,))]

    def until(self, what: str, holds: Callable[[], bool], *, seconds: float = 150.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if holds():
                return
            time.sleep(0.7)  # SQLite has one writer, and Airflow wants to be it
        logs = "\n".join(
            f"--- {log}\n{log.read_text(errors='replace')[-1500:]}" for log in self.home.glob("*.log")
        )
        raise AssertionError(f"not within {seconds} s: {what}\n{logs}")


def hitl_example() -> str:
    """Return Airflow's example with its timeout of a second made 20 s.

    Within a second the scheduler of Airflow 3.1.0 may not know that the task has paused, and then fails it.
    """
    example = files(EXAMPLES).joinpath(HITL_EXAMPLE).read_text()
    assert example.count("timedelta(seconds=1)") == 1
    return example.replace("timedelta(seconds=1)", "timedelta(seconds=20)")


@contextmanager
def running_cluster(home: Path) -> Iterator[Cluster]:
    """Give the Airflow with its secrets sealed and every part of it running."""
    for folder in ("dags", "left", "approvals"):
        (home / folder).mkdir()
    (home / "approvals" / "policy.yaml").write_text(POLICY)
    for file in (Path(__file__).parent / "dags").glob("*.py"):
        (home / "dags" / file.name).write_text(file.read_text())
    (home / "staged.csv").write_text("what\nfirst approved row\nsecond approved row\n")
    (home / "dags" / "example_hitl.py").write_text(hitl_example())
    port = free_port()
    settings = {
        **airflow_settings(home, port=port),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__FERNET_KEY": "NBJC_zYX6NWNek9v7tVv64uZo1tcjpSFpCsGkhqmGlA=",
        "AIRFLOW__APPROVALS__GATED_OPERATORS": "required",
        "AIRFLOW__APPROVALS__GOVERN_HITL": "True",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "LEFT": str(home / "left"),
        "PYTHONPATH": str(Path(__file__).parent / "lib"),
    }
    migrate(home, settings)
    base_url = f"http://127.0.0.1:{port}"
    cluster = Cluster(site=Site(home=home, base_url=base_url, tokens={}), settings=settings)
    with closing(sqlite3.connect(cluster.database)) as connection:
        connection.execute("CREATE TABLE written (what TEXT)")
    cluster.python(SECRETS.format(password=PASSWORD, token=TOKEN))
    sealed = cluster.command("seal", "--protected")
    assert sealed.returncode == 0, sealed.stderr
    try:
        for part in PARTS:
            more = ("--host", "127.0.0.1", "--port", str(port)) if part == "api-server" else ()
            cluster.running.append(start(home, settings, part, *more))
            if part == "api-server":
                wait_until_healthy(base_url)
        cluster.site.tokens.update({name: login(base_url, name) for name in PEOPLE})
        yield cluster
    finally:
        for process in cluster.running:
            stop(process, kill=True)


def stored(cluster: Cluster, table: str, key: str, name: str) -> dict[str, Any]:
    """Return a row of the metadata database as it is stored."""
    with closing(sqlite3.connect(cluster.home / "airflow.db")) as connection:
        connection.row_factory = sqlite3.Row
        row = connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (name,)).fetchone()  # noqa: S608
        return dict(row)


def seal_of(text: str) -> dict[str, Any]:
    """Return what a seal says of itself."""
    told: dict[str, Any] = json.loads(text)["airflow_approvals_sealed"]
    return told
