"""Lineage events: taken in from Airflow's processes, made from the ledger, sent on; one loop per process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from airflow_approvals.core.errors import ConfigurationError, NotAllowedError
from airflow_approvals.core.worker_token import WorkerClaims
from airflow_approvals.lineage.spool import KEPT, Lineage, Spool
from airflow_approvals.service import Service
from airflow_approvals.web.auth import AuthenticatedRoute, caller_of
from airflow_approvals.web.backend import Backend, new_id, now
from airflow_approvals.web.loops import IDLE, Loop

_PAUSE = 1.0  # seconds, when nothing is due

log = logging.getLogger(__name__)
router = APIRouter(route_class=AuthenticatedRoute)


@router.post("/lineage/events", include_in_schema=False)
async def take_in(request: Request) -> JSONResponse:
    """Keep one OpenLineage event of a worker, the scheduler or the API server, to be sent on."""
    caller = caller_of(request)
    if not isinstance(caller, WorkerClaims) or caller.scope != "lineage":
        raise NotAllowedError("lineage events are told by Airflow's own processes, through their transport")
    backend: Backend = request.app.state.backend
    lineage: LineageBackend | None = request.app.state.lineage
    body = await request.body()
    is_new = await backend.run(_put, lineage, body)
    return JSONResponse({"queued": is_new}, status_code=202)


def _put(lineage: LineageBackend | None, body: bytes) -> bool:
    found = lineage.lineage if lineage is not None else None
    if found is None:
        raise ConfigurationError(
            "lineage: this API server has no OpenLineage transport; give it the same [openlineage] section "
            "as the workers"
        )
    return found.take_in(body, now=now())


@dataclass(frozen=True, kw_only=True)
class LineageParts:
    """How the lineage of a service is joined."""

    build: Callable[[Service], Lineage | None]  # None while OpenLineage is off
    spool_of: Callable[[Service], Spool]


class LineageBackend:
    """The lineage of one process, joined when it is first needed; None while OpenLineage is off."""

    def __init__(self, backend: Backend, parts: LineageParts) -> None:
        self._backend = backend
        self._parts = parts
        self._building = threading.Lock()
        self._is_built = False
        self._lineage: Lineage | None = None

    @property
    def lineage(self) -> Lineage | None:
        """Return what plans and sends. Call it from a thread."""
        service = self._backend.service
        with self._building:
            if not self._is_built:
                self._lineage = self._parts.build(service)
                self._is_built = True
            return self._lineage

    def skip(self) -> None:
        """Leave untold what happens while OpenLineage is off."""
        self._parts.spool_of(self._backend.service).skip_to_end()


class LineageLoop(Loop):
    """Plans and sends until it is stopped; wakes when the ledger grows."""

    name = "lineage"

    def __init__(self, backend: Backend, lineage: LineageBackend) -> None:
        super().__init__()
        self._backend = backend
        self._lineage = lineage

    async def go_round(self) -> None:
        seen = await self._backend.run(self._step)
        if seen is None:
            await asyncio.sleep(IDLE)
            return
        ticket = self._backend.events.ticket(seen - 1)
        await self._backend.events.wait(ticket, _PAUSE, hung_up=asyncio.get_running_loop().create_future())

    def _step(self) -> int | None:
        """Plan and send all that is due; return the ledger's size before, None while there is no backend."""
        lineage = self._lineage.lineage
        if lineage is None:
            self._lineage.skip()
            return None
        size = self._backend.service.store.ledger_size()
        while lineage.plan(now=now()):
            pass
        while lineage.send_due(lease=new_id(), now=now):
            pass
        lineage.collect(now=now())  # what is wrong with a file of it stops nothing else
        lineage.spool.forget_sent(before=now() - KEPT)
        return size
