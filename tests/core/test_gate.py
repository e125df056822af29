"""The state machine of a request: only the moves of the design, whatever is tried in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_approvals.core import gate
from airflow_approvals.core.errors import (
    AlreadyDecidedError,
    ApprovalsError,
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
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    Evidence,
    Origin,
    Outcome,
    Person,
    Question,
    State,
    Verdict,
    Vote,
    digest_of_action,
)
from airflow_approvals.core.policy import parse_policy_file

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FILE = parse_policy_file(
    """
version: 1
groups:
  stewards: {users: [alice, bob, engineer]}
  security: {users: [carol, bob]}
  admins: {users: [root]}
policies:
  - name: two
    match: {action: [export]}
    require: [{group: stewards}, {group: security}]
    require_reason: on_deny
    expires_after: 4h
    receipt_valid_for: 30m
  - name: self
    match: {action: [write]}
    require: [{group: stewards}]
    self_approval: allowed
    require_reason: always
    channels: [slack]
""",
    name="policy.yaml",
)
POLICY = FILE.policies[0]
ACTION = Action(kind="export", destination="file:///outbox/a.csv")
DIGEST = digest_of_action(ACTION, Evidence())


STARTED_BY_NOBODY = Origin(
    ti_id="t1",
    dag_id="export",
    run_id="manual__1",
    task_id="publish",
    map_index=-1,
    try_number=1,
    run_type="manual",
    state="running",
    owners=("owner",),
)


def a_request(**changes: Any) -> ApprovalRequest:
    fields: dict[str, Any] = {
        "id": "r1",
        "revision": 1,
        "state": State.PENDING,
        "action": ACTION,
        "evidence": Evidence(),
        "action_digest": DIGEST,
        "gate": "",
        "opened_by": "worker",
        "requesters": (Person("engineer"),),
        "origin": None,
        "policy": "two",
        "policy_digest": "0" * 64,
        "opened_at": NOON,
        "expires_at": NOON + timedelta(hours=4),
    }
    return ApprovalRequest(**{**fields, **changes})


def approved(**changes: Any) -> ApprovalRequest:
    fields = {"state": State.APPROVED, "receipt_expires_at": NOON + timedelta(minutes=30)}
    return a_request(**{**fields, **changes})


def check(request: ApprovalRequest, voter: str = "alice", **changes: Any) -> tuple[str, ...]:
    fields: dict[str, Any] = {
        "verdict": Verdict.APPROVE,
        "channel": Channel.PAGE,
        "revision": 1,
        "reason": "",
        "now": NOON,
        "policy": POLICY,
    }
    fields.update(changes)
    policy = fields.pop("policy")
    return gate.check_may_vote(request, Person(voter), policy, FILE, **fields)


def a_vote(voter: str, verdict: Verdict = Verdict.APPROVE) -> Vote:
    return Vote(
        voter=Person(voter),
        verdict=verdict,
        reason="",
        channel=Channel.PAGE,
        cast_at=NOON,
        revision=1,
        shown_digest=DIGEST,
        groups=(),
    )


REFUSED_VOTES: dict[str, tuple[ApprovalRequest, dict[str, Any], type[ApprovalsError]]] = {
    "already decided": (approved(), {}, AlreadyDecidedError),
    "expired": (a_request(), {"now": NOON + timedelta(hours=4)}, AlreadyDecidedError),
    "another revision": (a_request(revision=2), {}, StaleRevisionError),
    "not an approver": (a_request(), {"voter": "mallory"}, VoteRefusedError),
    "an admin who is no approver": (a_request(), {"voter": "root"}, VoteRefusedError),
    "the requester": (a_request(), {"voter": "engineer"}, VoteRefusedError),
    "the requester denies": (
        a_request(),
        {"voter": "engineer", "verdict": Verdict.DENY, "reason": "no"},
        VoteRefusedError,
    ),
    "a second vote": (a_request(votes=(a_vote("alice"),)), {}, AlreadyDecidedError),
    "a deny without a reason": (a_request(), {"verdict": Verdict.DENY, "reason": " "}, InvalidRequestError),
    "a reason without end": (a_request(), {"reason": "x" * 2001}, InvalidRequestError),
    "a reason with control characters": (a_request(), {"reason": "a\x1b[2J"}, InvalidRequestError),
    "a chat answers for an unknown requester": (
        a_request(requesters=()),
        {"channel": Channel.SLACK},
        VoteRefusedError,
    ),
    "a chat answers for a run that nobody known has started": (
        a_request(origin=STARTED_BY_NOBODY, requesters=(Person("owner"),)),
        {"channel": Channel.SLACK},
        VoteRefusedError,
    ),
    "a channel that the policy does not take": (
        a_request(),
        {"policy": FILE.policies[1], "reason": "why"},
        VoteRefusedError,
    ),
}


@pytest.mark.parametrize(("request_", "changes", "refusal"), REFUSED_VOTES.values(), ids=REFUSED_VOTES.keys())
def test_a_vote_that_must_not_count_is_refused(
    request_: ApprovalRequest, changes: dict[str, Any], refusal: type[ApprovalsError]
) -> None:
    with pytest.raises(refusal):
        check(request_, **changes)


def test_an_approver_who_saw_this_revision_may_vote() -> None:
    assert check(a_request()) == ("stewards",)
    assert check(a_request(), "bob") == ("stewards", "security")


def test_self_approval_counts_only_where_the_policy_says_so_and_never_to_deny() -> None:
    policy = FILE.policies[1]
    by_slack = {"policy": policy, "channel": Channel.SLACK, "reason": "small fix"}
    assert check(a_request(), "engineer", **by_slack) == ("stewards",)
    with pytest.raises(VoteRefusedError):
        check(a_request(), "engineer", **by_slack, verdict=Verdict.DENY)


def test_one_deny_denies_and_the_last_rule_approves() -> None:
    denied = gate.add_vote(a_request(), a_vote("alice", Verdict.DENY), POLICY, FILE, {})
    assert denied.state is State.DENIED
    first = gate.add_vote(a_request(), a_vote("alice"), POLICY, FILE, {})
    assert first.state is State.PENDING
    second = gate.add_vote(first, a_vote("bob"), POLICY, FILE, {})
    assert second.state is State.APPROVED
    assert second.receipt_expires_at == NOON + timedelta(minutes=30)


def test_a_requesters_vote_that_slipped_in_does_not_count() -> None:
    slipped = a_request(votes=(a_vote("engineer"),))
    assert gate.add_vote(slipped, a_vote("carol"), POLICY, FILE, {}).state is State.PENDING


REFUSED_REDEEMS: dict[str, tuple[ApprovalRequest, dict[str, Any], type[ApprovalsError]]] = {
    "other content": (approved(), {"digest": "0" * 64}, DigestMismatchError),
    "pending": (a_request(), {}, NotApprovedError),
    "denied": (a_request(state=State.DENIED), {}, NotApprovedError),
    "expired": (a_request(state=State.EXPIRED), {}, NotApprovedError),
    "revoked": (approved(state=State.REVOKED), {}, ReceiptGoneError),
    "lapsed": (approved(state=State.LAPSED), {}, ReceiptGoneError),
    "past its life": (approved(), {"now": NOON + timedelta(minutes=30)}, ReceiptGoneError),
    "approved without an end": (approved(receipt_expires_at=None), {}, NotApprovedError),
    "used by another": (approved(state=State.REDEEMED, redeemed_by="t2"), {}, ReceiptUsedError),
    "completed": (approved(state=State.COMPLETED, redeemed_by="t1"), {}, ReceiptUsedError),
    "failed": (approved(state=State.FAILED, redeemed_by="t1"), {}, ReceiptUsedError),
}


@pytest.mark.parametrize(
    ("request_", "changes", "refusal"), REFUSED_REDEEMS.values(), ids=REFUSED_REDEEMS.keys()
)
def test_a_receipt_that_must_not_be_used_is_refused(
    request_: ApprovalRequest, changes: dict[str, Any], refusal: type[ApprovalsError]
) -> None:
    with pytest.raises(refusal):
        gate.redeem(request_, **{"ti_id": "t1", "digest": DIGEST, "now": NOON, **changes})


def test_only_who_redeemed_may_report_and_only_one_outcome() -> None:
    redeemed = gate.redeem(approved(), ti_id="t1", digest=DIGEST, now=NOON)
    done = Outcome(published=True, digest=DIGEST, reported_at=NOON)
    with pytest.raises(NotAllowedError):
        gate.report_outcome(redeemed, done, ti_id="t2")
    completed = gate.report_outcome(redeemed, done, ti_id="t1")
    assert gate.report_outcome(completed, done, ti_id="t1") is completed
    with pytest.raises(AlreadyDecidedError):
        gate.report_outcome(completed, Outcome(published=False, reported_at=NOON), ti_id="t1")


def test_only_requesters_and_admins_cancel_and_only_approvers_and_admins_revoke() -> None:
    request = a_request()
    for name in ("engineer", "root"):
        gate.check_may_cancel(request, Person(name), FILE)
    for name in ("alice", "carol", "root"):
        gate.check_may_revoke(request, Person(name), POLICY, FILE)
    with pytest.raises(NotAllowedError):
        gate.check_may_cancel(request, Person("alice"), FILE)
    with pytest.raises(NotAllowedError):
        gate.check_may_revoke(request, Person("mallory"), POLICY, FILE)


QUESTION = Question(id=1, asked_by=Person("alice"), asked_at=NOON, text="why?", channel=Channel.PAGE)


def test_a_question_is_answered_once_while_the_request_is_open() -> None:
    asked = gate.add_question(a_request(), QUESTION, now=NOON)
    answered = gate.add_answer(asked, 1, answer="month end", answered_by="engineer", now=NOON)
    assert answered.questions[0].answer == "month end"
    with pytest.raises(AlreadyDecidedError):
        gate.add_answer(answered, 1, answer="again", answered_by="engineer", now=NOON)
    with pytest.raises(InvalidRequestError):
        gate.add_answer(asked, 2, answer="x", answered_by="engineer", now=NOON)
    with pytest.raises(InvalidRequestError):
        gate.add_answer(asked, 1, answer=" ", answered_by="engineer", now=NOON)
    with pytest.raises(AlreadyDecidedError):
        gate.add_question(approved(), QUESTION, now=NOON)


ALLOWED = {
    (State.PENDING, State.APPROVED),
    (State.PENDING, State.DENIED),
    (State.PENDING, State.EXPIRED),
    (State.PENDING, State.CANCELLED),
    (State.PENDING, State.SUPERSEDED),
    (State.APPROVED, State.REDEEMED),
    (State.APPROVED, State.REVOKED),
    (State.APPROVED, State.LAPSED),
    (State.REDEEMED, State.COMPLETED),
    (State.REDEEMED, State.FAILED),
}


@pytest.mark.parametrize("start", State)
@pytest.mark.parametrize("to", State)
def test_there_are_no_moves_but_those_of_the_design(start: State, to: State) -> None:
    request = a_request(state=start)
    if (start, to) in ALLOWED:
        assert gate.move(request, to, now=NOON, because="x").state is to
        return
    with pytest.raises(TransitionError):
        gate.move(request, to, now=NOON, because="x")


PEOPLE = ["alice", "bob", "carol", "engineer", "mallory"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("vote"), st.sampled_from(PEOPLE), st.sampled_from(Verdict)),
        st.tuples(st.just("move"), st.sampled_from(State), st.none()),
        st.tuples(st.just("redeem"), st.sampled_from(["t1", "t2"]), st.sampled_from([DIGEST, "0" * 64])),
        st.tuples(st.just("report"), st.sampled_from(["t1", "t2"]), st.booleans()),
        st.tuples(st.just("later"), st.integers(1, 300), st.none()),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_whatever_is_tried_a_redeemed_request_was_approved_by_enough_others(steps: list[Any]) -> None:
    request, now = a_request(), NOON
    for kind, first, second in steps:
        before = request
        if kind == "later":
            now += timedelta(minutes=first)
            continue
        try:
            request = _try(request, kind, first, second, now)
        except ApprovalsError:
            assert request is before
        if request.state is not before.state:
            assert (before.state, request.state) in ALLOWED
        if request.state is State.REDEEMED and before.state is not State.REDEEMED:
            voters = {vote.voter for vote in request.votes if vote.verdict is Verdict.APPROVE}
            assert len(voters) >= 2
            assert voters <= {"alice", "bob", "carol"}
            assert voters & {"carol", "bob"}
            assert now < (request.receipt_expires_at or now)


def _try(request: ApprovalRequest, kind: str, first: Any, second: Any, now: datetime) -> ApprovalRequest:
    if kind == "vote":
        check(request, first, verdict=second, reason="why", now=now)
        return gate.add_vote(request, a_vote(first, second), POLICY, FILE, {})
    if kind == "move":
        # Approval comes from votes and redemption from a task; time and people make the other moves.
        if first in (State.APPROVED, State.REDEEMED):
            raise TransitionError
        return gate.move(request, first, now=now, because="x")
    if kind == "redeem":
        return gate.redeem(request, ti_id=first, digest=second, now=now)
    outcome = Outcome(published=second, reported_at=now)
    return gate.report_outcome(request, outcome, ti_id=first)
