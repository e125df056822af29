"""When people are told again that a request waits: reminders, and one escalation, while it is open."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.core.policy import Policy


class Notice(StrEnum):
    """What is told, as the ledger names it."""

    REMINDED = "request.reminded"
    ESCALATED = "request.escalated"


def scheduled(request: ApprovalRequest, policy: Policy) -> ApprovalRequest:
    """Return `request` with the next moment at which somebody has to be told; none after it has run out."""
    times = [time for time in (_reminder_at(request, policy), _escalation_at(request, policy)) if time]
    at = min(times, default=None)
    if request.state is not State.PENDING or (at is not None and at >= request.expires_at):
        at = None
    return replace(request, next_notice_at=at)


def told(request: ApprovalRequest, policy: Policy, *, now: datetime) -> tuple[ApprovalRequest, Notice | None]:
    """Return `request` after what is due at `now` was told, and what that is.

    Reminders that were missed, because no server ran, are told as one; an escalation stands for the reminder
    of its moment.
    """
    escalation = _escalation_at(request, policy)
    if escalation is not None and policy.escalate is not None and now >= escalation:
        escalated = replace(request, escalated_at=now, escalated_to=policy.escalate.to, reminded_at=now)
        return scheduled(escalated, policy), Notice.ESCALATED
    reminder = _reminder_at(request, policy)
    if reminder is not None and now >= reminder:
        return scheduled(replace(request, reminded_at=now), policy), Notice.REMINDED
    return scheduled(request, policy), None


def _reminder_at(request: ApprovalRequest, policy: Policy) -> datetime | None:
    """Return the first full interval since the opening that nobody was told of yet."""
    if policy.remind_every is None:
        return None
    passed = ((request.reminded_at or request.opened_at) - request.opened_at) // policy.remind_every
    return request.opened_at + (passed + 1) * policy.remind_every


def _escalation_at(request: ApprovalRequest, policy: Policy) -> datetime | None:
    if policy.escalate is None or request.escalated_to == policy.escalate.to:
        return None
    return request.opened_at + policy.escalate.after
