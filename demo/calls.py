"""What people do in the demo: log in, trigger, look, answer; all over HTTP or through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

from airflow_approvals.cli.session import log_in
from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.client.tokens import login_token
from airflow_approvals.core.errors import ServiceUnavailableError
from airflow_approvals.core.model import ApprovalRequest
from demo.embedded import DemoError, EmbeddedAirflow
from demo.screen import WIDTH

Found = TypeVar("Found")

# Verification that could not call anybody if it wanted to, and that says so if Airflow came along.
_OFFLINE = """
import sys
def refuse_network(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError("verification must not use the network")
sys.addaudithook(refuse_network)
from airflow_approvals.cli.main import main
code = main(sys.argv[1:])
sys.exit(99 if {"airflow", "sqlalchemy"} & set(sys.modules) else code)
"""


class Stage:
    """The running Airflow, and everybody's credentials."""

    def __init__(self, airflow: EmbeddedAirflow) -> None:
        self.airflow = airflow
        self.places = airflow.places
        self.passwords: dict[str, str] = json.loads(airflow.places.passwords.read_text())
        self._tokens: dict[str, str] = {}

    # --- Airflow's own API --------------------------------------------------------------------------------

    def call(self, user: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Call Airflow's REST API as `user`; raise `DemoError` for anything but a success."""
        answer = self._send(user, method, path, **options)
        _check(answer)
        body: dict[str, Any] = answer.json()
        return body

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, str] | None = None) -> None:
        """Start a run as engineer, once the DAG is known."""
        self.wait_for(lambda: self._is_known(dag_id), f"the DAG {dag_id} to be parsed")
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf or {}}
        # 409: an earlier call, though it was answered with an error, had started the run.
        self._insist("POST", f"/dags/{dag_id}/dagRuns", body, already=409)

    def _is_known(self, dag_id: str) -> bool:
        return self._send("engineer", "GET", f"/dags/{dag_id}").status_code == 200

    def _insist(self, method: str, path: str, body: dict[str, Any], *, already: int | None = None) -> None:
        """Call as engineer until Airflow takes it: its SQLite may be busy with another writer."""

        def is_taken() -> bool:
            answer = self._send("engineer", method, path, json=body)
            if answer.status_code != already:
                _check(answer)
            return True

        self.wait_for(is_taken, f"Airflow to take {method} {path}")

    def _send(self, user: str, method: str, path: str, **options: Any) -> httpx.Response:
        url, headers = f"{self.airflow.url}/api/v2{path}", {"Authorization": f"Bearer {self.token(user)}"}
        try:
            answer = httpx.request(method, url, headers=headers, timeout=60, **options)
        except httpx.TransportError as error:
            raise ServiceUnavailableError(f"{method} {url}: {type(error).__name__}") from error
        if answer.status_code >= 500:
            raise ServiceUnavailableError(f"{method} {url}: answered {answer.status_code}")
        return answer

    def task_state(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        state: str | None = self.call("engineer", "GET", path)["state"]
        return state

    def mark_success(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Do what the button in Airflow does."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self._insist("PATCH", path, {"new_state": "success"})

    def returned(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what the task returned."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.call("engineer", "GET", path)["value"]

    # --- ours ---------------------------------------------------------------------------------------------

    def token(self, user: str) -> str:
        if user not in self._tokens:
            self._tokens[user] = log_in(self.airflow.url, user, self.passwords[user])
        return self._tokens[user]

    def client(self, user: str) -> ApprovalsClient:
        return ApprovalsClient(self.airflow.url, login_token(self.token(user)), patience=60)

    def request_of(self, run_id: str, task_id: str = "export") -> ApprovalRequest | None:
        """Return the request that a task of the run has opened, if it has."""
        with self.client("alice") as client:
            page = client.list_requests(run_id=run_id, task_id=task_id)
        return page.requests[0] if page.requests else None

    def command(self, *arguments: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `airflow-approvals` as a person would."""
        env = {**os.environ, "APPROVALS_URL": self.airflow.url, "COLUMNS": str(WIDTH)}
        if user is not None:
            env |= {"APPROVALS_USERNAME": user, "APPROVALS_PASSWORD": self.passwords[user]}
        return subprocess.run(
            [str(Path(sys.executable).parent / "airflow-approvals"), *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def wait_for(self, look: Callable[[], Found | None], what: str, *, seconds: float = 240) -> Found:
        """Return what `look` finds; raise `DemoError` when it finds nothing in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.airflow.check_alive()
            # A busy machine is no reason to give up before the time is over.
            with suppress(ServiceUnavailableError):
                found = look()
                if found:
                    return found
            time.sleep(0.3)
        raise DemoError(f"waited {seconds:.0f} s for {what}; see {self.places.logs}")


def _check(answer: httpx.Response) -> None:
    if not answer.is_success:
        asked = f"{answer.request.method} {answer.request.url.path}"
        raise DemoError(f"{asked} was answered with {answer.status_code}: {answer.text[:300]}")


def verify_offline(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `airflow-approvals verify ...` without network, without Airflow, without its environment."""
    return subprocess.run(
        [sys.executable, "-c", _OFFLINE, "verify", *arguments],
        env={"PATH": os.environ["PATH"], "COLUMNS": str(WIDTH)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
