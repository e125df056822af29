"""A real Airflow with a fake Slack beside it: its API server, `slack-listen`, and everybody linked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from sqlalchemy import create_engine, update

from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.client.tokens import login_token
from airflow_approvals.core.delivery import LEASE
from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.store.sql import create_store
from airflow_approvals.store.tables import deliveries
from tests.fake_slack.people import FakeSlack
from tests.fake_slack.workspace import APP, APP_TOKEN, SECRET, TOKEN, Message
from tests.provider.site import (
    airflow,
    airflow_settings,
    free_port,
    login,
    migrate,
    start,
    stop,
    wait_until_healthy,
)
from tests.web.site import an_opening, utc_now

ALICE, BOB, ENGINEER = "U0ALICE", "U0BOB", "U0ENGINEER"
ACCOUNTS = {ALICE: "alice", BOB: "bob", ENGINEER: "engineer"}
DAG_ID = "slack_export"
LOADED = 120.0
"""Seconds until something that takes one or two is given up, on a machine with other things to do."""

POLICY = """
version: 1
groups:
  data-stewards: {users: [alice, engineer]}
  security: {users: [bob]}
channels:
  data-approvals: {kind: slack, conn_id: slack_approvals, channel: C0DATA}
policies:
  - name: two-person-export
    match: {action: [export], destination: ["file:///outbox/secret/**"]}
    require: [{group: data-stewards}, {group: security}]
    notify: [data-approvals]
  - name: partner-export
    match: {action: [export], destination: ["file:///**/outbox/**"]}
    require: [{group: data-stewards}]
    notify: [data-approvals]
"""

# Nothing but this process waits for the task, so a decision need not be held back for a scheduler.
DAG_FILE = """
from airflow.sdk import DAG
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.triggers.approval import ApprovalTrigger

ApprovalTrigger.hold_back = 0.0

with DAG("slack_export"):
    ApprovedExportOperator(
        task_id="publish",
        source="{{ dag_run.conf['source'] }}",
        destination="{{ dag_run.conf['destination'] }}",
        justification="monthly feed",
    )
"""

_CODE = re.compile(r"[2-9A-Z]{4}(?:-[2-9A-Z]{4}){2}")
Found = TypeVar("Found")


class RealSite:
    """One Airflow home on one database; the processes can be killed and started again."""

    def __init__(self, home: Path, database_url: str, slack: FakeSlack) -> None:
        self.home, self.slack = home, slack
        self.database_url = database_url
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        slack.request_url = f"{self.base_url}/approvals/api/v1/slack/interactive"
        (home / "dags").mkdir(parents=True)
        (home / "dags" / "slack_export.py").write_text(DAG_FILE)
        (home / "policy.yaml").write_text(POLICY)
        self.env = {
            **airflow_settings(home, port=self.port),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__SECRET_KEY": "the secret key of the tests",
            "AIRFLOW__API_AUTH__JWT_SECRET": "the JWT secret of the tests, long enough to sign with",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "engineer:user,alice:user,bob:user,admin:admin",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
            "AIRFLOW__APPROVALS__POLICY_FILE": str(home / "policy.yaml"),
            "AIRFLOW__APPROVALS__DUE_INTERVAL": "0.5",
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._listener: subprocess.Popen[bytes] | None = None
        self._tokens: dict[str, str] = {}

    def migrate(self) -> None:
        """Make the tables, and put the connection where operators put it: among Airflow's own."""
        migrate(self.home, self.env)
        added = subprocess.run(
            airflow("connections", "add", "slack_approvals", "--conn-json", connection_to(self.slack)),
            capture_output=True,
            text=True,
            cwd=self.home,
            timeout=300,
            env={**os.environ, **self.env},
        )
        assert added.returncode == 0, added.stderr[-2000:]

    def start(self) -> None:
        """Start the API server and the listener, and wait until both can be used."""
        self._server = start(
            self.home, self.env, "api-server", "--host", "127.0.0.1", "--port", str(self.port)
        )
        with (self.home / "slack-listen.log").open("ab") as log:
            self._listener = subprocess.Popen(
                [sys.executable, "-m", "airflow_approvals.cli.main", "slack-listen"],
                stdout=log,
                stderr=log,
                cwd=self.home,
                env={**os.environ, **self.env},
                start_new_session=True,
            )
        wait_until_healthy(self.base_url)
        eventually(lambda: self.slack.sockets, seconds=LOADED)

    def stop(self, *, kill: bool = False) -> None:
        for process in (self._server, self._listener):
            if process is not None:
                stop(process, kill=kill)
        self._server = self._listener = None

    def end_listener(self) -> int:
        """Ask the listener to end, as systemd or Kubernetes does, and return its exit code."""
        assert self._listener is not None
        self._listener.send_signal(signal.SIGTERM)
        return self._listener.wait(timeout=LOADED)

    def link_all(self) -> None:
        """Do what everybody does once: read the code on the app's Home tab, and repeat it, logged in."""
        for account, name in ACCOUNTS.items():
            self.slack.open_home(account)
            eventually(lambda: account in self.slack.homes)  # noqa: B023  # it is called here and now
            found = _CODE.search(json.dumps(self.slack.homes[account]))
            assert found is not None
            with self.person(name) as person:
                person.link_identity(found.group(), confirm=True)

    def person(self, name: str) -> ApprovalsClient:
        if name not in self._tokens:
            self._tokens[name] = login(self.base_url, name)
        return ApprovalsClient(self.base_url, login_token(self._tokens[name]), 60.0, patience=60.0)

    def open(self, folder: str = "") -> ApprovalRequest:
        """Ask as engineer, from a program."""
        with self.person("engineer") as engineer:
            name = str(uuid4())
            return engineer.open_request(an_opening(name, folder=folder), idempotency_key=name)[0]

    def state_of(self, request: ApprovalRequest) -> State:
        return self.fresh(request).state

    def fresh(self, request: ApprovalRequest) -> ApprovalRequest:
        with self.person("alice") as alice:
            return alice.get_request(request.id).request

    def becomes(self, request: ApprovalRequest, state: State) -> ApprovalRequest:
        eventually(lambda: self.state_of(request) is state)
        return self.fresh(request)

    def prompt(self, request: ApprovalRequest, *, seconds: float = LOADED) -> Message:
        return eventually(lambda: next(iter(self.prompts(request)), None), seconds=seconds)

    def prompts(self, request: ApprovalRequest) -> list[Message]:
        return [
            each
            for each in list(self.slack.messages)
            if each.thread_ts is None and request.id in json.dumps(each.blocks)
        ]

    def notes_to(self, account: str) -> list[str]:
        return [note["text"] for note in list(self.slack.notes) if note["user"] == account]

    def dag_test(self, source: Path, destination: Path) -> subprocess.Popen[bytes]:
        """Run the DAG with a real worker's code in a process of its own."""
        conf = json.dumps({"source": source.as_uri(), "destination": destination.as_uri()})
        return start(self.home, self.env, "dags", "test", DAG_ID, "--conf", conf)

    def request_of_dag(self) -> ApprovalRequest | None:
        with self.person("admin") as admin:
            page = admin.list_requests(dag_id=DAG_ID, status=[State.PENDING])
        return page.requests[0] if page.requests else None

    def let_expire(self, request: ApprovalRequest) -> None:
        """Let the time pass that a request has for its answer."""
        store = create_store(self.database_url)
        with store.begin() as transaction:
            found = transaction.get_request(request.id, for_update=True)
            transaction.update_request(replace(found, expires_at=utc_now()))
        store.close()

    def pass_leases(self) -> None:
        """Let the minute pass that a process which was killed still holds its deliveries for."""
        engine = create_engine(self.database_url)
        with engine.begin() as connection:
            held = deliveries.c.leased_until.is_not(None)
            connection.execute(update(deliveries).where(held).values(leased_until=utc_now() - LEASE))
        engine.dispose()


def connection_to(slack: FakeSlack) -> str:
    """Return the Airflow connection to the fake Slack in JSON."""
    extra = {
        "base_url": f"{slack.address}/api/",
        "signing_secret": SECRET,
        "app_id": APP,
        "app_token": APP_TOKEN,
    }
    return json.dumps({"conn_type": "slack", "password": TOKEN, "extra": extra})


def eventually(look: Callable[[], Found | None], *, seconds: float = LOADED) -> Found:
    """Return what `look` finds, once it finds something true."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(LookupError):
            found = look()
            if found:
                return found
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.05)
