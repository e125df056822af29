"""Signed webhooks for programs, as Standard Webhooks has them: at least once, each under an id that stays.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import binascii
from datetime import UTC, datetime
from typing import Any

from airflow_approvals.channels.connections import check_address, connection_of
from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.posting import post
from airflow_approvals.channels.telling import Message
from airflow_approvals.core.canonical import canonical_json, digest_of
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.model import ApprovalRequest, to_json
from airflow_approvals.core.policy_channels import ChannelSettings, WebhookChannel

KIND = "webhook"
MIN_SECRET = 24
"""Bytes; the specification asks for 24 to 64."""

_GONE = frozenset({410})
"""The one status that says: never again. Any other may be a deployment that has gone wrong for a while."""

_ENDS = ("decided_at", "decided_because", "redeemed_at", "escalated_to")


def post_event(settings: ChannelSettings, message: Message, *, now: datetime) -> None:
    """Send one event, signed with the connection's secret and, while they change, the one before."""
    address, secrets = target_of(settings)
    event = event_of(message)
    msg_id = f"msg_{digest_of(event)[:32]}"
    body = canonical_json(event)
    signatures = " ".join(_signature(secret, msg_id, now, body) for secret in secrets)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": msg_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signatures,
    }
    post(address, body, headers=headers, now=now, lasting=_GONE)


def target_of(settings: ChannelSettings) -> tuple[str, tuple[str, ...]]:
    """Return address and secrets; raise `ConfigurationError` unless both can be used."""
    if not isinstance(settings, WebhookChannel):
        raise SendError(f"the channel is of kind {settings.kind} now", refused=True)
    connection = connection_of(settings.conn_id)
    address = connection.host or ""
    check_address(settings.conn_id, address)
    previous = connection.extra_dejson.get("previous_secret")
    secrets = tuple(str(secret) for secret in (connection.password, previous) if secret)
    if not secrets or any(_size(secret) < MIN_SECRET for secret in secrets):
        raise ConfigurationError(
            f"connection {settings.conn_id}: its password is no secret of Standard Webhooks; it needs "
            f"whsec_ and at least {MIN_SECRET} random bytes in base64"
        )
    return address, secrets


def told_of(request: ApprovalRequest) -> str:
    """Return what tells two events apart: every change of a request is one to a program."""
    return digest_of(_request(request))


def event_of(message: Message) -> dict[str, Any]:
    """Return the event: the request as it is now, the same bytes however often it is sent."""
    progress = message.progress
    request = message.request
    return {
        "type": message.event,
        "timestamp": _changed_at(request).astimezone(UTC).isoformat(),
        "data": {
            "request": _request(request),
            "progress": None
            if progress is None
            else {"is_met": progress.is_met, "missing": progress.missing},
            "link": message.link,
        },
    }


def _request(request: ApprovalRequest) -> dict[str, Any]:
    whole = to_json(request)
    datasets = request.evidence.datasets
    return {
        **{
            name: whole[name] for name in ("id", "revision", "state", "action", "action_digest", "requesters")
        },
        **{name: whole[name] for name in ("policy", "policy_digest", "opened_at", "expires_at", *_ENDS)},
        "origin": whole["origin"],
        "datasets": [
            {"uri": each.uri, "sha256": each.sha256, "rows": each.rows, "size": each.size}
            for each in datasets
        ],
        "votes": whole["votes"],
        "questions": whole["questions"],
        "outcome": whole["outcome"],
    }


def _changed_at(request: ApprovalRequest) -> datetime:
    moments = [request.opened_at, *(vote.cast_at for vote in request.votes)]
    for question in request.questions:
        moments += [question.asked_at, *([question.answered_at] if question.answered_at else [])]
    moments += [at for at in (request.decided_at, request.redeemed_at, request.reminded_at) if at is not None]
    return max([*moments, *([request.outcome.reported_at] if request.outcome else [])])


def _size(secret: str) -> int:
    try:
        return len(binascii.a2b_base64(secret.removeprefix("whsec_").encode(), strict_mode=True))
    except (binascii.Error, ValueError):
        return 0


def _signature(secret: str, msg_id: str, at: datetime, body: bytes) -> str:
    from standardwebhooks import Webhook

    return str(Webhook(secret).sign(msg_id, at.astimezone(UTC), body.decode()))
