"""What enforcement costs those whom it does not concern: DAG files and connections that are free.

Parsing: one DAG of 500 tasks and twenty rules, of which one gates every tenth task, beside the same without a
rule. They take turns, each parse in a process of its own, and in each round the processor times are compared:
the figure is the median of the rounds. The guard: what a request for a connection that is not protected takes
longer behind it than without.
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

PARSERS = 6
ROUNDS = 15
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

# As the dag processor does it: a process with Airflow in it forks for each parse; there the file is imported,
# the policies are applied and the DAG is serialised. The ways take turns; each answer is a line.
PARSER = """
import gc, json, logging, os, sys, time
from importlib import import_module
from importlib.util import find_spec
import airflow.serialization.serialized_objects as ways
from airflow.providers.standard.operators.bash import BashOperator
place = "airflow.dag_processing.dagbag"
bags = import_module(place if find_spec(place) else "airflow.models.dagbag")
serialize = (vars(ways).get("DagSerialization") or ways.SerializedDAG).serialize_dag
logging.disable(logging.CRITICAL)
file, rounds, settings = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
gc.collect()
gc.freeze()

def parse(name, gated):
    os.environ.update(settings[name])
    started = time.process_time()
    bag = bags.DagBag(file)
    serialize(bag.dags["bench"])
    seconds = time.process_time() - started
    found = sum(hasattr(task, "approvals_rule") for task in bag.dags["bench"].tasks)
    assert found == gated, (name, found)
    print(name, seconds * 1000, flush=True)

for _ in range(rounds):
    for name, gated in json.loads(sys.argv[4]).items():
        child = os.fork()
        if not child:
            parse(name, gated)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, name
"""


def figures(parsers: int = PARSERS, rounds: int = ROUNDS, requests: int = REQUESTS) -> dict[str, float]:
    """Return shares of the time of a parse, and milliseconds of a request."""
    with tempfile.TemporaryDirectory(prefix="enforce-bench-") as folder:
        return {
            **_parse_figures(Path(folder), parsers, rounds),
            **asyncio.run(_guard_figures(Path(folder), requests)),
        }


def _parse_figures(folder: Path, parsers: int, rounds: int) -> dict[str, float]:
    dag_file = folder / "bench.py"
    dag_file.write_text(DAG_FILE.format(tasks=TASKS, every=GATED_EVERY))
    gated = {"without": 0, "some": TASKS // GATED_EVERY, "all": TASKS}
    settings = {"without": {"AIRFLOW__APPROVALS__GATED_OPERATORS": "off"}}
    for name, task_ids in {"some": "gated_*", "all": "*"}.items():
        policy = folder / f"{name}.yaml"
        policy.write_text(_policy(task_ids))
        settings[name] = {
            "AIRFLOW__APPROVALS__POLICY_FILE": str(policy),
            "AIRFLOW__APPROVALS__GATED_OPERATORS": "required",
        }
    times: dict[str, list[float]] = {name: [] for name in gated}
    # How memory happens to lie is another in each process that forks, and moves all of its figures.
    for _ in range(parsers):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                PARSER,
                dag_file,
                str(rounds + 1),
                json.dumps(settings),
                json.dumps(gated),
            ],
            capture_output=True,
            text=True,
            # Compiled once, as wherever the package is installed.
            env={
                **os.environ,
                "AIRFLOW_HOME": str(folder),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "PYTHONDONTWRITEBYTECODE": "",
            },
            check=True,
        )
        answers = [line.split() for line in done.stdout.splitlines()]
        for name, taken in times.items():
            # The first round compiles what is not compiled yet.
            taken += [float(answer[1]) for answer in answers if answer[0] == name][1:]
    without = times["without"]
    return {
        "parse_overhead_share": _overhead(times["some"], without),
        "parse_overhead_share_all_gated": _overhead(times["all"], without),
        "ms_ungated": statistics.median(without),
    }


def _overhead(taken: list[float], without: list[float]) -> float:
    return max(0.0, statistics.median(gated / free for gated, free in zip(taken, without, strict=True)) - 1)


def _policy(task_ids: str) -> str:
    rules = [f"  - {{operator: vendor.hooks.Operator{number}, policy: p}}" for number in range(19)]
    rules.append(f'  - {{operator: BashOperator, task_id: ["{task_ids}"], policy: p}}')
    head = "version: 1\ngroups: {g: {users: [alice]}}\npolicies: [{name: p, match: {action: [write]}, "
    return head + "require: [{group: g}]}]\ngated_operators:\n" + "\n".join(rules) + "\n"


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
