"""What one person may do with one request right now, asked of the very rules that will judge it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from airflow_approvals.core import gate
from airflow_approvals.core.errors import ApprovalsError, NoPolicyError, PolicyError
from airflow_approvals.core.model import ApprovalRequest, Channel, Person, State, Verdict
from airflow_approvals.core.policy import Policy, PolicyFile, digest_of_policy
from airflow_approvals.core.progress import approver_groups
from airflow_approvals.service import Service

_SOME_REASON = "-"


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """Which buttons there are, and why the others are not."""

    approve: bool = False
    deny: bool = False
    ask: bool = False
    answer: tuple[int, ...] = ()  # ids of open questions
    cancel: bool = False
    revoke: bool = False
    reason_needed: str = "on_deny"  # never, on_deny, always
    why_not: str = ""

    @property
    def any(self) -> bool:
        return any((self.approve, self.deny, self.ask, self.answer, self.cancel, self.revoke))


def abilities_of(service: Service, request: ApprovalRequest, person: Person, *, now: datetime) -> Abilities:
    """Return what `person` may do; the service asks the same rules again when it is done."""
    try:
        policy_file = service.policies.current()
    except PolicyError:
        return Abilities(
            why_not="There is no valid policy file, so nothing can be approved. The platform owner must act."
        )
    if request.state is State.APPROVED:
        policy = policy_file.find_policy(request.policy)
        revoke = _allowed(partial(gate.check_may_revoke, request, person, policy, policy_file))
        return Abilities(revoke=revoke)
    if request.state is not State.PENDING:
        return Abilities()
    if now >= request.expires_at:
        return Abilities(why_not="Nobody answered in time. Run the task again to ask anew.")
    return _open_abilities(policy_file, request, person, now)


def _open_abilities(
    policy_file: PolicyFile, request: ApprovalRequest, person: Person, now: datetime
) -> Abilities:
    cancel = _allowed(partial(gate.check_may_cancel, request, person, policy_file))
    answer = (
        tuple(question.id for question in request.questions if question.answer is None)
        if person in request.requesters
        else ()
    )
    try:
        policy = policy_file.match(request.action, dag_id=request.origin.dag_id if request.origin else None)
    except (NoPolicyError, ApprovalsError) as refusal:
        return Abilities(cancel=cancel, answer=answer, why_not=str(refusal))
    if digest_of_policy(policy) != request.policy_digest:
        return Abilities(
            cancel=cancel,
            answer=answer,
            why_not="The policy changed just now. Look at this page again in a moment.",
        )
    may_vote = partial(
        gate.check_may_vote,
        request,
        person,
        policy,
        policy_file,
        channel=Channel.PAGE,
        revision=request.revision,
        reason=_SOME_REASON,
        now=now,
    )
    approve = _allowed(partial(may_vote, verdict=Verdict.APPROVE))
    return Abilities(
        approve=approve,
        deny=_allowed(partial(may_vote, verdict=Verdict.DENY)),
        ask=bool(approver_groups(policy_file, policy, person)) and person not in request.requesters,
        answer=answer,
        cancel=cancel,
        reason_needed=policy.require_reason,
        why_not="" if approve else _why_not(request, person, policy, policy_file, may_vote),
    )


def _why_not(
    request: ApprovalRequest,
    person: Person,
    policy: Policy,
    policy_file: PolicyFile,
    may_vote: Callable[..., object],
) -> str:
    if person in request.requesters:
        return "You asked for this, so somebody else must approve it."
    if any(vote.voter == person for vote in request.votes):
        return "You have answered; your vote stands. Others must answer too."
    if not approver_groups(policy_file, policy, person):
        return f"Only members of {' or '.join(policy.approver_groups)} can answer, and you are not one."
    return _refusal(partial(may_vote, verdict=Verdict.APPROVE)) or ""


def _allowed(check: Callable[[], object]) -> bool:
    return _refusal(check) is None


def _refusal(check: Callable[[], object]) -> str | None:
    try:
        check()
    except ApprovalsError as refusal:
        return str(refusal)
    return None
