"""The loop that sends what is in the outbox: one per process; leases keep them out of each other's way."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from airflow_approvals.channels.checking import channel_problems
from airflow_approvals.channels.joined import Channels
from airflow_approvals.channels.outbox import has_channels
from airflow_approvals.channels.slack.send import KIND as SLACK
from airflow_approvals.core.errors import ApprovalsError, ConfigurationError, PolicyError
from airflow_approvals.service import Service
from airflow_approvals.web.backend import Backend, new_id, now
from airflow_approvals.web.loops import IDLE, Loop

SENDERS = 8
"""Messages on their way at once per process, each to another channel."""

_LONGEST = timedelta(seconds=1)
_SHORTEST = 0.1  # seconds

log = logging.getLogger(__name__)


class ChannelsBackend:
    """The channels of one process, joined when they are first needed."""

    def __init__(self, backend: Backend, build: Callable[[Service], Channels]) -> None:
        self.refused = 0  # signatures
        self._looked_at = ""  # digest of a policy file
        self._troubles: dict[str, str] = {}  # by connection, as they were logged
        self._backend = backend
        self._build = build
        self._building = threading.Lock()
        self._channels: Channels | None = None

    @property
    def channels(self) -> Channels:
        """Return the channels. Call it from a thread."""
        service = self._backend.service
        with self._building:
            if self._channels is None:
                self._channels = self._build(service)
            return self._channels

    def keep_open(self) -> None:
        """Open what is needed to judge a click, before one comes: the first import alone takes seconds."""
        for conn_id in self.connections(SLACK):
            try:
                self.channels.workspaces.get(conn_id)
            except ConfigurationError as trouble:
                if self._troubles.get(conn_id) != str(trouble):
                    log.warning("%s", trouble)
                self._troubles[conn_id] = str(trouble)
            else:
                self._troubles.pop(conn_id, None)
        self._look_at_channels()

    def _look_at_channels(self) -> None:
        """Say once, for each policy file that comes into force, which of its channels cannot be used."""
        policy_file = self._backend.service.policies.current()
        if policy_file.digest == self._looked_at:
            return
        self._looked_at = policy_file.digest
        for problem in channel_problems(policy_file, "", name="policy file"):
            log.error("%s (requests are asked in the other channels, and on the page)", problem)

    def connections(self, kind: str) -> list[str]:
        """Return the connections that the policy file names for channels of `kind`, each once."""
        try:
            channels = self._backend.service.policies.current().channels.values()
        except PolicyError:
            return []
        return sorted({each.conn_id for each in channels if each.kind == kind and each.conn_id})


class DeliveryLoop(Loop):
    """Plans and sends until it is stopped; wakes when the ledger grows.

    It goes on planning while messages are on their way: a channel that keeps its caller waiting must not keep
    the others from what is new.
    """

    name = "deliveries"

    def __init__(self, backend: Backend, channels: ChannelsBackend) -> None:
        super().__init__()
        self._backend = backend
        self._channels = channels
        self._sending: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def stop(self) -> None:
        """Stop; what is on its way is still sent, and nothing after it."""
        self._is_stopping = True
        await super().stop()
        await asyncio.gather(*self._sending)

    async def go_round(self) -> None:
        seen = await self._backend.run(self._planned)
        if seen is None:
            await asyncio.sleep(IDLE)
            return
        if await self._backend.run(self._pause) == 0:
            for _ in range(SENDERS - len(self._sending)):
                sending = asyncio.create_task(self._send_all())
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)
        pause = max(_SHORTEST, await self._backend.run(self._pause))
        ticket = self._backend.events.ticket(seen - 1)
        await self._backend.events.wait(ticket, pause, hung_up=asyncio.get_running_loop().create_future())

    def _planned(self) -> int | None:
        """Plan all that is new; return the size of the ledger before, None when there is no channel."""
        channels = self._channels.channels
        service = self._backend.service
        if not has_channels(service, channels.kinds):
            return None
        self._channels.keep_open()
        size = service.store.ledger_size()
        while channels.deliveries.plan(now=now()):
            pass
        return size

    async def _send_all(self) -> None:
        try:
            await self._backend.run(self._send)
        except ApprovalsError as trouble:
            log.warning("%s: %s", self.name, trouble)
        except Exception:
            # The others are still to be sent; the traceback is in the log.
            log.exception("%s failed", self.name)

    def _send(self) -> None:
        deliveries = self._channels.channels.deliveries
        while not self._is_stopping and deliveries.deliver_one(now=now(), lease=new_id()):
            pass

    def _pause(self) -> float:
        """Return for how many seconds nothing can be sent; it is looked again after one at the latest."""
        due = self._channels.channels.deliveries.outbox.next_due()
        until = _LONGEST if due is None else min(_LONGEST, due - now())
        return max(0.0, until.total_seconds())
