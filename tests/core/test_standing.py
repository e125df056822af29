"""What stands, for how long, and what ends it: the rules, without a store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_approvals.core.break_glass import break_glass, review
from airflow_approvals.core.canonical import sha256_hex
from airflow_approvals.core.drift import check_can_be_watched, check_void_word, drifts_of
from airflow_approvals.core.errors import (
    AlreadyDecidedError,
    ApprovalsError,
    InvalidRequestError,
    NotAllowedError,
    NotApprovedError,
    ReceiptInvalidError,
    StaleRevisionError,
)
from airflow_approvals.core.expressions import expression_variables
from airflow_approvals.core.gate import redeem
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    Column,
    Evidence,
    FileDigest,
    GrantKind,
    Origin,
    Person,
    Snapshot,
    StandingTerms,
    State,
    Verdict,
    Vote,
    digest_of_action,
)
from airflow_approvals.core.policy import PolicyFile, digest_of_policy, parse_policy_file
from airflow_approvals.core.receipt import check_covers, sign_receipt, statement_of, verify_receipt
from airflow_approvals.core.signature import by_keyid
from airflow_approvals.core.standing import (
    Covers,
    CoversNot,
    Void,
    answer_of,
    approve_by,
    check_may_stand,
    terms_for,
)
from airflow_approvals.keys import load_signer

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WATCHED = ("schema", "mask_policy", "residual_pii", "entities", "rows > 1.2x", "bytes < 0.5x", "files > 2x")
POLICY = """
version: 1
groups:
  stewards: {users: [alice, bob, engineer]}
  security: {users: [carol]}
  oncall: {users: [dana, engineer]}
policies:
  - name: export
    match: {action: [export], destination: ["file:///outbox/**"]}
    require: [{group: stewards}, {group: security, when: "dataset.rows > 1000"}]
    standing: {max_days: 30, void_on: [schema, mask_policy, residual_pii, "rows > 1.2x"]}
    break_glass: {group: oncall}
"""
COLUMNS = (Column(name="id", type="int64"), Column(name="email", type="string"))
PII = {
    "dataset_sha256": "a" * 64,
    "scanned": True,
    "verified": True,
    "residual": 0,
    "entities": {},
    "rules_digest": "r" * 64,
}


def a_file(text: str = POLICY) -> PolicyFile:
    return parse_policy_file(text, name="policy.yaml")


def evidence(
    rows: int = 1000, columns: tuple[Column, ...] = COLUMNS, size: int = 4000, files: int = 1, **pii: Any
) -> Evidence:
    found = {**PII, **pii}
    return Evidence(
        datasets=(
            Snapshot(
                uri="file:///staged/day.parquet",
                format="parquet",
                sha256="a" * 64,
                size=size,
                rows=rows,
                columns=columns,
                schema_sha256=sha256_hex(repr(columns).encode()),
                files=tuple(FileDigest(name=f"p{n}", sha256="a" * 64, size=size) for n in range(files)),
            ),
        ),
        pii=found,
    )


def a_run(
    found: Evidence | None = None, *, requesters: tuple[str, ...] = ("engineer",), **changes: Any
) -> ApprovalRequest:
    found = found or evidence()
    action = changes.pop("action", Action(kind="export", destination="file:///outbox/day.parquet"))
    policy = a_file().policies[0]
    request = ApprovalRequest(
        id="run",
        revision=1,
        state=State.PENDING,
        action=action,
        evidence=found,
        action_digest=digest_of_action(action, found),
        gate="",
        opened_by="worker",
        requesters=tuple(Person(name) for name in requesters),
        origin=Origin(
            ti_id="ti",
            dag_id="nightly",
            run_id="r1",
            task_id="publish",
            map_index=-1,
            try_number=1,
            run_type="scheduled",
            state="running",
        ),
        policy=policy.name,
        policy_digest=digest_of_policy(policy),
        opened_at=NOON,
        expires_at=NOON + timedelta(hours=4),
    )
    return replace(request, **changes)


def a_vote(voter: str, channel: Channel = Channel.PAGE) -> Vote:
    return Vote(
        voter=Person(voter),
        verdict=Verdict.APPROVE,
        reason="",
        channel=channel,
        cast_at=NOON,
        revision=1,
        shown_digest="d" * 64,
        groups=("stewards",),
    )


def a_standing(*voters: str, channel: Channel = Channel.PAGE, **changes: Any) -> ApprovalRequest:
    approved = a_run(state=State.COMPLETED)
    terms = terms_for(approved, days=10)
    digest = digest_of_action(approved.action, approved.evidence, terms)
    standing = replace(
        approved,
        id="standing",
        state=State.APPROVED,
        origin=None,
        standing=terms,
        votes=tuple(replace(a_vote(voter, channel), shown_digest=digest) for voter in voters or ("alice",)),
        action_digest=digest,
        receipt_expires_at=NOON + timedelta(days=10),
    )
    return replace(standing, **changes)


def answer(
    standing: ApprovalRequest, run: ApprovalRequest, text: str = POLICY, *, at: datetime = NOON
) -> Covers | CoversNot | Void:
    policy_file = a_file(text)
    variables = expression_variables(run.action, run.evidence, run.requesters)
    return answer_of(standing, run, policy_file.policies[0], policy_file, variables, now=at)


# --- drift -----------------------------------------------------------------------------------------------

DRIFTS: dict[str, tuple[Evidence, tuple[str, ...]]] = {
    "nothing": (evidence(), ()),
    "rows at the bound": (evidence(rows=1200), ()),
    "rows beyond it": (evidence(rows=1201), ("rows > 1.2x",)),
    "fewer rows": (evidence(rows=1), ()),
    "bytes at the bound": (evidence(size=2000), ()),
    "bytes below it": (evidence(size=1999), ("bytes < 0.5x",)),
    "more files": (evidence(files=3), ("files > 2x",)),
    "a column more": (evidence(columns=(*COLUMNS, Column(name="phone", type="string"))), ("schema",)),
    "a column less": (evidence(columns=COLUMNS[:1]), ("schema",)),
    "another type": (evidence(columns=(COLUMNS[0], Column(name="email", type="binary"))), ("schema",)),
    "another order": (evidence(columns=COLUMNS[::-1]), ("schema",)),
    "other masking rules": (evidence(rules_digest="x" * 64), ("mask_policy",)),
    "masking rules not known": (evidence(rules_digest=None), ("mask_policy",)),
    "something left": (evidence(residual=1), ("residual_pii",)),
    "left is not known": (evidence(residual=None), ("residual_pii",)),
    "not verified": (evidence(verified=False), ("residual_pii",)),
    "not scanned": (evidence(scanned=False), ("residual_pii", "entities")),
    "a new kind of entity": (evidence(entities={"IBAN_CODE": 3}), ("entities",)),
    "no dataset": (
        Evidence(pii=PII),
        ("schema", "rows > 1.2x", "bytes < 0.5x", "files > 2x"),
    ),
    "nothing known at all": (Evidence(), WATCHED),
}


@pytest.mark.parametrize(("found", "expected"), DRIFTS.values(), ids=DRIFTS.keys())
def test_drift_is_found_and_named_and_the_unknown_has_drifted(
    found: Evidence, expected: tuple[str, ...]
) -> None:
    drifted = drifts_of(WATCHED, evidence(), found)
    assert {drift.watched for drift in drifted} == set(expected)
    assert all(drift.was and drift.now and drift.was != drift.now for drift in drifted) or found == Evidence()


def test_drift_in_words_names_columns_and_counts() -> None:
    found = evidence(rows=5000, columns=(COLUMNS[0], Column(name="phone", type="string")))
    told = {drift.watched: (drift.was, drift.now) for drift in drifts_of(WATCHED, evidence(), found)}
    assert told["rows > 1.2x"] == ("1,000", "5,000")
    assert told["schema"][1] == "parquet of 2 columns: without email, with phone"


@settings(deadline=None)
@given(was=st.integers(0, 10**6), now=st.integers(0, 10**6), tenths=st.integers(10, 99))
def test_a_count_is_held_against_the_approved_one_exactly(was: int, now: int, tenths: int) -> None:
    word = f"rows > {tenths / 10}x"
    drifted = drifts_of((word,), evidence(rows=was), evidence(rows=now))
    assert bool(drifted) == (now * 10 > was * tenths)


@pytest.mark.parametrize(
    "word", ["rows", "rows > 0.9x", "rows < 1.1x", "rows>2x", "cells > 2x", "", "rows > x"]
)
def test_a_void_word_that_means_nothing_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        check_void_word(word)


@pytest.mark.parametrize("word", WATCHED)
def test_every_void_word_can_be_said(word: str) -> None:
    assert check_void_word(word) == word


def test_what_the_approved_evidence_does_not_tell_cannot_be_watched() -> None:
    check_can_be_watched(WATCHED, evidence())
    with pytest.raises(InvalidRequestError, match="residual_pii"):
        check_can_be_watched(WATCHED, evidence(verified=False))
    with pytest.raises(InvalidRequestError, match="mask_policy"):
        check_can_be_watched(("mask_policy",), Evidence())


# --- what can stand --------------------------------------------------------------------------------------

NO_TERMS: dict[str, ApprovalRequest] = {
    "never approved": a_run(),
    "denied": a_run(state=State.DENIED),
    "of no DAG": a_run(state=State.COMPLETED, origin=None),
    "a standing one itself": a_standing(),
    "approved by a standing one": a_run(
        state=State.COMPLETED, granted=answer(a_standing(), a_run()).grant  # type: ignore[union-attr]  # it covers it
    ),
}  # fmt: skip


@pytest.mark.parametrize("prior", NO_TERMS.values(), ids=NO_TERMS.keys())
def test_only_a_run_that_people_have_approved_can_stand(prior: ApprovalRequest) -> None:
    with pytest.raises(InvalidRequestError):
        terms_for(prior, days=10)


def test_the_policy_bounds_the_days_and_must_know_standing_approvals() -> None:
    policy = a_file().policies[0]
    terms = terms_for(a_run(state=State.COMPLETED), days=30)
    check_may_stand(policy, terms, evidence())
    for days in (0, 31):
        with pytest.raises(InvalidRequestError, match="1 to 30 days"):
            check_may_stand(policy, replace(terms, days=days), evidence())
    with pytest.raises(NotAllowedError):
        check_may_stand(policy.model_copy(update={"standing": None}), terms, evidence())


@pytest.mark.parametrize("glob", ["file:///elsewhere/**", "file:///outbox/*.csv", "file:///outbox/[a]"])
def test_a_glob_must_cover_what_was_approved(glob: str) -> None:
    with pytest.raises(InvalidRequestError):
        terms_for(a_run(state=State.COMPLETED), days=1, destination=glob)


# --- what it answers -------------------------------------------------------------------------------------


def test_the_same_action_with_undrifted_evidence_is_covered_and_names_whose_votes_count() -> None:
    found = answer(a_standing("alice", "bob"), a_run(evidence(rows=999)))
    assert isinstance(found, Covers)
    assert (found.grant.kind, found.grant.standing_id, found.grant.by) == (
        GrantKind.STANDING,
        "standing",
        ("alice",),
    )


NOT_COVERED: dict[str, tuple[ApprovalRequest, ApprovalRequest]] = {
    "another destination": (
        a_standing(),
        a_run(action=Action(kind="export", destination="file:///outbox/x")),
    ),
    "another kind": (a_standing(), a_run(action=Action(kind="delete", destination="file:///outbox/day.parquet"))),
    "other parameters": (
        a_standing(),
        a_run(action=Action(kind="export", destination="file:///outbox/day.parquet", parameters={"x": 1})),
    ),
    "a parameter that Python takes for the same": (
        a_standing(action=replace(a_run().action, parameters={"x": 1})),
        a_run(action=replace(a_run().action, parameters={"x": True})),
    ),
    "another task": (a_standing(), a_run(origin=replace(a_run().origin, task_id="other"))),  # type: ignore[type-var]  # it has one
    "another gate": (a_standing(), a_run(gate="second")),
    "asked for by a person": (a_standing(), a_run(origin=None)),
    "not decided yet": (a_standing(state=State.PENDING, receipt_expires_at=None), a_run()),
    "taken back": (a_standing(state=State.REVOKED), a_run()),
    "its voter started the run": (a_standing("alice"), a_run(requesters=("alice",))),
    "a rule applies now that did not": (a_standing("alice"), a_run(evidence(rows=1100))),
    "nobody known has started it, and the vote came by chat": (
        a_standing(channel=Channel.SLACK),
        a_run(requesters=()),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("standing", "run"), NOT_COVERED.values(), ids=NOT_COVERED.keys())
def test_what_it_was_not_given_for_has_to_ask_and_it_goes_on_standing(
    standing: ApprovalRequest, run: ApprovalRequest
) -> None:
    assert isinstance(answer(standing, run), CoversNot)


def test_with_enough_votes_the_rule_that_applies_now_is_met_too() -> None:
    assert isinstance(answer(a_standing("alice", "carol"), a_run(evidence(rows=1100))), Covers)


def test_whoever_left_the_group_does_not_count_any_more() -> None:
    text = POLICY.replace("[alice, bob, engineer]", "[bob, engineer]")
    assert isinstance(answer(a_standing("alice"), a_run(), text), CoversNot)


def test_a_glob_covers_the_next_days_destination_and_no_other_place() -> None:
    terms = terms_for(a_run(state=State.COMPLETED), days=5, destination="file:///outbox/*.parquet")
    standing = a_standing(standing=terms)
    tomorrow = Action(kind="export", destination="file:///outbox/tomorrow.parquet", justification="later")
    deeper = Action(kind="export", destination="file:///outbox/x/tomorrow.parquet")
    assert isinstance(answer(standing, a_run(action=tomorrow)), Covers)
    assert isinstance(answer(standing, a_run(action=deeper)), CoversNot)


def test_drift_ends_it_and_says_what_drifted() -> None:
    found = answer(a_standing("alice", "carol"), a_run(evidence(rows=5000)))
    assert isinstance(found, Void)
    assert found.because == "voided by drift: rows > 1.2x: 1,000, now 5,000"


@pytest.mark.parametrize(
    "change", [("30", "31"), ("rows > 1000", "rows > 999"), ("    break", "    notify: []\n    break")]
)
def test_any_change_of_the_policy_ends_it(change: tuple[str, str]) -> None:
    text = POLICY.replace(*change, 1)
    changed = digest_of_policy(a_file(text).policies[0]) != digest_of_policy(a_file().policies[0])
    assert isinstance(answer(a_standing(), a_run(), text), Void if changed else Covers)


@settings(deadline=None)
@given(hours=st.integers(0, 24 * 20))
def test_it_answers_until_its_days_are_over_and_never_after(hours: int) -> None:
    at = NOON + timedelta(hours=hours)
    assert isinstance(answer(a_standing(), a_run(), at=at), Covers if hours < 240 else CoversNot)


@settings(deadline=None)
@given(rows=st.lists(st.integers(900, 1400), min_size=1, max_size=12))
def test_small_steps_do_not_add_up_unseen(rows: list[int]) -> None:
    """However the runs creep, each is held against the evidence that was approved, not against the last."""
    standing = a_standing("alice", "carol")
    for count in rows:
        found = answer(standing, a_run(evidence(rows=count)))
        assert isinstance(found, Covers if count <= 1200 else Void)


# --- receipts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_signer("", home=tmp_path_factory.mktemp("keys"))


def test_a_runs_receipt_is_over_its_own_bytes_and_names_the_standing_approval(signer: Any) -> None:
    keys = by_keyid([signer.public_key])
    standing = a_standing()
    signed = sign_receipt(
        statement_of(standing, decided_at=NOON, not_after=NOON + timedelta(days=10)), signer
    )
    run = a_run(evidence(rows=900))
    found = answer(replace(standing, receipt=signed), run)
    assert isinstance(found, Covers)
    approved = approve_by(run, found.grant, a_file().policies[0], now=NOON)
    assert approved.receipt_expires_at == NOON + timedelta(minutes=30)
    receipt = verify_receipt(
        sign_receipt(statement_of(approved, decided_at=NOON, not_after=NOON + timedelta(hours=1)), signer),
        keys,
    )
    check_covers(receipt, action_digest=run.action_digest, now=NOON)
    assert receipt.grant == found.grant
    assert receipt.grant.standing_receipt_sha256 == verify_receipt(signed, keys).payload_sha256
    assert receipt.standing is None


def test_a_standing_approval_moves_nothing_itself(signer: Any) -> None:
    standing = a_standing()
    with pytest.raises(NotApprovedError, match="standing"):
        redeem(standing, ti_id="ti", digest=standing.action_digest, now=NOON)
    receipt = verify_receipt(
        sign_receipt(statement_of(standing, decided_at=NOON, not_after=NOON + timedelta(days=10)), signer),
        by_keyid([signer.public_key]),
    )
    assert receipt.standing == standing.standing
    for digest in (standing.action_digest, a_run().action_digest):
        with pytest.raises(ReceiptInvalidError):
            check_covers(receipt, action_digest=digest, now=NOON)


def test_who_votes_on_a_standing_approval_has_been_shown_its_terms() -> None:
    run, terms = a_run(), terms_for(a_run(state=State.COMPLETED), days=10)
    digests = {
        digest_of_action(run.action, run.evidence, each) for each in (None, terms, replace(terms, days=9))
    }
    assert len(digests) == 3


# --- break glass -----------------------------------------------------------------------------------------


def broken(request: ApprovalRequest, person: str = "dana", **changes: Any) -> ApprovalRequest:
    policy_file = a_file(changes.pop("text", POLICY))
    said: dict[str, Any] = {
        "reason": "the partner is down",
        "revision": 1,
        "channel": Channel.CLI,
        "now": NOON,
        **changes,
    }
    return break_glass(request, Person(person), policy_file.policies[0], policy_file, **said)


def test_one_member_with_a_reason_grants_at_once_and_is_named() -> None:
    granted = broken(a_run())
    assert (granted.state, granted.decided_because) == (
        State.APPROVED,
        "break glass by dana: the partner is down",
    )
    assert granted.granted is not None
    assert (granted.granted.kind, granted.granted.by) == (GrantKind.BREAK_GLASS, ("dana",))
    assert granted.receipt_expires_at == NOON + timedelta(minutes=30)


GLASS_HOLDS: dict[str, tuple[type[ApprovalsError], ApprovalRequest, dict[str, Any]]] = {
    "not a member": (NotAllowedError, a_run(), {"person": "alice"}),
    "no such group in the policy": (
        NotAllowedError,
        a_run(),
        {"text": POLICY.replace("    break_glass: {group: oncall}\n", "")},
    ),
    "their own request": (NotAllowedError, a_run(), {"person": "engineer"}),
    "no reason": (InvalidRequestError, a_run(), {"reason": "  "}),
    "from a chat": (NotAllowedError, a_run(), {"channel": Channel.SLACK}),
    "not what was seen": (StaleRevisionError, a_run(revision=2), {}),
    "too late": (ApprovalsError, a_run(), {"now": NOON + timedelta(hours=4)}),
    "already denied": (ApprovalsError, a_run(state=State.DENIED), {}),
    "a standing approval": (
        InvalidRequestError,
        a_run(standing=StandingTerms(approved_id="x", days=1, dag_id="d", task_id="t", gate="")),
        {},
    ),
}


@pytest.mark.parametrize(("error", "request_", "said"), GLASS_HOLDS.values(), ids=GLASS_HOLDS.keys())
def test_the_glass_holds(
    error: type[ApprovalsError], request_: ApprovalRequest, said: dict[str, Any]
) -> None:
    with pytest.raises(error):
        broken(request_, **said)


def looked_at(request: ApprovalRequest, person: str = "alice", **changes: Any) -> ApprovalRequest:
    policy_file = a_file(POLICY)
    said: dict[str, Any] = {"remark": "the partner confirmed it", "now": NOON, **changes}
    return review(request, Person(person), policy_file.policies[0], policy_file, **said)


def test_somebody_else_looks_at_an_emergency_afterwards_and_the_grant_stays_what_it_is() -> None:
    granted = broken(a_run())
    seen = looked_at(granted, remark=" the partner confirmed it ")
    assert seen.review is not None
    assert (seen.review.by, seen.review.at, seen.review.remark) == ("alice", NOON, "the partner confirmed it")
    assert replace(seen, review=None) == granted
    assert looked_at(replace(granted, state=State.COMPLETED)).state is State.COMPLETED


NO_REVIEW: dict[str, tuple[type[ApprovalsError], ApprovalRequest, dict[str, Any]]] = {
    "who broke the glass": (NotAllowedError, broken(a_run()), {"person": "dana"}),
    "who broke it and is an approver too": (
        NotAllowedError,
        broken(
            a_run(), "alice", text=POLICY.replace("oncall: {users: [dana", "oncall: {users: [alice, dana")
        ),
        {"person": "alice"},
    ),
    "who asked": (NotAllowedError, broken(a_run()), {"person": "engineer"}),
    "a stranger": (NotAllowedError, broken(a_run()), {"person": "mallory"}),
    "twice": (AlreadyDecidedError, looked_at(broken(a_run())), {"person": "bob"}),
    "no emergency": (InvalidRequestError, a_run(state=State.APPROVED), {}),
    "control characters": (InvalidRequestError, broken(a_run()), {"remark": "a\x00b"}),
}


@pytest.mark.parametrize(("error", "request_", "said"), NO_REVIEW.values(), ids=NO_REVIEW.keys())
def test_a_review_is_somebody_elses_and_done_once(
    error: type[ApprovalsError], request_: ApprovalRequest, said: dict[str, Any]
) -> None:
    with pytest.raises(error):
        looked_at(request_, **said)
