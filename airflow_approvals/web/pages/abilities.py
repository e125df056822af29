"""What one person may do with one request right now, asked of the very rules that will judge it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from airflow_approvals.core import gate
from airflow_approvals.core.break_glass import break_glass, check_may_review, is_emergency
from airflow_approvals.core.errors import ApprovalsError, NoPolicyError, PolicyError
from airflow_approvals.core.model import ApprovalRequest, Channel, Person, State, Verdict
from airflow_approvals.core.policy import Policy, PolicyFile, digest_of_policy
from airflow_approvals.core.progress import approver_groups
from airflow_approvals.core.standing import check_may_stand, terms_for
from airflow_approvals.service import Service

_SOME_REASON = "-"


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """Which buttons there are, and why the others are not."""

    approve: bool = False
    asks_twice: bool = False  # before an approval counts
    deny: bool = False
    ask: bool = False
    answer: tuple[int, ...] = ()  # ids of open questions
    cancel: bool = False
    revoke: bool = False
    break_glass: bool = False
    review: bool = False  # of an emergency grant, afterwards
    stand_days: int = 0  # for how many days one may ask that this approval stands
    reason_needed: str = "on_deny"  # never, on_deny, always
    why_not: str = ""

    @property
    def any(self) -> bool:
        return any(
            (
                self.approve,
                self.deny,
                self.ask,
                self.answer,
                self.cancel,
                self.revoke,
                self.break_glass,
                self.review,
            )
        )


def abilities_of(service: Service, request: ApprovalRequest, person: Person, *, now: datetime) -> Abilities:
    """Return what `person` may do; the service asks the same rules again when it is done."""
    try:
        policy_file = service.policies.current()
    except PolicyError:
        return Abilities(
            why_not="There is no valid policy file, so nothing can be approved. The platform owner must act."
        )
    if request.state is not State.PENDING:
        return _later_abilities(policy_file, request, person)
    if now >= request.expires_at:
        return Abilities(why_not="Nobody answered in time. Run the task again to ask anew.")
    return _open_abilities(policy_file, request, person, now)


def _later_abilities(policy_file: PolicyFile, request: ApprovalRequest, person: Person) -> Abilities:
    policy = policy_file.find_policy(request.policy)
    may_revoke = partial(gate.check_may_revoke, request, person, policy, policy_file)
    is_open = is_emergency(request) and request.review is None
    return Abilities(
        revoke=request.state is State.APPROVED and _allowed(may_revoke),
        review=is_open and is_reviewer(request, person, policy_file),
        stand_days=_days_to_stand(policy_file, request),
    )


def is_reviewer(request: ApprovalRequest, person: Person, policy_file: PolicyFile) -> bool:
    """Return whether `person` is one of those who should look at an emergency grant afterwards."""
    policy = policy_file.find_policy(request.policy)
    return _allowed(partial(check_may_review, request, person, policy, policy_file))


def _days_to_stand(policy_file: PolicyFile, request: ApprovalRequest) -> int:
    """Return for how long at most the approval of `request` can stand; 0 where it cannot."""
    try:
        terms = terms_for(request, days=1)
        policy = policy_file.match(request.action, dag_id=terms.dag_id)
        check_may_stand(policy, terms, request.evidence)
    except ApprovalsError:
        return 0
    return policy.standing.max_days if policy.standing else 0


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
    may_break = partial(
        break_glass,
        request,
        person,
        policy,
        policy_file,
        reason=_SOME_REASON,
        revision=request.revision,
        channel=Channel.PAGE,
        now=now,
    )
    return Abilities(
        approve=approve,
        asks_twice=policy.high_risk or request.standing is not None,
        deny=_allowed(partial(may_vote, verdict=Verdict.DENY)),
        ask=bool(approver_groups(policy_file, policy, person)) and person not in request.requesters,
        answer=answer,
        cancel=cancel,
        break_glass=_allowed(may_break),
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
