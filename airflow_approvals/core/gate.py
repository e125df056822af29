"""May this happen now: the moves of a request, who may vote, what a vote leads to, when a receipt is good.

Every function takes values and returns the next value, or raises. There is no other way from state to state.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from airflow_approvals.core import progress
from airflow_approvals.core.errors import (
    AlreadyDecidedError,
    DigestMismatchError,
    InvalidRequestError,
    NotAllowedError,
    NotApprovedError,
    ReceiptGoneError,
    ReceiptUsedError,
    StaleRevisionError,
    TransitionError,
    VoteRefusedError,
)
from airflow_approvals.core.identity import is_starter_known
from airflow_approvals.core.model import (
    ApprovalRequest,
    Channel,
    Outcome,
    Person,
    Question,
    State,
    Verdict,
    Vote,
)
from airflow_approvals.core.policy import ADMINS, Policy, PolicyFile

TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset(
        {State.APPROVED, State.DENIED, State.EXPIRED, State.CANCELLED, State.SUPERSEDED}
    ),
    State.APPROVED: frozenset({State.REDEEMED, State.REVOKED, State.LAPSED}),
    State.REDEEMED: frozenset({State.COMPLETED, State.FAILED}),
    State.DENIED: frozenset(),
    State.EXPIRED: frozenset(),
    State.CANCELLED: frozenset(),
    State.SUPERSEDED: frozenset(),
    State.REVOKED: frozenset(),
    State.LAPSED: frozenset(),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
}

MAX_TEXT = 2000
"""Characters of a reason, question or answer; Slack's modal input holds 3,000."""


def move(request: ApprovalRequest, to: State, *, now: datetime, because: str) -> ApprovalRequest:
    """Return `request` in state `to`; raise `TransitionError` where the state machine has no such move."""
    if to not in TRANSITIONS[request.state]:
        raise TransitionError(f"request {request.id} is {request.state}: it cannot become {to}")
    return replace(request, state=to, decided_at=now, decided_because=because)


def check_may_vote(
    request: ApprovalRequest,
    voter: Person,
    policy: Policy,
    policy_file: PolicyFile,
    *,
    verdict: Verdict,
    channel: Channel,
    revision: int,
    reason: str,
    now: datetime,
) -> tuple[str, ...]:
    """Return the groups `voter` speaks for, or raise.

    (1) the request is still open, (2) it is what the voter saw, (3) the channel is good enough, (4) the
    voter is an approver of this policy now, (5) is not the requester, (6) has not voted, (7) gave a reason
    where one is needed.
    """
    check_open(request, now=now)  # (1)
    if revision != request.revision:  # (2)
        raise StaleRevisionError(
            f"request {request.id} has changed: you saw revision {revision}, it is now at revision "
            f"{request.revision}; look at it again, then vote"
        )
    check_channel(request, policy, channel)  # (3)
    groups = progress.approver_groups(policy_file, policy, voter)  # (4)
    if not groups:
        raise VoteRefusedError(
            f"{voter} may not vote on request {request.id}: not in any approver group of policy "
            f"{policy.name} ({', '.join(sorted({rule.group for rule in policy.require}))})"
        )
    # (5) Two-person rule: one leaked login must not be enough to approve its own export. A requester who
    # wants to stop it cancels; a deny would let them pose as a reviewer in the record.
    if voter in request.requesters and (policy.self_approval != "allowed" or verdict is Verdict.DENY):
        raise VoteRefusedError(
            f"{voter} may not vote on request {request.id}: requesters cannot approve their own action; "
            "another approver must answer (a requester may cancel)"
        )
    if any(vote.voter == voter for vote in request.votes):  # (6)
        raise AlreadyDecidedError(f"{voter} has already voted on request {request.id}; a vote stands")
    check_reason(policy, verdict, reason)  # (7)
    return groups


def check_open(request: ApprovalRequest, *, now: datetime) -> None:
    """Raise `AlreadyDecidedError` unless `request` still waits for an answer at `now`."""
    if request.state is not State.PENDING:
        raise AlreadyDecidedError(
            f"request {request.id} is already {request.state}"
            + (f": {request.decided_because}" if request.decided_because else "")
        )
    if now >= request.expires_at:
        raise AlreadyDecidedError(
            f"request {request.id} expired at {request.expires_at:%Y-%m-%d %H:%M} UTC; "
            "run the task again to ask anew"
        )


def check_channel(request: ApprovalRequest, policy: Policy, channel: Channel) -> None:
    """Raise `VoteRefusedError` where a login of Airflow's own must stand behind the vote and does not."""
    # The page, the API and the CLI all carry an Airflow login; chat identities rest on a link or an e-mail.
    logged_in = channel in (Channel.PAGE, Channel.API, Channel.CLI)
    is_asker_known = bool(request.requesters) and (not request.origin or is_starter_known(request.origin))
    if not is_asker_known and not logged_in:
        raise VoteRefusedError(
            f"request {request.id} has no known requester, so it cannot be answered from {channel}; "
            "log in to Airflow and answer on the page"
        )
    if (
        policy.channels
        and channel.value not in policy.channels
        and not (logged_in and "page" in policy.channels)
    ):
        raise VoteRefusedError(
            f"policy {policy.name} takes answers from {', '.join(policy.channels)} only, not from {channel}"
        )


def check_reason(policy: Policy, verdict: Verdict, reason: str) -> None:
    """Raise `InvalidRequestError` where the policy wants a reason and there is none."""
    needed = policy.require_reason == "always" or (
        policy.require_reason == "on_deny" and verdict is Verdict.DENY
    )
    if needed and not reason.strip():
        raise InvalidRequestError(
            f"policy {policy.name} wants a reason for this answer; say why and send again"
        )
    check_text("reason", reason)


def check_text(what: str, text: str) -> None:
    """Raise `InvalidRequestError` for text that is too long or holds control characters."""
    if len(text) > MAX_TEXT:
        raise InvalidRequestError(f"{what}: at most {MAX_TEXT} characters, found {len(text)}; shorten it")
    if any(ord(char) < 32 and char not in "\n\t" for char in text):
        raise InvalidRequestError(f"{what}: control characters are not allowed; send plain text")


def add_vote(
    request: ApprovalRequest,
    vote: Vote,
    policy: Policy,
    policy_file: PolicyFile,
    variables: dict[str, object],
) -> ApprovalRequest:
    """Return `request` with the vote counted: denied by one deny, approved once every rule is met."""
    voted = replace(request, votes=(*request.votes, vote))
    if vote.verdict is Verdict.DENY:
        return move(voted, State.DENIED, now=vote.cast_at, because=f"denied by {vote.voter}")
    # `check_may_vote` keeps requesters from voting; a second lock, should a vote ever get past it.
    barred = () if policy.self_approval == "allowed" else request.requesters
    standing = progress.progress_of(policy, policy_file, voted.votes, variables, barred=barred)
    if not standing.is_met:
        return voted
    voters = ", ".join(vote.voter for vote in voted.votes)
    approved = move(voted, State.APPROVED, now=vote.cast_at, because=f"approved by {voters}")
    valid_for = timedelta(days=request.standing.days) if request.standing else policy.receipt_valid_for
    return replace(approved, receipt_expires_at=vote.cast_at + valid_for)


def add_question(request: ApprovalRequest, question: Question, *, now: datetime) -> ApprovalRequest:
    """Return `request` with an open question; the clock goes on."""
    check_open(request, now=now)
    check_text("question", question.text)
    if not question.text.strip():
        raise InvalidRequestError("question: expected some text, found none")
    return replace(request, questions=(*request.questions, question))


def add_answer(
    request: ApprovalRequest, question_id: int, *, answer: str, answered_by: str, now: datetime
) -> ApprovalRequest:
    """Return `request` with question `question_id` answered; an answer stands."""
    check_open(request, now=now)
    check_text("answer", answer)
    if not answer.strip():
        raise InvalidRequestError("answer: expected some text, found none")
    asked = {question.id: question for question in request.questions}
    if question_id not in asked:
        raise InvalidRequestError(
            f"request {request.id} has no question {question_id}; it has {sorted(asked) or 'none'}"
        )
    if asked[question_id].answer is not None:
        raise AlreadyDecidedError(f"question {question_id} of request {request.id} is already answered")
    asked[question_id] = replace(asked[question_id], answer=answer, answered_by=answered_by, answered_at=now)
    return replace(request, questions=tuple(asked.values()))


def check_may_cancel(request: ApprovalRequest, person: Person, policy_file: PolicyFile) -> None:
    """Raise `NotAllowedError` unless `person` asked for `request` or is an admin."""
    if person in request.requesters or ADMINS in progress.groups_of(policy_file, person):
        return
    raise NotAllowedError(
        f"{person} may not cancel request {request.id}: only its requester or a member of group {ADMINS} "
        "may; an approver may deny it"
    )


def check_may_revoke(
    request: ApprovalRequest, person: Person, policy: Policy | None, policy_file: PolicyFile
) -> None:
    """Raise `NotAllowedError` unless `person` is an approver now, has voted on it, or is an admin."""
    groups = progress.groups_of(policy_file, person)
    is_approver = policy is not None and bool(progress.approver_groups(policy_file, policy, person))
    if is_approver or ADMINS in groups or any(vote.voter == person for vote in request.votes):
        return
    raise NotAllowedError(
        f"{person} may not revoke request {request.id}: only an approver or a member of group {ADMINS} may"
    )


def redeem(request: ApprovalRequest, *, ti_id: str, digest: str, now: datetime) -> ApprovalRequest:
    """Return `request` with its receipt used up by `ti_id`, which may come again and gets the same.

    (1) what would be published is what was approved, (2) it was not used before, (3) the approval is live.
    """
    if request.standing is not None:
        raise NotApprovedError(
            f"request {request.id} is a standing approval: it answers the requests of later runs and moves "
            "nothing itself; run the task, its own request is approved by it"
        )
    if digest != request.action_digest:  # (1)
        raise DigestMismatchError(
            f"request {request.id}: approved was {request.action_digest}, found {digest}; "
            "what would move has changed: run the task again to ask for the new content"
        )
    if request.redeemed_by is not None:  # (2)
        if request.redeemed_by == ti_id and request.state is State.REDEEMED:
            return request
        raise ReceiptUsedError(
            f"request {request.id}: its receipt was used up by task instance {request.redeemed_by} "
            "and works once; run the task again to ask anew"
        )
    check_live(request, now=now)  # (3)
    redeemed = move(request, State.REDEEMED, now=now, because=request.decided_because)
    return replace(redeemed, redeemed_by=ti_id, redeemed_at=now, decided_at=request.decided_at)


def check_live(request: ApprovalRequest, *, now: datetime) -> None:
    """Raise unless `request` is approved and its receipt has not lapsed at `now`."""
    if request.state in (State.REVOKED, State.LAPSED):
        raise ReceiptGoneError(f"request {request.id} is {request.state}: {request.decided_because}")
    if request.state is not State.APPROVED or request.receipt_expires_at is None:
        raise NotApprovedError(f"request {request.id} is {request.state}, not approved")
    if now >= request.receipt_expires_at:
        raise ReceiptGoneError(
            f"request {request.id}: the approval was good until "
            f"{request.receipt_expires_at:%Y-%m-%d %H:%M:%S} UTC; run the task again to ask anew"
        )


def report_outcome(request: ApprovalRequest, outcome: Outcome, *, ti_id: str) -> ApprovalRequest:
    """Return `request` with what the write did; only the task instance that redeemed may say so, once."""
    if request.redeemed_by != ti_id:
        raise NotAllowedError(
            f"request {request.id}: task instance {ti_id} did not redeem it and cannot report its outcome"
        )
    if request.outcome is not None:
        if (request.outcome.published, request.outcome.digest) == (outcome.published, outcome.digest):
            return request
        raise AlreadyDecidedError(f"request {request.id} already has an outcome: {request.state}")
    # Whoever says to have published something else is taken at their word: that did not complete this.
    approved = {dataset.sha256 for dataset in request.evidence.datasets}
    as_approved = outcome.published and (not approved or outcome.digest in approved)
    to = State.COMPLETED if as_approved else State.FAILED
    moved = move(request, to, now=outcome.reported_at, because=request.decided_because)
    return replace(moved, outcome=outcome, decided_at=request.decided_at)
