"""The loop of a server process that sends: one channel that hangs is no other channel's trouble."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from airflow_approvals.channels.outbox import Deliveries
from airflow_approvals.core.model import ApprovalRequest
from airflow_approvals.core.policy_channels import ChannelSettings
from airflow_approvals.web.backend import Backend
from airflow_approvals.web.deliveries import ChannelsBackend, DeliveryLoop
from tests.channels.quiet import QuietSite

PATIENCE = 240.0  # seconds: others use the machine too


class Channel:
    """Takes every message; one that hangs answers when it is told to."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.told: list[str] = []
        if not hangs:
            self.answers.set()

    def send_prompt(
        self,
        settings: ChannelSettings,
        request: ApprovalRequest,
        place: dict[str, str] | None,
        *,
        now: datetime,
    ) -> dict[str, str]:
        self.asked.set()
        assert self.answers.wait(PATIENCE)
        self.told.append(request.id)
        return {"told": "once"}

    def send_note(
        self,
        settings: ChannelSettings,
        request: ApprovalRequest,
        kind: str,
        question: int,
        place: dict[str, str],
        *,
        now: datetime,
    ) -> dict[str, str]:
        return place


@pytest.fixture
def site(tmp_path: Path) -> Iterator[QuietSite]:
    found = QuietSite(
        tmp_path, {"quick": "{kind: webhook, conn_id: quick}", "stuck": "{kind: teams, conn_id: stuck}"}
    )
    yield found
    found.store.close()


@asynccontextmanager
async def sending(site: QuietSite, quick: Channel, stuck: Channel) -> AsyncIterator[None]:
    """Run the loop with these two channels until the block ends."""
    deliveries = Deliveries(site.service, site.channels.deliveries.outbox, {"webhook": quick, "teams": stuck})
    channels = replace(site.channels, deliveries=deliveries, kinds=frozenset({"webhook", "teams"}))
    backend = Backend(lambda: site.service, site.settings)
    loop = DeliveryLoop(backend, ChannelsBackend(backend, lambda _: channels))
    loop.start()
    try:
        yield
    finally:
        stuck.answers.set()
        await loop.stop()
        backend.events.close()


async def until_told(channel: Channel, *requests: ApprovalRequest) -> None:
    async with asyncio.timeout(PATIENCE / 4):
        while not {request.id for request in requests} <= set(channel.told):
            await asyncio.sleep(0.05)


def test_a_channel_that_hangs_keeps_no_other_from_what_is_new(site: QuietSite) -> None:
    quick, stuck = Channel(), Channel(hangs=True)

    async def scenario() -> None:
        async with sending(site, quick, stuck):
            first = site.open("first")
            assert await asyncio.to_thread(stuck.asked.wait, PATIENCE)
            second = site.open("second")
            await until_told(quick, first, second)
            assert stuck.told == []

    asyncio.run(scenario())


def test_what_is_on_its_way_when_the_loop_stops_is_still_told(site: QuietSite) -> None:
    quick, stuck = Channel(), Channel(hangs=True)

    async def scenario() -> ApprovalRequest:
        async with sending(site, quick, stuck):
            first = site.open("first")
            assert await asyncio.to_thread(stuck.asked.wait, PATIENCE)
        return first

    first = asyncio.run(scenario())
    assert stuck.told == [first.id]
    assert site.delivery(first, "stuck").place == {"told": "once"}
