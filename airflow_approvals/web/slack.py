"""Where Slack delivers clicks: no login, but its signature; answered first, carried out after.

Bad, missing, old and replayed signatures get 401 and an empty body; whoever sends them learns nothing.
"""

from __future__ import annotations

import logging
from datetime import datetime

from fastapi import APIRouter, Request, Response
from starlette.background import BackgroundTask

from airflow_approvals.channels.joined import Channels
from airflow_approvals.channels.slack.interactive import (
    Click,
    Intent,
    Nothing,
    Submission,
    intent_of,
    payload_of,
)
from airflow_approvals.channels.slack.send import KIND
from airflow_approvals.channels.slack.signature import MAX_BODY, SignatureRefusedError, check_signature
from airflow_approvals.channels.slack.workspace import Workspace
from airflow_approvals.core.errors import ApprovalsError, ConfigurationError, InvalidRequestError
from airflow_approvals.web.backend import Backend, new_id, now
from airflow_approvals.web.deliveries import ChannelsBackend

router = APIRouter()

log = logging.getLogger(__name__)


@router.post("/slack/interactive", include_in_schema=False)
async def interactive(request: Request) -> Response:
    """Take a click or a window that was sent off."""
    backend: Backend = request.app.state.backend
    channels: ChannelsBackend | None = request.app.state.channels
    body = await _body_of(request)
    if body is None:
        return Response(status_code=413)
    if channels is None:
        return Response(status_code=401)
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        intent, workspace = await backend.run(_taken, channels, body, headers, now())
    except SignatureRefusedError as refusal:
        channels.refused += 1
        log.warning("Slack's signature was refused, %d times so far: %s", channels.refused, refusal)
        return Response(status_code=401)
    if isinstance(intent, Nothing):
        log.info("nothing to do for Slack: %s", intent.why)
        return Response(status_code=200)
    return Response(
        status_code=200, background=BackgroundTask(_carry_out, backend, channels, intent, workspace)
    )


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
    backend: ChannelsBackend, body: bytes, headers: dict[str, str], at: datetime
) -> tuple[Intent, Workspace]:
    """Return what was done in Slack and in which workspace.

    (1) a workspace of the policy file signed it, (2) for the first time, (3) from our app.
    """
    channels = backend.channels
    workspace, digest = _signer(backend, channels, body, headers, at)  # (1)
    if not channels.deliveries.outbox.is_first_use(digest, now=at):  # (2)
        raise SignatureRefusedError("it came before")
    try:
        intent = intent_of(payload_of(body))
    except InvalidRequestError as error:
        return Nothing(why=str(error)), workspace
    foreign = isinstance(intent, Click | Submission) and workspace.app_id not in ("", intent.app_id)
    if foreign:  # (3)
        raise SignatureRefusedError("it is from another app")
    return intent, workspace


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
    backend: Backend, channels: ChannelsBackend, intent: Click | Submission, workspace: Workspace
) -> None:
    try:
        await backend.run(lambda: channels.channels.answers.carry_out(intent, workspace, now=now()))
        backend.events.wake()
        await backend.run(_show, channels.channels, intent.ref.request_id)
    except ApprovalsError as trouble:
        log.warning("a click on request %s was not carried out: %s", intent.ref.request_id, trouble)
    except Exception:
        # Slack has its answer already; the traceback is in the log, and the person can click again.
        log.exception("a click on request %s was not carried out", intent.ref.request_id)


def _show(channels: Channels, request_id: str) -> None:
    """Bring the prompts of one request up to date now; whatever fails stays in the outbox."""
    while channels.deliveries.plan(now=now()):
        pass
    while channels.deliveries.deliver_one(now=now(), lease=new_id(), request_id=request_id):
        pass
