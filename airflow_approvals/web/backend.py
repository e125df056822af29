"""What the routes work with: the service, built when it is first needed, and a few threads to run it in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import ParamSpec, TypeVar
from uuid import uuid4

from anyio import CapacityLimiter, to_thread

from airflow_approvals.service import Service
from airflow_approvals.settings import Settings
from airflow_approvals.web.events import EventHub

THREADS = 16
"""Calls of the service at once per process; Airflow's own routes keep their threads to themselves."""

Given = ParamSpec("Given")
Got = TypeVar("Got")


class Backend:
    """One per process; a service that cannot be built is tried again with the next call, and says why."""

    def __init__(self, build: Callable[[], Service], settings: Settings) -> None:
        self.settings = settings
        self.events = EventHub(self._ledger_size)
        self._build = build
        self._service: Service | None = None
        self._building = threading.Lock()
        self._threads: CapacityLimiter | None = None

    @property
    def service(self) -> Service:
        """Return the service; raise `ConfigurationError` while it cannot be built. Call it from a thread."""
        # Built late: a server that forks its workers must not share connections between them.
        with self._building:
            if self._service is None:
                self._service = self._build()
            return self._service

    @property
    def built(self) -> Service | None:
        """Return the service if it is built already; this never blocks."""
        return self._service

    async def run(self, function: Callable[Given, Got], *args: Given.args, **kwargs: Given.kwargs) -> Got:
        """Return what `function` returns; it runs in a thread and may block."""
        if self._threads is None:
            self._threads = CapacityLimiter(THREADS)
        return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._threads)

    async def _ledger_size(self) -> int:
        return await self.run(lambda: self.service.store.ledger_size())


def now() -> datetime:
    """Return the time of this call."""
    return datetime.now(UTC)


def new_id() -> str:
    """Return the id of a new request."""
    return str(uuid4())
