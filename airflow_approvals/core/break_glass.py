"""Break glass: one trusted person opens the gate alone, at once, and nobody can overlook it."""

from __future__ import annotations

from datetime import datetime

from airflow_approvals.core import gate, progress
from airflow_approvals.core.errors import InvalidRequestError, NotAllowedError, StaleRevisionError
from airflow_approvals.core.model import ApprovalRequest, Channel, Grant, GrantKind, Person
from airflow_approvals.core.policy import Policy, PolicyFile
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
