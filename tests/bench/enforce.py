"""What enforcement costs those whom it does not concern: DAG files and connections that are free.

Parsing: one DAG of 500 tasks and twenty rules, of which one gates every tenth task, beside the same without a
rule; each parse is a process of its own, in turn, and the least processor time of each is compared. The
guard: what a request for a connection that is not protected takes longer behind it than without.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROUNDS = 11
TASKS = 500
GATED_EVERY = 10
REQUESTS = 3_000

DAG_FILE = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
with DAG("bench", tags=["bench"]) as dag:
    before = None
    for number in range({tasks}):
        name = "gated" if number % {every} == 0 else "task"
        task = BashOperator(task_id=f"{{name}}_{{number}}", bash_command="echo {{{{ ds }}}}")
        if before is not None:
            before >> task
        before = task
"""

# As the dag processor does it: the file is imported, the policies are applied, the DAG is serialised.
PARSE = """
import logging, sys, time
logging.disable(logging.CRITICAL)
from airflow.providers.standard.operators.bash import BashOperator
import airflow.serialization.serialized_objects as ways
from importlib import import_module
from importlib.util import find_spec
place = "airflow.dag_processing.dagbag"
bags = import_module(place if find_spec(place) else "airflow.models.dagbag")
serialize = (vars(ways).get("DagSerialization") or ways.SerializedDAG).serialize_dag
started = time.process_time()
bag = bags.DagBag(sys.argv[1])
serialize(bag.dags["bench"])
seconds = time.process_time() - started
gated = sum(hasattr(task, "approvals_rule") for task in bag.dags["bench"].tasks)
assert gated == int(sys.argv[2]), gated
print(seconds * 1000)
"""


def figures(rounds: int = ROUNDS, requests: int = REQUESTS) -> dict[str, float]:
    """Return shares of the time of a parse, and milliseconds of a request."""
    with tempfile.TemporaryDirectory(prefix="enforce-bench-") as folder:
        return {**_parse_figures(Path(folder), rounds), **asyncio.run(_guard_figures(Path(folder), requests))}


def _parse_figures(folder: Path, rounds: int) -> dict[str, float]:
    dag_file = folder / "bench.py"
    dag_file.write_text(DAG_FILE.format(tasks=TASKS, every=GATED_EVERY))
    ways = {
        "without": (None, 0),
        "some": (_policy("gated_*"), TASKS // GATED_EVERY),
        "all": (_policy("*"), TASKS),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, (policy, gated) in ways.items():
            home = folder / name
            home.mkdir(exist_ok=True)
            taken = _parse(home, dag_file, policy, gated)
            if number:  # the first compiles what is not compiled yet
                times[name].append(taken)
    # What disturbs a parse makes it slower, never faster.
    best = {name: min(taken) for name, taken in times.items()}
    return {
        "parse_overhead_share": max(0.0, best["some"] / best["without"] - 1),
        "parse_overhead_share_all_gated": max(0.0, best["all"] / best["without"] - 1),
        "ms_ungated": best["without"],
    }


def _policy(task_ids: str) -> str:
    rules = [f"  - {{operator: vendor.hooks.Operator{number}, policy: p}}" for number in range(19)]
    rules.append(f'  - {{operator: BashOperator, task_id: ["{task_ids}"], policy: p}}')
    head = "version: 1\ngroups: {g: {users: [alice]}}\npolicies: [{name: p, match: {action: [write]}, "
    return head + "require: [{group: g}]}]\ngated_operators:\n" + "\n".join(rules) + "\n"


def _parse(home: Path, dag_file: Path, policy: str | None, gated: int) -> float:
    """Return milliseconds."""
    file = home / "policy.yaml"
    if policy is not None:
        file.write_text(policy)
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__APPROVALS__POLICY_FILE": str(file),
        "AIRFLOW__APPROVALS__GATED_OPERATORS": "off" if policy is None else "required",
    }
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(dag_file), str(gated)],
        capture_output=True,
        text=True,
        # Compiled once, as wherever the package is installed.
        env={**os.environ, **settings, "PYTHONDONTWRITEBYTECODE": ""},
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


async def _guard_figures(folder: Path, requests: int) -> dict[str, float]:
    from airflow_approvals.enforcement.guard import SecretGuard
    from airflow_approvals.enforcement.keyring import Keyring
    from airflow_approvals.enforcement.sealing import Vault
    from airflow_approvals.web.backend import Backend
    from tests.web.site import Site

    site = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    policy = site.policy_file.read_text()
    names = ", ".join(f'"prod_{number}_*"' for number in range(50))
    site.policy_file.write_text(f"{policy}protected_connections: [{names}]\n")
    backend = Backend(lambda: site.service, site.settings)
    vault = Vault(Keyring(current="k", keys={"k": bytes(32)}))
    guard = SecretGuard(_execution_api, backend=backend, open_vault=lambda: vault)
    alone, behind = [], []
    for _ in range(requests):
        alone.append(await _milliseconds(_execution_api))
        behind.append(await _milliseconds(guard))
    site.store.close()
    rank = int(requests * 0.99)
    return {
        "middleware_ms_p99": max(0.0, sorted(behind)[rank] - statistics.median(alone)),
        "middleware_ms_p50": max(0.0, statistics.median(behind) - statistics.median(alone)),
    }


async def _milliseconds(app: Callable[..., Awaitable[None]]) -> float:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/execution/connections/warehouse",
        "root_path": "",
        "headers": [(b"authorization", b"Bearer x.y.z"), (b"accept-encoding", b"gzip")],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(_: Any) -> None:
        return None

    started = time.perf_counter()
    await app(scope, receive, send)
    return (time.perf_counter() - started) * 1000


async def _execution_api(scope: Any, receive: Any, send: Any) -> None:
    body = json.dumps({"conn_id": "warehouse", "conn_type": "postgres", "extra": "x" * 500}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
