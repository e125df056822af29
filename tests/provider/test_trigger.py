"""The trigger alone: it survives serialisation, holds young decisions back, and never decides by itself."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_approvals.client import watch
from airflow_approvals.triggers import approval
from airflow_approvals.triggers.approval import HOLD_BACK, ApprovalTrigger

pytestmark = pytest.mark.airflow

DECIDED = {"request_id": "r1", "state": "approved"}


async def fire(trigger: ApprovalTrigger) -> Any:
    return [event.payload async for event in trigger.run()]


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(base_url: str, request_id: str) -> dict[str, Any]:
        return dict(DECIDED)

    monkeypatch.setattr(watch, "wait_for_decision", at_once)


def test_a_trigger_is_the_same_after_serialisation() -> None:
    path, kwargs = ApprovalTrigger(request_id="r1", base_url="http://h", deferred_at=12.5).serialize()
    assert path == f"{ApprovalTrigger.__module__}.{ApprovalTrigger.__name__}"
    assert ApprovalTrigger(**kwargs).serialize() == (path, kwargs)


AGES = {
    "young": (0.0, [HOLD_BACK]),
    "older": (10.0, [HOLD_BACK - 10]),
    "old enough": (HOLD_BACK, []),
    "from a clock that is ahead": (-3600.0, [HOLD_BACK]),
}


@pytest.mark.usefixtures("decided")
@pytest.mark.parametrize(("age", "waits"), AGES.values(), ids=AGES.keys())
def test_a_decision_on_a_young_defer_waits_but_not_for_longer(
    age: float, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(approval, "time", SimpleNamespace(time=lambda: 7200.0))
    monkeypatch.setattr(approval, "asyncio", SimpleNamespace(sleep=sleep))
    trigger = ApprovalTrigger(request_id="r1", base_url="http://h", deferred_at=7200.0 - age)
    assert asyncio.run(fire(trigger)) == [DECIDED]
    assert slept == waits


@pytest.mark.usefixtures("decided")
def test_a_young_defer_ends_when_it_is_old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ApprovalTrigger, "hold_back", 0.5)
    began = time.monotonic()
    trigger = ApprovalTrigger(request_id="r1", base_url="http://h", deferred_at=time.time())
    assert asyncio.run(fire(trigger)) == [DECIDED]
    assert time.monotonic() - began > 0.4


def test_a_server_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__APPROVALS__WORKER_SECRET", "a secret for this test")
    trigger = ApprovalTrigger(request_id="r1", base_url="http://127.0.0.1:9", deferred_at=0.0)

    async def wait() -> None:
        await asyncio.wait_for(fire(trigger), timeout=2)

    with pytest.raises(TimeoutError):
        asyncio.run(wait())
