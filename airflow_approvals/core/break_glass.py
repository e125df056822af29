"""Break glass: one trusted person opens the gate alone, at once, and nobody can overlook it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from airflow_approvals.core import gate, progress
from airflow_approvals.core.errors import (
    AlreadyDecidedError,
    InvalidRequestError,
    NotAllowedError,
    StaleRevisionError,
)
from airflow_approvals.core.model import ApprovalRequest, Channel, Grant, GrantKind, Person, Review
from airflow_approvals.core.policy import ADMINS, Policy, PolicyFile
from airflow_approvals.core.standing import approve_by

LOGGED_IN = frozenset({Channel.API, Channel.CLI, Channel.PAGE})
"""Where a login of Airflow's own stands behind what is said."""


def break_glass(
    request: ApprovalRequest,
    person: Person,
    policy: Policy,
    policy_file: PolicyFile,
    *,
    reason: str,
    revision: int,
    channel: Channel,
    now: datetime,
) -> ApprovalRequest:
    """Return `request` approved by `person` alone, or raise.

    (1) it is still open, (2) it is what the person saw, (3) an ordinary approval is what it asks for,
    (4) a login of Airflow's own stands behind it, (5) the policy lets this person, (6) who did not ask for
    it, (7) with a reason.
    """
    gate.check_open(request, now=now)  # (1)
    if revision != request.revision:  # (2)
        raise StaleRevisionError(
            f"request {request.id} has changed: you saw revision {revision}, it is now at revision "
            f"{request.revision}; look at it again"
        )
    if request.standing is not None:  # (3)
        raise InvalidRequestError(
            f"request {request.id} asks for a standing approval: an emergency is one run; break the "
            "glass for that run's request"
        )
    if channel not in LOGGED_IN:  # (4)
        raise NotAllowedError(f"the glass cannot be broken from {channel}; log in to Airflow")
    group = policy.break_glass.group if policy.break_glass else None
    if group is None or group not in progress.groups_of(policy_file, person):  # (5)
        raise NotAllowedError(
            f"{person} may not break the glass for request {request.id}: "
            + (f"not a member of {group}" if group else f"policy {policy.name} has no break_glass group")
        )
    # (6) Two-person rule, in an emergency too: whoever asks alone must not be able to grant alone.
    if person in request.requesters and policy.self_approval != "allowed":
        raise NotAllowedError(
            f"{person} may not break the glass for request {request.id}: requesters cannot approve their own "
            f"action; another member of {group} must"
        )
    if not reason.strip():  # (7)
        raise InvalidRequestError("breaking the glass needs a reason, for those who look at it afterwards")
    gate.check_text("reason", reason)
    grant = Grant(kind=GrantKind.BREAK_GLASS, by=(person,), reason=reason.strip())
    return approve_by(request, grant, policy, now=now)


def review(
    request: ApprovalRequest,
    person: Person,
    policy: Policy | None,
    policy_file: PolicyFile,
    *,
    remark: str,
    now: datetime,
) -> ApprovalRequest:
    """Return `request` with the look that `person` took at its emergency grant, or raise.

    (1) the glass was broken for it, (2) nobody has looked yet, (3) the person answers for such requests,
    (4) and neither broke the glass nor asked. The grant itself stays what it is.
    """
    if not is_emergency(request):  # (1)
        raise InvalidRequestError(
            f"request {request.id} was not granted in an emergency, so there is nothing to look at afterwards"
        )
    if request.review is not None:  # (2)
        raise AlreadyDecidedError(f"request {request.id} was already looked at by {request.review.by}")
    check_may_review(request, person, policy, policy_file)
    gate.check_text("remark", remark)
    return replace(request, review=Review(by=person, at=now, remark=remark.strip()))


def check_may_review(
    request: ApprovalRequest, person: Person, policy: Policy | None, policy_file: PolicyFile
) -> None:
    """Raise `NotAllowedError` unless `person` answers for such requests, and had no part in this one."""
    groups = progress.groups_of(policy_file, person)
    is_approver = policy is not None and bool(progress.approver_groups(policy_file, policy, person))
    if not (is_approver or ADMINS in groups):
        raise NotAllowedError(
            f"{person} may not review request {request.id}: only an approver of policy {request.policy} or a "
            f"member of group {ADMINS} may"
        )
    broke = request.granted.by if request.granted else ()
    if person in (*broke, *request.requesters):
        raise NotAllowedError(
            f"{person} may not review request {request.id}: whoever asked for it or broke the glass cannot; "
            "somebody else must look"
        )


def is_emergency(request: ApprovalRequest) -> bool:
    """Return whether one person alone granted this."""
    return request.granted is not None and request.granted.kind is GrantKind.BREAK_GLASS
