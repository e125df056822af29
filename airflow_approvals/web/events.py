"""Who waits for the ledger to grow: a waiting call costs a future, no thread and no database connection."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.core.model import Entry, State

POLL_SECONDS = 0.1
"""How often commits of other processes are looked for while somebody waits."""

MAX_ENTRIES = 1000
"""Entries in one answer; who wants more asks again."""

log = logging.getLogger(__name__)


class EventHub:
    """Wakes waiting calls of one process when the ledger has grown, by this process or another one."""

    def __init__(self, ledger_size: Callable[[], Awaitable[int]]) -> None:
        self._ledger_size = ledger_size
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._poller: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Let everybody look now: this process has just committed something."""
        for ticket in self._waiters:
            _complete(ticket)

    def ticket(self, after: int) -> asyncio.Future[None]:
        """Return what completes once the last entry is not `after`; take it before looking.

        So nothing falls between looking and waiting. It ends with `wait` or `give_back`.
        """
        ticket = asyncio.get_running_loop().create_future()
        self._waiters[ticket] = after
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        return ticket

    async def wait(
        self, ticket: asyncio.Future[None], seconds: float, *, hung_up: asyncio.Future[None]
    ) -> None:
        """Return when `ticket` completes, after `seconds`, or when the caller has hung up."""
        try:
            await asyncio.wait(
                {ticket, hung_up}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self.give_back(ticket)

    def give_back(self, ticket: asyncio.Future[None]) -> None:
        """Forget a ticket."""
        self._waiters.pop(ticket, None)

    def close(self) -> None:
        """Let everybody go, and stop looking."""
        self.wake()
        if self._poller is not None:
            self._poller.cancel()

    async def _poll(self) -> None:
        while self._waiters:
            await asyncio.sleep(POLL_SECONDS)
            try:
                last = await self._ledger_size() - 1
            except ApprovalsError as trouble:
                log.warning("cannot look for new ledger entries: %s", trouble)
                continue
            for ticket, after in self._waiters.items():
                # A last entry before `after` is news too: the database was restored from a backup.
                if last != after:
                    _complete(ticket)


def _complete(ticket: asyncio.Future[None]) -> None:
    if not ticket.done():
        ticket.set_result(None)


def event_of(entry: Entry) -> dict[str, Any]:
    """Return what anybody who may listen is told of an entry: which request moved, and where to."""
    body = json.loads(entry.body)
    return {
        "index": entry.index,
        "kind": body["kind"],
        "request_id": body["request_id"],
        "state": _state_after(body["kind"], body["data"]),
    }


def _state_after(kind: str, data: dict[str, Any]) -> str | None:
    if kind == "outcome.reported":
        return State.COMPLETED if data["outcome"]["published"] else State.FAILED
    named = {
        "request.opened": State.PENDING,
        "request.rebound": State.PENDING,
        "receipt.redeemed": State.REDEEMED,
    }
    if kind in named:
        return named[kind]
    noun, _, word = kind.partition(".")
    return word if noun == "request" and word in set(State) else None
