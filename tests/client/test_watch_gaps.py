"""The shared wait against a server that misbehaves: gaps, lies, restarts and silence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Response
from starlette.requests import Request

from airflow_approvals.client.tokens import login_token
from airflow_approvals.client.watch import wait_for_decision
from tests.web.site import free_port, serving

pytestmark = pytest.mark.anyio

API = "/approvals/api/v1"
IDS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(450)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Script:
    """A server that does as it is told, and counts."""

    def __init__(self) -> None:
        self.states = dict.fromkeys(IDS, "pending")
        self.head = 10
        self.entries: list[dict[str, Any]] = []
        self.failing = 0
        self.tells_its_end = True
        self.calls: list[str] = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.app = FastAPI()
        self.app.add_api_route(f"{API}/events", self.events, response_model=None)
        self.app.add_api_route(f"{API}/requests", self.requests)

    async def events(self, request: Request) -> Response | dict[str, Any]:
        self.calls.append("events")
        if self.failing > 0:
            self.failing -= 1
            return Response("<html>bad gateway</html>", status_code=502)
        after, wait = int(request.query_params["after"]), float(request.query_params["wait"])
        while not self.tells_its_end:
            await asyncio.sleep(0.02)
        for _ in range(int(wait / 0.02)):
            if self.head != after or self.failing:
                break
            await asyncio.sleep(0.02)
        if self.failing:
            return Response("", status_code=503)
        head = self.head  # the test goes on meanwhile: what is told is what is there up to here
        told = [one for one in self.entries if after < one["index"] <= head]
        return {"entries": told, "next": head}

    async def requests(self, request: Request) -> dict[str, Any]:
        self.calls.append("requests")
        ids = request.query_params["ids"].split(",")
        return {"requests": [{"id": one, "state": self.states[one]} for one in ids], "total": len(ids)}

    def decide(self, request_id: str, *, told: bool) -> None:
        self.states[request_id] = "approved"
        if told:
            self.tell(request_id, "approved")
        else:
            self.head += 1

    def tell(self, request_id: str | None, state: str | None) -> None:
        # First the entry, then the end: the server looks at them from a thread of its own.
        self.entries.append({"index": self.head + 1, "request_id": request_id, "state": state})
        self.head += 1


@pytest.fixture
def script() -> Iterator[Script]:
    found = Script()
    with serving(found.app, found.port):
        yield found


async def waiting(script: Script, count: int) -> list[asyncio.Task[dict[str, Any]]]:
    gates = [
        asyncio.create_task(wait_for_decision(script.url, one, token_source=login_token("t")))
        for one in IDS[:count]
    ]
    reads = script.calls.count("requests") + -(-count // 200)
    for _ in range(3000):  # a minute
        await asyncio.sleep(0.02)
        if script.calls.count("requests") >= reads and script.calls.count("events") >= 2:
            await asyncio.sleep(0.1)
            return gates
    raise AssertionError("the watch did not begin")


async def dismiss(gates: list[asyncio.Task[dict[str, Any]]]) -> None:
    for gate in gates:
        gate.cancel()
    await asyncio.gather(*gates, return_exceptions=True)


async def test_many_gates_are_read_in_few_calls_and_then_cost_one_call_together(script: Script) -> None:
    gates = await waiting(script, 450)
    assert script.calls.count("requests") == 3
    before = len(script.calls)
    await asyncio.sleep(1.5)
    assert len(script.calls) == before
    await dismiss(gates)


async def test_a_decision_before_the_end_of_the_ledger_is_told_is_found(script: Script) -> None:
    script.tells_its_end = False
    gate = asyncio.create_task(wait_for_decision(script.url, IDS[0], token_source=login_token("t")))
    while not script.calls:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)  # what is read by now is too old
    script.decide(IDS[0], told=True)
    script.tells_its_end = True
    assert (await asyncio.wait_for(gate, 60))["state"] == "approved"


async def test_a_ledger_that_became_shorter_makes_everything_be_read_again(script: Script) -> None:
    gates = await waiting(script, 2)
    script.states[IDS[0]] = "denied"
    script.head = 4
    assert (await asyncio.wait_for(gates[0], 60))["state"] == "denied"
    assert not gates[1].done()
    await dismiss(gates)


async def test_what_was_decided_while_the_server_failed_is_found_although_nobody_tells(
    script: Script,
) -> None:
    gates = await waiting(script, 2)
    script.decide(IDS[1], told=False)
    await asyncio.sleep(0.3)
    assert not gates[1].done()
    script.failing = 2
    script.head += 1
    assert (await asyncio.wait_for(gates[1], 60))["state"] == "approved"
    assert not gates[0].done()
    await dismiss(gates)


async def test_events_of_other_requests_and_of_no_move_wake_nobody(script: Script) -> None:
    gates = await waiting(script, 1)
    script.tell(IDS[0], None)
    script.tell(IDS[0], "pending")
    script.tell(None, None)
    script.tell(IDS[5], "approved")
    await asyncio.sleep(0.3)
    assert not gates[0].done()
    script.decide(IDS[0], told=True)
    assert (await asyncio.wait_for(gates[0], 60))["state"] == "approved"


async def test_two_gates_on_one_request_are_both_woken(script: Script) -> None:
    first, second = [(await waiting(script, 1))[0] for _ in range(2)]
    script.decide(IDS[0], told=True)
    events = await asyncio.wait_for(asyncio.gather(first, second), 60)
    assert [event["state"] for event in events] == ["approved", "approved"]
