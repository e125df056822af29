"""A whole Airflow as child processes, each in a process group of its own, all ended when the demo ends."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from demo.places import CHECKOUT, Places
from tests.ports import free_port

COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
START_SECONDS = 300.0
STOP_SECONDS = 10.0
_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """The demo cannot go on; the message says where to look."""


class EmbeddedAirflow:
    """api-server, scheduler, dag-processor and triggerer on SQLite and loopback, as a context manager."""

    def __init__(
        self,
        places: Places,
        *,
        roles: dict[str, str],
        dag_folders: dict[str, Path],
        env: Mapping[str, str],
    ) -> None:
        self.places = places
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = _environment(places, self.url, self.port, roles, dag_folders) | dict(env)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self._run("db", "migrate")
            for name, command in COMPONENTS.items():
                self._running[name] = self._start(name, command)
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every child and what it started, politely first; a second Ctrl-C does not cut it short."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTIONS}
        try:
            self._stop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for child in self._running.values():
                _signal_group(child, number)
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline and any(map(_group_lives, self._running.values())):
                time.sleep(0.1)
        self._running.clear()

    def check_alive(self) -> None:
        """Raise `DemoError` when a component has ended by itself."""
        for name, child in self._running.items():
            if child.poll() is not None:
                raise DemoError(f"{name} has ended by itself; see {self.places.logs / name}.log")

    def _start(self, name: str, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with (self.places.logs / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [_airflow(), *command],
                env=self.env if name == "api-server" else patient(self.env),
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _run(self, *command: str) -> None:
        log = self.places.logs / f"{'-'.join(command)}.log"
        with log.open("wb") as stream:
            done = subprocess.run(
                [_airflow(), *command],
                env=self.env,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            raise DemoError(f"airflow {' '.join(command)} failed; see {log}")

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                health: dict[str, Any] = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
                if all(health[part]["status"] == "healthy" for part in _HEALTH):
                    # Airflow 3.3.2 builds this API at its first call, and answers nobody meanwhile: 17 s at a
                    # load of 13 on 2 cores. A task that starts then fails after five calls of 5 s.
                    httpx.get(f"{self.url}/execution/health", timeout=START_SECONDS)
                    return
            except (httpx.TransportError, ValueError, KeyError):
                pass
            time.sleep(0.3)
        raise DemoError(f"Airflow was not healthy within {START_SECONDS:.0f} s; see {self.places.logs}")


_HEALTH = ("metadatabase", "scheduler", "triggerer", "dag_processor")


def _environment(
    places: Places, url: str, port: int, roles: dict[str, str], dag_folders: dict[str, Path]
) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "APPROVALS"))
    }
    bundles = [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder), "refresh_interval": 3600},
        }
        for name, folder in dag_folders.items()
    ]
    return {
        **kept,
        "AIRFLOW_CONN_MASKING_KEYS": json.dumps(
            {"conn_type": "generic", "password": b64encode(secrets.token_bytes(32)).decode()}
        ),
        "AIRFLOW_HOME": str(places.airflow),
        "AIRFLOW_VAR_CUSTOMER_FOLDER": places.data.as_uri(),
        "AIRFLOW__APPROVALS__POLICY_FILE": str(places.policy),
        "AIRFLOW__APPROVALS__LEDGER_ORIGIN": "airflow-approvals/demo",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(places.passwords),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{user}:{role}" for user, role in roles.items()
        ),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        DATABASE: f"sqlite:///{places.airflow / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(places.logs / "tasks"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # seconds; 5 are few on a busy machine
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def patient(env: Mapping[str, str]) -> dict[str, str]:
    """Return `env` for a process that waits a minute for its turn to write to SQLite, instead of 5 s.

    For all but the API server: a scheduler that does not get its turn ends. The API server of Airflow 3.3.2
    writes its audit log on its event loop, and so can hold up the very call whose commit it waits for. Nobody
    is answered until it gives up, so it should give up soon.
    """
    url = env[DATABASE]
    return {**env, DATABASE: f"{url}?timeout=60" if url.startswith("sqlite:") and "?" not in url else url}


def _airflow() -> str:
    return str(Path(sys.executable).parent / "airflow")


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    # The child leads its group and is not reaped before it is told to end, so the id is still its own.
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        child.send_signal(number)


def _group_lives(child: subprocess.Popen[bytes]) -> bool:
    child.poll()
    try:
        os.killpg(child.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
