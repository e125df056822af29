"""How soon after a vote its gate goes on, and what waiting costs, beside the standard `HITLTrigger`.

Three processes, as in production: the API (the whole app on uvicorn, with the real store on SQLite in WAL
mode), the triggerer (real `ApprovalTrigger` objects in one event loop, as Airflow's `TriggerRunner` holds
them), and the people who vote through the API at a steady rate. A latency is from the moment the voter has
the 200 to the `TriggerEvent`, on the clock that all processes of a machine share. The gates are older than
the hold-back.

The peer is Airflow's own class at its default poll interval of 5 s with the same number of gates. Its look at
the backend is answered from memory: the supervisor, HTTP and database that it passes in production cost it
nothing here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[2]
VOTES = 400
VOTES_PER_SECOND = 20.0
PEER_ANSWERS = 400


def figures(n: int = 1_000, many: int = 10_000, idle_seconds: float = 50.0) -> dict[str, float]:
    """Return milliseconds, requests a minute, kilobytes a gate and the ratio to the peer."""
    few = _measure(n, idle_seconds=idle_seconds)
    lots = _measure(many, idle_seconds=0.0)
    peer = asyncio.run(_peer_latencies(n))
    own_p99, peer_p99 = _p99(few["latencies"]), _p99(peer)
    return {
        "p50_ms_1000": _percentile(few["latencies"], 0.5),
        "p99_ms_1000": own_p99,
        "p99_ms_10000": _p99(lots["latencies"]),
        "idle_requests_per_min_1000": few["idle_requests"] * 60 / idle_seconds,
        "rss_kb_per_gate_1000": few["rss_kb_per_gate"],
        "rss_kb_per_gate_10000": lots["rss_kb_per_gate"],
        "hitl_trigger_p99_ms_1000": peer_p99,
        "times_faster_than_hitl_trigger_p99": peer_p99 / own_p99,
    }


def _measure(gates: int, *, idle_seconds: float) -> dict[str, Any]:
    """Return what the triggerer process has seen; every role is a process of this module."""
    with ExitStack() as roles:
        folder = roles.enter_context(tempfile.TemporaryDirectory(prefix="wait-bench-"))
        server = roles.enter_context(_role("serve", folder, gates))
        base_url = json.loads(_line(server))["base_url"]
        triggerer = roles.enter_context(_role("wait", folder, gates, base_url))
        waiting = json.loads(_line(triggerer))
        before = _ask(server)
        time.sleep(idle_seconds)
        idle_requests = _ask(server) - before
        votes = _finished("vote", folder, base_url)
        events = json.loads(_ask_line(triggerer))
    latencies = [1000 * max(0.0, events[request_id] - at) for request_id, at in votes.items()]
    return {
        "latencies": latencies,
        "idle_requests": idle_requests,
        "rss_kb_per_gate": waiting["rss_kb"] / gates,
    }


@contextmanager
def _role(name: str, folder: str, gates: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.bench.wait", name, folder, str(gates), *more]
    environment = {**os.environ, "AIRFLOW_HOME": folder, "AIRFLOW__APPROVALS__WORKER_SECRET": _secret()}
    with (Path(folder) / f"{name}.log").open("wb") as log:
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=environment,
        )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def _finished(name: str, folder: str, base_url: str) -> dict[str, float]:
    with _role(name, folder, VOTES, base_url) as started:
        said: dict[str, float] = json.loads(_line(started))
        return said


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = process.stdout.readline()
    if not said:
        raise RuntimeError(f"{process.args!r} ended by itself")
    return said


def _ask_line(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return _line(process)


def _ask(process: subprocess.Popen[str]) -> int:
    return int(_ask_line(process))


def _p99(latencies: list[float]) -> float:
    return _percentile(latencies, 0.99)


def _percentile(latencies: list[float], share: float) -> float:
    ordered = sorted(latencies)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _secret() -> str:
    from tests.web.site import SECRET

    return SECRET


# --- the API ------------------------------------------------------------------------------------------


def serve(folder: Path, gates: int) -> None:
    """Open the requests, serve, and tell for every line on stdin how many calls there were."""
    from sqlalchemy import text

    from tests.web.site import Site, an_opening, mounted, serving, utc_now

    site = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    asking = site.add_task()
    with site.store.engine.begin() as connection:
        connection.execute(text("UPDATE task_instance SET state='deferred' WHERE id=:id"), {"id": asking})
    # Opening is no part of what is measured: one request by the service, and its like by the store.
    opened = site.service.open_for_task(asking, an_opening(), request_id=str(uuid4()), now=utc_now())
    ids = [str(uuid4()) for _ in range(gates)]
    with site.store.begin() as tx:
        for number, request_id in enumerate(ids):
            tx.insert_request(replace(opened.request, id=request_id, gate=str(number)))
    (folder / "requests.json").write_text(json.dumps(ids))
    inner, calls = mounted(site.app), 0

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += scope["type"] == "http"
        await inner(scope, receive, send)

    with serving(counted, site.port):  # type: ignore[arg-type]  # any ASGI app will do for uvicorn
        print(json.dumps({"base_url": site.base_url}), flush=True)
        for _ in sys.stdin:
            print(calls, flush=True)


# --- the triggerer ------------------------------------------------------------------------------------


async def wait(folder: Path, gates: int, base_url: str) -> None:
    """Hold all gates; tell the memory that they took, and on a line on stdin when which event came."""
    from airflow_approvals.triggers.approval import HOLD_BACK, ApprovalTrigger

    ids: list[str] = json.loads((folder / "requests.json").read_text())
    events: dict[str, float] = {}
    long_ago = time.time() - 10 * HOLD_BACK

    async def hold(request_id: str) -> None:
        trigger = ApprovalTrigger(request_id=request_id, base_url=base_url, deferred_at=long_ago)
        async for event in trigger.run():
            events[event.payload["request_id"]] = time.monotonic()

    # The first gate brings HTTP and the shared watch along: they are paid once, not for each gate.
    tasks = [asyncio.create_task(hold(ids[0]))]
    await asyncio.sleep(2)
    ballast = _fill_free_memory()
    before = _rss_kb()
    tasks += [asyncio.create_task(hold(request_id)) for request_id in ids[1:]]
    await asyncio.sleep(5 + gates / 500)
    print(json.dumps({"rss_kb": _rss_kb() - before}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.sleep(2)
    print(json.dumps(events), flush=True)
    for task in tasks:
        task.cancel()
    ballast.clear()


def _fill_free_memory() -> list[bytes]:
    """Return what uses up the memory that imports left free: gates must not hide in it."""
    ballast: list[bytes] = []
    full = _rss_kb() + 4096
    while _rss_kb() < full:
        ballast.extend(bytes(size) for size in range(16, 2048, 16))
    return ballast


def _rss_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


# --- the people ---------------------------------------------------------------------------------------


def vote(folder: Path, votes: int, base_url: str) -> None:
    """Approve `votes` requests, spread over all, and tell when each answer was there."""
    from airflow_approvals.client.api import ApprovalsClient
    from airflow_approvals.client.tokens import login_token
    from airflow_approvals.core.model import Verdict

    ids: list[str] = json.loads((folder / "requests.json").read_text())
    chosen = ids[:: max(1, len(ids) // votes)][:votes]
    done: dict[str, float] = {}
    with ApprovalsClient(base_url, login_token("login-alice"), 30.0) as alice:
        began = time.monotonic()
        for number, request_id in enumerate(chosen):
            time.sleep(max(0.0, began + number / VOTES_PER_SECOND - time.monotonic()))
            alice.vote(request_id, Verdict.APPROVE, revision=1)
            done[request_id] = time.monotonic()
    print(json.dumps(done), flush=True)


# --- the peer -----------------------------------------------------------------------------------------


async def _peer_latencies(gates: int) -> list[float]:
    """Return milliseconds from an answer to its `TriggerEvent`, for the standard provider's trigger."""
    from unittest.mock import patch

    from airflow.providers.standard.triggers import hitl

    answered: dict[Any, float] = {}
    events: dict[Any, float] = {}

    def look(ti_id: Any) -> Any:
        at = answered.get(ti_id)
        chosen = ["Approve"] if at is not None else None
        return SimpleNamespace(
            response_received=at is not None,
            chosen_options=chosen,
            responded_at=at or 0.0,
            responded_by_user=None,
            params_input={},
        )

    async def hold(ti_id: Any) -> None:
        trigger = hitl.HITLTrigger(
            ti_id=ti_id, options=["Approve", "Reject"], params={}, multiple=False, timeout_datetime=None
        )
        trigger._log = quiet  # it tells of every answer; that is not measured
        async for _ in trigger.run():
            events[ti_id] = time.monotonic()

    quiet: Any = logging.getLogger(__name__)
    quiet.setLevel(logging.CRITICAL)
    ids = [uuid4() for _ in range(gates)]
    with patch.object(hitl, "get_hitl_detail_content_detail", look):
        tasks = [asyncio.create_task(hold(ti_id)) for ti_id in ids]
        await asyncio.sleep(2)
        chosen = ids[:: max(1, gates // PEER_ANSWERS)][:PEER_ANSWERS]
        for ti_id in chosen:
            answered[ti_id] = time.monotonic()
            await asyncio.sleep(1 / VOTES_PER_SECOND)
        await asyncio.sleep(7)
        for task in tasks:
            task.cancel()
    return [1000 * (events[ti_id] - answered[ti_id]) for ti_id in chosen]


def main(role: str, folder: str, count: str, *more: str) -> None:
    """Play one of the roles; `figures` starts them."""
    if role == "serve":
        serve(Path(folder), int(count))
    elif role == "wait":
        asyncio.run(wait(Path(folder), int(count), *more))
    else:
        vote(Path(folder), int(count), *more)


if __name__ == "__main__":
    main(*sys.argv[1:])
