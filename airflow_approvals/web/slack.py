"""Where Slack delivers clicks and events: no login, but its signature; answered first, carried out after.

Bad, missing, old and replayed signatures get 401 and an empty body; whoever sends them learns nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask

from airflow_approvals.channels.joined import Channels
from airflow_approvals.channels.slack.acting import carry_out, intent_for
from airflow_approvals.channels.slack.interactive import (
    Challenge,
    Doing,
    Intent,
    Nothing,
    event_of,
    payload_of,
)
from airflow_approvals.channels.slack.send import KIND
from airflow_approvals.channels.slack.signature import MAX_BODY, SignatureRefusedError, check_signature
from airflow_approvals.channels.slack.workspace import Workspace
from airflow_approvals.core.errors import ConfigurationError, InvalidRequestError
from airflow_approvals.web.backend import Backend, new_id, now
from airflow_approvals.web.deliveries import ChannelsBackend

Reader = Callable[[bytes], Mapping[str, Any]]

TAKERS = 4
"""Calls of Slack judged at once per process, in threads of their own: Slack gives up after three seconds."""

router = APIRouter()

log = logging.getLogger(__name__)


@router.post("/slack/interactive", include_in_schema=False)
async def interactive(request: Request) -> Response:
    """Take a click or a window that was sent off."""
    return await _take(request, payload_of)


@router.post("/slack/events", include_in_schema=False)
async def events(request: Request) -> Response:
    """Take what Slack tells by itself: somebody looks at the app's Home tab."""
    return await _take(request, event_of)


async def _take(request: Request, read: Reader) -> Response:
    backend: Backend = request.app.state.backend
    channels: ChannelsBackend | None = request.app.state.channels
    body = await _body_of(request)
    if body is None:
        return Response(status_code=413)
    if channels is None:
        return Response(status_code=401)
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        take = partial(_taken, channels, read, body, headers, now())
        intent, workspace = await to_thread.run_sync(take, limiter=_takers(request))
    except SignatureRefusedError as refusal:
        channels.refused += 1
        log.warning("Slack's signature was refused, %d times so far: %s", channels.refused, refusal)
        return Response(status_code=401)
    if isinstance(intent, Doing):
        task = BackgroundTask(_carry_out, backend, channels, intent, workspace)
        return Response(status_code=200, background=task)
    return JSONResponse({"challenge": intent.word}) if isinstance(intent, Challenge) else Response()


def _takers(request: Request) -> CapacityLimiter:
    """Return the threads for this; what is carried out, and may wait for Slack, has others."""
    state = request.app.state
    if not hasattr(state, "slack_takers"):
        state.slack_takers = CapacityLimiter(TAKERS)
    takers: CapacityLimiter = state.slack_takers
    return takers


async def _body_of(request: Request) -> bytes | None:
    """Return the body as it came; None when it is too large."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
    return b"".join(parts)


def _taken(
    backend: ChannelsBackend, read: Reader, body: bytes, headers: dict[str, str], at: datetime
) -> tuple[Intent, Workspace]:
    """Return what was done in Slack and in which workspace.

    (1) a workspace of the policy file signed it, (2) for the first time, (3) from our app.
    """
    channels = backend.channels
    workspace, digest = _signer(backend, channels, body, headers, at)  # (1)
    if not channels.deliveries.outbox.is_first_use(digest, now=at):  # (2)
        raise SignatureRefusedError("it came before")
    try:
        payload = read(body)
    except InvalidRequestError as error:
        log.info("nothing to do for Slack: %s", error)
        return Nothing(why=str(error)), workspace
    return intent_for(payload, workspace), workspace  # (3)


def _signer(
    backend: ChannelsBackend, channels: Channels, body: bytes, headers: dict[str, str], at: datetime
) -> tuple[Workspace, str]:
    refusal = SignatureRefusedError("no Slack channel is configured")
    for conn_id in backend.connections(KIND):
        try:
            workspace = channels.workspaces.get(conn_id)
            return workspace, check_signature(body, headers, workspace.secrets, now=at)
        except ConfigurationError as trouble:
            log.error("%s", trouble)  # noqa: TRY400  # it says all, and comes with every call
        except SignatureRefusedError as refused:
            refusal = refused
    raise refusal


async def _carry_out(
    backend: Backend, channels: ChannelsBackend, intent: Doing, workspace: Workspace
) -> None:
    loop = asyncio.get_running_loop()

    def act() -> None:
        carry_out(
            channels.channels.answers,
            channels.channels.deliveries,
            intent,
            workspace,
            clock=now,
            new_lease=new_id,
            committed=lambda: loop.call_soon_threadsafe(backend.events.wake),
        )

    await backend.run(act)
