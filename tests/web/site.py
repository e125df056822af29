"""A whole site to test against: the app on a real uvicorn server, a database, a policy file, tasks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

import uvicorn
from fastapi import FastAPI, Request
from sqlalchemy import Engine, text

from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.client.tokens import login_token, reader_tokens, worker_tokens
from airflow_approvals.core.errors import NotAuthenticatedError
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import Action, Column, Evidence, FileDigest, Snapshot
from airflow_approvals.keys import load_signer
from airflow_approvals.service import Opening, Service
from airflow_approvals.settings import Settings
from airflow_approvals.store.origins import AirflowOrigins
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from airflow_approvals.web.app import create_app
from airflow_approvals.web.callers import User
from airflow_approvals.wiring import FilePolicySource
from tests.ports import free_port as free_port

SECRET = "the secret that workers and the API server share"
LOADED = 60.0  # seconds for an answer: others use the machine too

POLICY = """
version: 1
groups:
  data-stewards: {users: [alice, bob, engineer]}
  security: {users: [carol]}
  admins: {users: [root]}
  auditors: {users: [audrey]}
policies:
  - name: two-person-export
    match: {action: [export], destination: ["file:///outbox/secret/**"]}
    require: [{group: data-stewards}, {group: security}]
  - name: partner-export
    match: {action: [export], destination: ["file:///outbox/**"]}
    require: [{group: data-stewards}]
    expires_after: 4h
    receipt_valid_for: 30m
"""

AIRFLOW_TABLES = (
    "CREATE TABLE task_instance (id VARCHAR(36) PRIMARY KEY, dag_id VARCHAR(250), run_id VARCHAR(250), "
    "task_id VARCHAR(250), map_index INTEGER, try_number INTEGER, state VARCHAR(20))",
    "CREATE TABLE dag_run (dag_id VARCHAR(250), run_id VARCHAR(250), run_type VARCHAR(50), "
    "triggering_user_name VARCHAR(512), run_after TIMESTAMP)",
    "CREATE TABLE log (id INTEGER PRIMARY KEY, dttm TIMESTAMP, dag_id VARCHAR(250), run_id VARCHAR(250), "
    "event VARCHAR(60), owner VARCHAR(500), extra TEXT)",
    "CREATE TABLE dag (dag_id VARCHAR(250) PRIMARY KEY, owners VARCHAR(2000))",
)


_NEW_RUN = "INSERT INTO dag_run VALUES (:dag, :run, 'manual', :user, '2026-01-01 00:00:00')"


class LoginsByName:
    """Logins for tests: the token `login-alice` is alice's, as a bearer token or as a cookie."""

    def __init__(self) -> None:
        self.readers_of: dict[str, set[str]] = {}

    async def user_of(self, request: Request) -> User:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        credential = token if scheme.lower() == "bearer" else request.cookies.get("_token", "")
        if not credential.startswith("login-"):
            raise NotAuthenticatedError("not logged in")
        name = unquote(credential.removeprefix("login-"))
        return User(person=person_named(name), airflow_user=name)

    def may_read_dag(self, user: User, dag_id: str) -> bool:
        return user.person in self.readers_of.get(dag_id, set())

    def readable_dags(self, user: User) -> Sequence[str]:
        return [dag_id for dag_id, readers in self.readers_of.items() if user.person in readers]


class Site:
    """One running server and what it stands on."""

    def __init__(
        self, folder: Path, database_url: str, *, due_interval: float = 3600.0, port: int | None = None
    ) -> None:
        # With `port` it is one that is there, seen from another process.
        self.policy_file = folder / "policy.yaml"
        self.store: SqlStore = create_store(database_url)
        if port is None:
            self.policy_file.write_text(POLICY, encoding="utf-8")
            create_tables(self.store.engine)
            create_airflow_tables(self.store.engine)
        self.port = port or free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.settings = Settings(
            gated_operators="auto",
            govern_hitl=False,
            policy_file=str(self.policy_file),
            sealing_keys="",
            base_url=self.base_url,
            service_url=self.base_url,
            signing_key="",
            public_key_file="",
            worker_secret=SECRET,
            ledger_origin="test.example/approvals",
            witness="",
            witness_interval=300.0,
            http_timeout=LOADED,
            due_interval=due_interval,
            lineage_url="",
            home=folder,
        )
        self.users = LoginsByName()
        self.service = Service(
            store=self.store,
            origins=AirflowOrigins(self.store.engine),
            policies=FilePolicySource(self.policy_file),
            signer=load_signer("", home=folder),
        )
        self.app = create_app(lambda: self.service, self.settings, self.users)

    def wait_for_first_round(self) -> None:
        """Wait until what time drives has gone round once: what it writes is not amid what a test does."""
        deadline = time.monotonic() + LOADED
        while self.store.last_checkpoint() is None:
            if time.monotonic() > deadline:
                raise RuntimeError("the background did nothing")
            time.sleep(0.01)

    def person(self, name: str) -> ApprovalsClient:
        return ApprovalsClient(self.base_url, login_token(f"login-{quote(name)}"), LOADED, patience=5.0)

    def worker(self, ti_id: str) -> ApprovalsClient:
        return ApprovalsClient(self.base_url, worker_tokens(ti_id, SECRET), LOADED, patience=5.0)

    def reader(self) -> ApprovalsClient:
        return ApprovalsClient(self.base_url, reader_tokens(SECRET), LOADED, patience=5.0)

    def add_task(
        self,
        *,
        dag_id: str = "export",
        run_id: str = "manual__1",
        task_id: str = "publish",
        triggered_by: str | None = "engineer",
        owners: str = "engineer",
        state: str = "running",
        map_index: int = -1,
    ) -> str:
        """Put a task instance into Airflow's tables and return its id."""
        ti_id = str(uuid4())
        with self.store.engine.begin() as connection:
            connection.execute(
                text("INSERT INTO task_instance VALUES (:id, :dag, :run, :task, :map, 1, :state)"),
                {
                    "id": ti_id,
                    "dag": dag_id,
                    "run": run_id,
                    "task": task_id,
                    "map": map_index,
                    "state": state,
                },
            )
            known = {"dag": dag_id, "run": run_id, "user": triggered_by, "owners": owners}
            if not connection.scalar(text("SELECT 1 FROM dag_run WHERE dag_id=:dag AND run_id=:run"), known):
                connection.execute(text(_NEW_RUN), known)
            if not connection.scalar(text("SELECT 1 FROM dag WHERE dag_id=:dag"), known):
                connection.execute(text("INSERT INTO dag VALUES (:dag, :owners)"), known)
        return ti_id

    def set_task_state(self, ti_id: str, state: str) -> None:
        with self.store.engine.begin() as connection:
            connection.execute(
                text("UPDATE task_instance SET state=:state WHERE id=:id"), {"state": state, "id": ti_id}
            )

    def ledger(self) -> list[dict[str, Any]]:
        """Return what every ledger entry says."""
        return [json.loads(entry.body) for entry in self.store.entries_after(-1, limit=100_000)]


def create_airflow_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in AIRFLOW_TABLES:
            connection.execute(text(statement))


def an_opening(name: str = "customers", *, rows: int = 5000, folder: str = "", gate: str = "") -> Opening:
    """Return an export of one file; another `name` or another number of rows is other content."""
    sha256 = f"{abs(hash((name, rows))):064x}"[-64:]
    snapshot = Snapshot(
        uri=f"file:///staged/{name}.csv",
        format="csv",
        sha256=sha256,
        size=rows * 40,
        rows=rows,
        columns=(Column(name="id", type="int64"),),
        schema_sha256="b" * 64,
        files=(FileDigest(name=f"{name}.csv", sha256=sha256, size=rows * 40),),
    )
    action = Action(
        kind="export",
        source=snapshot.uri,
        destination=f"file:///outbox/{folder}{name}.csv",
        justification="monthly feed",
    )
    return Opening(action=action, evidence=Evidence(datasets=(snapshot,)), gate=gate)


def mounted(app: FastAPI) -> FastAPI:
    """Return an app that mounts `app` and enters its lifespan, as Airflow's API server does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with app.router.lifespan_context(app):
            yield

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/approvals", app)
    return outer


@contextmanager
def serving(app: FastAPI, port: int, *, has_sockets: bool = False) -> Iterator[uvicorn.Server]:
    """Serve `app` on loopback from a thread until the block ends."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=1,
        ws="websockets-sansio" if has_sockets else "none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(timeout=60)


def utc_now() -> datetime:
    return datetime.now(UTC)
