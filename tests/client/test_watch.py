"""The shared wait: one long-poll for all gates, nothing missed, nothing invented."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.client import watch
from airflow_approvals.client.tokens import reader_tokens
from airflow_approvals.client.watch import wait_for_decision
from airflow_approvals.core.errors import RequestNotFoundError
from airflow_approvals.core.model import Person
from tests.web.site import SECRET, Site, an_opening, mounted, serving, utc_now

pytestmark = pytest.mark.anyio

HELD, WOKEN = 55.0, 45.0
"""Seconds for which a call is held that nothing wakes, and in which a gate goes on that was woken."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WAIT", HELD)


def waiting(site: Site, request_id: str) -> asyncio.Task[dict[str, Any]]:
    return asyncio.create_task(
        wait_for_decision(site.base_url, request_id, token_source=reader_tokens(SECRET))
    )


def opened(site: Site, count: int) -> list[str]:
    found = []
    for number in range(count):
        ti_id = site.add_task(task_id=f"publish_{number}")
        with site.worker(ti_id) as worker:
            found.append(worker.open_request(an_opening())[0].id)
    return found


def voted(site: Site, request_id: str, verdict: str = "approve") -> None:
    with site.person("alice") as alice:
        alice.vote(request_id, verdict, revision=1, reason="because")


async def test_a_vote_wakes_exactly_its_gate(site: Site) -> None:
    first, second = opened(site, 2)
    gates = [waiting(site, first), waiting(site, second)]
    await asyncio.sleep(0.5)
    await asyncio.to_thread(voted, site, first)
    event = await asyncio.wait_for(gates[0], WOKEN)
    assert event == {"request_id": first, "state": "approved"}
    await asyncio.sleep(0.1)
    assert not gates[1].done()
    gates[1].cancel()
    await asyncio.gather(gates[1], return_exceptions=True)


async def test_what_is_already_decided_is_told_by_the_first_read(site: Site) -> None:
    (request_id,) = opened(site, 1)
    voted(site, request_id, "deny")
    event = await asyncio.wait_for(waiting(site, request_id), WOKEN)
    assert event["state"] == "denied"


async def test_nothing_is_missed_however_registration_and_vote_fall_together(site: Site) -> None:
    votes, gates = [], []
    for request_id in opened(site, 12):
        votes.append(asyncio.create_task(asyncio.to_thread(voted, site, request_id)))
        await asyncio.sleep(0.013)
        gates.append(waiting(site, request_id))
    events = await asyncio.wait_for(asyncio.gather(*gates), WOKEN)
    await asyncio.gather(*votes)
    assert [event["state"] for event in events] == ["approved"] * 12


async def test_a_request_that_does_not_exist_is_an_error_and_no_wait(site: Site) -> None:
    with pytest.raises(RequestNotFoundError):
        await asyncio.wait_for(waiting(site, "00000000-0000-4000-8000-000000000000"), WOKEN)


async def test_the_last_gate_ends_the_watch_and_leaves_no_task_behind(site: Site) -> None:
    before = asyncio.all_tasks()
    gates = [waiting(site, request_id) for request_id in opened(site, 3)]
    await asyncio.sleep(0.3)
    assert len(watch._watches[asyncio.get_running_loop()]) == 1
    for gate in gates:
        gate.cancel()
    await asyncio.gather(*gates, return_exceptions=True)
    await asyncio.sleep(0.1)
    assert watch._watches[asyncio.get_running_loop()] == {}
    assert asyncio.all_tasks() == before


async def test_the_wait_goes_on_when_the_server_is_away_and_a_decision_meanwhile_is_told(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    with serving(mounted(site.app), site.port):
        (request_id,) = opened(site, 1)
        gate = waiting(site, request_id)
        await asyncio.sleep(0.4)
    await asyncio.sleep(0.4)
    assert not gate.done()
    site.service.cancel(Person("engineer"), request_id, reason="", now=utc_now())
    with serving(mounted(site.app), site.port):
        event = await asyncio.wait_for(gate, WOKEN)
    assert event["state"] == "cancelled"
    site.store.close()


async def test_commits_of_another_process_are_seen(site: Site) -> None:
    (request_id,) = opened(site, 1)
    gate = waiting(site, request_id)
    await asyncio.sleep(0.4)
    # Past the app: as another API server process would commit it.
    site.service.cancel(Person("engineer"), request_id, reason="", now=utc_now())
    event = await asyncio.wait_for(gate, WOKEN)
    assert event["state"] == "cancelled"
