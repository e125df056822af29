"""docker/: there is no Docker engine in the tests, so each part of it is held against what it will do.

The file against the official schema of the Compose specification; the image's own install command, run in a
folder; and every Airflow process with the command, environment and health check that it has in the file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import URL, create_engine, make_url, text

from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.client.tokens import login_token
from airflow_approvals.core.model import ApprovalRequest, State, Verdict
from tests.conftest import PROXIES
from tests.marquez.local import LocalHandler, LocalServer
from tests.provider.site import free_port, login, stop, wait_until_healthy

pytestmark = pytest.mark.services

CHECKOUT = Path(__file__).parents[2]
DOCKER = CHECKOUT / "docker"
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer")
VENV, HOME, DATA, SECRETS = "/opt/airflow-approvals", "/opt/airflow", "/opt/data", "/opt/secrets"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text()))


def _validates(file: Path) -> bool:
    """Tell what check-jsonschema says, which carries the schema of the Compose specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


def test_the_file_is_valid_by_the_compose_specification() -> None:
    assert _validates(DOCKER / "compose.yaml")


@pytest.mark.parametrize(("key", "value"), [("imgae", "x"), ("command", 7), ("depends_on", {"init": {}})])
def test_a_mistake_in_a_service_would_be_found(
    compose: dict[str, Any], tmp_path: Path, key: str, value: Any
) -> None:
    services = compose["services"] | {"triggerer": {"image": "x", key: value}}
    broken = tmp_path / "compose.yaml"
    broken.write_text(yaml.safe_dump(compose | {"services": services}))
    assert not _validates(broken)


def test_images_are_pinned_ports_are_local_and_nothing_is_privileged(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":(\d+\.\d+(\.\d+)?(-[a-z]+)?|local)$", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert not service.keys() & {"privileged", "user", "network_mode", "cap_add"}, name
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert set(re.findall(r"^FROM (\S+)", dockerfile, flags=re.M)) == {"python:3.11.13-slim-bookworm"}
    assert re.findall(r"^USER (\S+)", dockerfile, flags=re.M) == ["airflow"]


class Healthy(LocalServer):
    """Says at `/healthcheck` what it is told to say."""

    def __init__(self, status: int) -> None:
        super().__init__(_HealthHandler)
        self.status = status


class _HealthHandler(LocalHandler, BaseHTTPRequestHandler):
    site: Healthy

    def do_GET(self) -> None:
        self.say(self.site.status if self.path == "/healthcheck" else 404)


def test_every_service_that_stays_has_a_health_check(compose: dict[str, Any]) -> None:
    staying = {name: each for name, each in compose["services"].items() if each.get("restart") != "no"}
    assert [name for name, service in staying.items() if "healthcheck" not in service] == []
    waited_for = [
        (service["depends_on"][other]["condition"], other)
        for service in staying.values()
        for other in service.get("depends_on", {})
    ]
    assert {other for condition, other in waited_for if condition != "service_healthy"} == {"init"}


@pytest.mark.parametrize(("status", "lives"), [(200, True), (500, False), (404, False)])
@pytest.mark.parametrize(("service", "port"), [("marquez", "5001"), ("marquez-web", "3000")])
def test_the_health_checks_of_marquez_and_its_page_tell_whether_they_live(
    compose: dict[str, Any], service: str, port: str, status: int, lives: bool
) -> None:
    words: list[str] = compose["services"][service]["healthcheck"]["test"][1:]
    if shutil.which(words[0]) is None:
        pytest.skip(f"NOT CHECKED: {words[0]} is not on this machine")
    with Healthy(status) as server:
        here = server.url.removeprefix("http://")
        # As the two images have it: a host and a port, with a colon or a slash between.
        place = {f"localhost:{port}": here, f"localhost/{port}": here.replace(":", "/")}
        for there, found in place.items():
            words = [word.replace(there, found) for word in words]
        assert here.replace(":", "/") in words[-1].replace(":", "/")
        done = subprocess.run(words, capture_output=True, timeout=60)
    assert (done.returncode == 0) is lives, done.stderr.decode()


def test_the_signing_key_and_the_passwords_are_the_api_servers_alone(compose: dict[str, Any]) -> None:
    holders = {
        name
        for name, service in compose["services"].items()
        if any(str(volume).startswith("approvals:") for volume in service.get("volumes", ()))
    }
    assert holders == {"init", "api-server"}


@dataclass(kw_only=True)
class Machine:
    """Where the file's addresses and folders are on this machine, which has no containers."""

    root: Path
    port: int
    database: URL
    compose: dict[str, Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def native(self, text: str) -> str:
        """Return a command or setting of the file as it is here."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")
        here = {
            "localhost:8080": f"127.0.0.1:{self.port}",
            "api-server:8080": f"127.0.0.1:{self.port}",
            "postgres:5432": f"{self.database.host}:{self.database.port}",
            "marquez:5000": "127.0.0.1:1",  # nobody there: the lineage tests have a real one
            "/opt/policy.yaml": str(self.root / "policy.yaml"),
            "/opt/seed": str(self.root / "seed"),
            "/opt/": f"{self.root}/",
        }
        for there, place in here.items():
            text = text.replace(there, place)
        return str(self.port) if text == "8080" else text

    def environment(self, service: str) -> dict[str, str]:
        own = self.compose["services"][service]["environment"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return {
            **kept,
            "PATH": f"{self.native(VENV)}/bin:{os.environ['PATH']}",
            "AIRFLOW_HOME": self.native(HOME),
            # In containers each has a network of its own.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            **{name: self.native(value) for name, value in own.items()},
        }

    def command(self, words: list[str]) -> list[str]:
        return [self.native(word) for word in (words[1:] if words[0] == "CMD" else words)]

    def run(self, service: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(words),
            env=self.environment(service),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def start(self, service: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{service}.log").open("wb") as log:
            return subprocess.Popen(
                self.command(self.compose["services"][service]["command"]),
                env=self.environment(service),
                cwd=self.root,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, compose: dict[str, Any]
) -> Iterator[Machine]:
    """The image's install, PostgreSQL's first start and `init`, and then all of Airflow."""
    root = tmp_path_factory.mktemp("opt")
    machine = Machine(root=root, port=free_port(), database=make_url(postgres_url), compose=compose)
    _install(machine)
    for folder in ("airflow/approvals", "airflow/logs", "data", "secrets", "seed"):
        (root / folder).mkdir(parents=True)
    shutil.copytree(CHECKOUT / "dags", root / "airflow" / "dags")
    shutil.copytree(CHECKOUT / "demo", root / "seed" / "demo")
    for name, target in (("policy.yaml", root), ("seed.py", root / "seed")):
        (target / name).write_text(machine.native((DOCKER / name).read_text()))
    with _databases(machine), ExitStack() as running:
        done = machine.run("init", compose["services"]["init"]["command"])
        assert done.returncode == 0, done.stderr[-3000:]
        assert all(f"login {name}, password " in done.stdout for name in ("engineer", "alice", "bob"))
        for service in AIRFLOW:
            running.callback(stop, machine.start(service))
        wait_until_healthy(machine.url, seconds=180)
        yield machine


def _install(machine: Machine) -> None:
    """Run what the image runs in its first stage, with what it copies and nothing else."""
    dockerfile = (DOCKER / "Dockerfile").read_text()
    stage = dockerfile[: dockerfile.rindex("FROM")]
    source = machine.root / "src"
    for line in re.findall(r"^COPY (.+)$", stage, flags=re.M):
        *names, to = line.split()
        for name in names:
            target = source / to / name if to.endswith("./") else source / to
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
            copy(CHECKOUT / name, target)
    for command in re.findall(r"^RUN (.+)$", stage, flags=re.M):
        words = ["bash", "-c", command.replace(VENV, machine.native(VENV))]
        subprocess.run(words, cwd=source, env={**os.environ, **PROXIES}, check=True)


@contextmanager
def _databases(machine: Machine) -> Iterator[None]:
    """Do what the image of PostgreSQL does at its first start; other tests use this server too."""
    script = (DOCKER / "postgres.sql").read_text().replace("marquez", "compose_marquez")
    owner = machine.compose["services"]["postgres"]["environment"]["POSTGRES_USER"]
    engine = create_engine(machine.database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE ROLE {owner} LOGIN SUPERUSER"))
        for statement in (f"CREATE DATABASE {owner} OWNER {owner}", *script.split(";")[:-1]):
            connection.execute(text(statement))
        try:
            yield
        finally:
            for name in (owner, "compose_marquez"):
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
                connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


def test_the_export_of_counts_runs_with_the_commands_and_settings_of_the_file(machine: Machine) -> None:
    passwords: Mapping[str, str] = json.loads((machine.root / "airflow/approvals/passwords.json").read_text())
    tokens = {name: login(machine.url, name, passwords[name]) for name in ("engineer", "alice")}
    exported = machine.root / "data" / "outbox" / "customers" / "customers.parquet"
    with (
        ApprovalsClient(machine.url, login_token(tokens["engineer"]), 60.0) as engineer,
        ApprovalsClient(machine.url, login_token(tokens["alice"]), 60.0) as alice,
    ):
        _until(lambda: _trigger(machine, tokens["engineer"]), "the DAG is known")
        states = partial(_task_states, machine, tokens["engineer"])
        _until(lambda: bool(_requests(alice, State.PENDING)), "the export asks", states)
        (request,) = _requests(engineer, State.PENDING)
        assert request.requesters == ("engineer",)
        assert not exported.exists()
        alice.vote(request.id, Verdict.APPROVE, revision=request.revision)
        _until(lambda: bool(_requests(alice, State.COMPLETED)), "the export is done", states)
    assert exported.exists()


@pytest.mark.parametrize("service", AIRFLOW)
def test_the_health_check_of_a_service_tells_that_it_lives(machine: Machine, service: str) -> None:
    check = machine.compose["services"][service]["healthcheck"]
    for _ in range(check["retries"]):  # as often as the file has Compose ask before it is unhealthy
        done = machine.run(service, check["test"])
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr[-2000:]


def test_init_leaves_what_is_there_as_it_is(machine: Machine) -> None:
    secrets = {file: file.read_bytes() for file in (machine.root / "secrets").iterdir()}
    done = machine.run("init", machine.compose["services"]["init"]["command"])
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(secrets) == 4
    assert {file: file.read_bytes() for file in (machine.root / "secrets").iterdir()} == secrets
    assert all(file.stat().st_mode & 0o077 == 0 for file in secrets)


def _trigger(machine: Machine, token: str) -> bool:
    answer = httpx.post(
        f"{machine.url}/api/v2/dags/customer_export/dagRuns",
        json={"logical_date": None, "dag_run_id": "by_hand"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )
    return answer.status_code in (200, 409)  # 409: an earlier call, answered with an error, had started it


def _requests(client: ApprovalsClient, state: State) -> tuple[ApprovalRequest, ...]:
    return client.list_requests(status=[state], dag_id="customer_export").requests


def _task_states(machine: Machine, token: str) -> dict[str, str | None]:
    answer = httpx.get(
        f"{machine.url}/api/v2/dags/customer_export/dagRuns/~/taskInstances",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )
    told: list[dict[str, Any]] = answer.json()["task_instances"]
    return {task["task_id"]: task["state"] for task in told}


def _until(holds: Any, what: str, told: Callable[[], Any] = str, *, seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}; {told()}"
        time.sleep(0.5)
