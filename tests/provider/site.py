"""A real Airflow to run DAGs in: a migrated database, and an API server process with this package in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx

from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.client.tokens import login_token
from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.whole_files import write_whole
from demo.embedded import START_SECONDS, patient
from tests.ports import free_port as free_port

POLICY = """
version: 1
groups:
  data-stewards: {users: [alice, bob]}
  admins: {users: [admin]}
policies:
  - name: partner-export
    match: {action: [export], destination: ["file:///**/outbox/**"]}
    require: [{group: data-stewards}]
  - name: table-write
    match: {action: [write], destination: ["sql://**"]}
    require: [{group: data-stewards}]
  - name: any-task
    match: {action: [write, delete, grant]}
    require: [{group: data-stewards}]
"""

DB_MANAGER = "airflow_approvals.store.manager.ApprovalsDBManager"
PEOPLE = ("engineer", "alice", "bob", "admin")
LOADED = 60.0  # seconds for an answer: others use the machine too


@dataclass(kw_only=True)
class Site:
    """Where the server is, and whose logins there are."""

    home: Path
    base_url: str
    tokens: dict[str, str]

    @property
    def policy_file(self) -> Path:
        return self.home / "approvals" / "policy.yaml"

    def put_policy(self, text: str) -> None:
        """Put another policy file in place, whole: the server may read it at any moment."""
        write_whole(self.policy_file, text.encode())

    def person(self, name: str) -> ApprovalsClient:
        return ApprovalsClient(self.base_url, login_token(self.tokens[name]), LOADED, patience=LOADED)

    def requests_of(self, run_id: str, task_id: str | None = None) -> tuple[ApprovalRequest, ...]:
        """Return the requests of a run, newest first."""
        with self.person("admin") as admin:
            return admin.list_requests(run_id=run_id, task_id=task_id, limit=100).requests

    def wait_for_pending(self, *, dag_id: str, seconds: float = 60.0) -> ApprovalRequest:
        deadline = time.monotonic() + seconds
        with self.person("admin") as admin:
            while time.monotonic() < deadline:
                page = admin.list_requests(status=[State.PENDING], dag_id=dag_id)
                if page.requests:
                    return page.requests[0]
                time.sleep(0.1)
        raise AssertionError(f"nobody of {dag_id} has asked within {seconds} s")


def airflow_settings(home: Path, *, port: int) -> dict[str, str]:
    """Return the environment of every Airflow process of a site, on top of `tests/conftest.py`."""
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({name: name for name in PEOPLE}))
    settings = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__APPROVALS__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    }
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    if "db-managers" not in schema["properties"]:  # Airflow 3.1: must be told
        settings["AIRFLOW__DATABASE__EXTERNAL_DB_MANAGERS"] = DB_MANAGER
    return settings


def airflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def migrate(home: Path, settings: dict[str, str]) -> None:
    done = subprocess.run(
        airflow("db", "migrate"),
        capture_output=True,
        text=True,
        cwd=home,
        timeout=180,
        env={**os.environ, **settings},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def start(home: Path, settings: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    """Run `airflow ...` in a session of its own; its output is in `<command>.log`."""
    env = {**os.environ, **settings}
    with (home / f"{arguments[0]}.log").open("ab") as log:
        return subprocess.Popen(
            airflow(*arguments),
            stdout=log,
            stderr=log,
            cwd=home,
            env=env if arguments[0] == "api-server" else patient(env),
            start_new_session=True,
        )


def stop(started: subprocess.Popen[bytes], *, kill: bool = False) -> None:
    """End the process and everything that it started."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL if kill else signal.SIGTERM)
    try:
        started.wait(timeout=15)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait(timeout=15)


def wait_until_healthy(base_url: str, *, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{base_url}/api/v2/version", timeout=LOADED)
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            # Airflow 3.3.2 builds the API of tasks at its first call and answers nobody meanwhile, for longer
            # than a starting task waits if the machine is busy.
            httpx.get(f"{base_url}/execution/health", timeout=seconds)
            return
        time.sleep(0.2)
    raise AssertionError(f"{base_url} did not start within {seconds} s")


def call_airflow(site: Site, method: str, path: str, *, user: str, **options: Any) -> httpx.Response:
    """Call Airflow, again while it fails: SQLite has one writer, and it gives up its turn after 5 s."""
    headers = {"Authorization": f"Bearer {site.tokens[user]}"}
    url = f"{site.base_url}/api/v2{path}"
    deadline = time.monotonic() + 2 * LOADED
    while True:
        with suppress(httpx.TransportError):
            answer = httpx.request(method, url, headers=headers, timeout=LOADED, **options)
            if answer.status_code < 500 or time.monotonic() > deadline:
                return answer
        assert time.monotonic() < deadline, f"{method} {path}: no answer"
        time.sleep(0.5)


def login(base_url: str, name: str, password: str | None = None) -> str:
    """Return a token; in the tests' own sites a name is its password."""
    body = {"username": name, "password": password or name}
    answer = httpx.post(f"{base_url}/auth/token", json=body, timeout=60)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["access_token"])
