"""Standing approvals and break glass through the service: in whatever order, the rules hold."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_approvals.core.errors import (
    AlreadyDecidedError,
    ApprovalsError,
    NoPolicyError,
    NotAllowedError,
    NotApprovedError,
    VoteRefusedError,
)
from airflow_approvals.core.model import ApprovalRequest, GrantKind, Person, State, Verdict
from airflow_approvals.core.receipt import check_covers, verify_receipt
from airflow_approvals.core.signature import by_keyid
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from tests.evidence.conftest import POLICY, Office, an_export


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    home = tmp_path_factory.mktemp("standing")
    found = create_store(f"sqlite:///{home / 'airflow.db'}")
    create_tables(found.engine)
    yield found
    found.close()


@pytest.fixture
def office(store: SqlStore, tmp_path: Path) -> Office:
    return Office(store, tmp_path)


@pytest.fixture
def place() -> str:
    """A destination of this test's own: standing approvals of others are for other actions."""
    return f"daily-{uuid4().hex[:8]}"


def approved(office: Office, place: str) -> ApprovalRequest:
    ti_id, request = office.ask(an_export(place))
    request = office.vote("alice", request)
    office.publish(ti_id, request)
    return office.store.get_request(request.id)


def test_the_next_run_needs_no_prompt_and_gets_a_receipt_of_its_own(office: Office, place: str) -> None:
    standing = office.stands(approved(office, place))
    assert standing.state is State.APPROVED
    assert standing.receipt_expires_at == office.now + timedelta(days=10)
    office.later(days=9)
    ti_id, run = office.ask(an_export(place, rows=1200))
    assert (run.state, run.votes) == (State.APPROVED, ())
    assert run.granted is not None
    assert (run.granted.kind, run.granted.standing_id, run.granted.by) == (
        GrantKind.STANDING,
        standing.id,
        ("alice",),
    )
    kinds = [entry["kind"] for entry in office.entries(run.id)]
    assert kinds == ["request.opened", "request.approved"]
    assert office.entries(run.id)[1]["data"]["granted"]["standing_id"] == standing.id
    receipt = verify_receipt(run.receipt, by_keyid([office.signer.public_key]))
    check_covers(receipt, action_digest=run.action_digest, now=office.now)
    assert {subject.sha256 for subject in receipt.subjects} == {run.evidence.datasets[0].sha256}
    office.publish(ti_id, run)
    assert office.store.get_request(run.id).state is State.COMPLETED


def test_drift_voids_it_and_asks_again_with_what_drifted(office: Office, place: str) -> None:
    standing = office.stands(approved(office, place))
    _, run = office.ask(an_export(place, rows=1201))
    assert (run.state, run.voided) == (State.PENDING, standing.id)
    assert [(drift.watched, drift.was, drift.now) for drift in run.drift] == [
        ("rows > 1.2x", "1,000", "1,201")
    ]
    ended = office.store.get_request(standing.id)
    assert (ended.state, ended.decided_because) == (
        State.REVOKED,
        "voided by drift: rows > 1.2x: 1,000, now 1,201",
    )
    assert office.entries(standing.id)[-1]["data"]["voided_by"] == run.id
    _, again = office.ask(an_export(place))  # back to what it was: it stays void
    assert again.state is State.PENDING


def test_its_days_end_it(office: Office, place: str) -> None:
    standing = office.stands(approved(office, place))
    office.later(days=10)
    _, run = office.ask(an_export(place))
    assert run.state is State.PENDING
    office.service.expire_due(now=office.now)
    ended = office.store.get_request(standing.id)
    assert (ended.state, ended.decided_because) == (State.LAPSED, "stood for its 10 days")


def test_an_approver_can_end_it(office: Office, place: str) -> None:
    standing = office.stands(approved(office, place))
    office.service.revoke(Person("bob"), standing.id, reason="audit", now=office.now)
    assert office.ask(an_export(place))[1].state is State.PENDING


def test_a_changed_policy_ends_it_even_before_a_run_asks(office: Office, place: str) -> None:
    standing = office.stands(approved(office, place))
    office.policies.use(POLICY.replace("30m", "31m"))
    _, run = office.ask(an_export(place))
    assert (run.state, run.voided) == (State.PENDING, standing.id)
    assert [drift.watched for drift in run.drift] == ["policy"]


def test_whose_vote_it_rests_on_cannot_start_a_run_that_it_lets_out(office: Office, place: str) -> None:
    standing = office.stands(approved(office, place))
    _, run = office.ask(an_export(place), triggering_user="alice")
    assert run.state is State.PENDING
    assert office.store.get_request(standing.id).state is State.APPROVED  # it goes on standing for others


def test_who_asks_for_it_and_who_asked_for_the_run_cannot_vote_on_it(office: Office, place: str) -> None:
    request = approved(office, place)
    opened = office.service.open_standing(
        Person("bob"), request.id, days=5, source=None, destination=None, new_id=str(uuid4()), now=office.now
    )
    assert opened.request.requesters == ("bob", "engineer")
    for name in ("bob", "engineer"):
        with pytest.raises(VoteRefusedError):
            office.vote(name, opened.request)
    again = office.service.open_standing(
        Person("bob"), request.id, days=5, source=None, destination=None, new_id=str(uuid4()), now=office.now
    )
    assert (again.created, again.request.id) == (False, opened.request.id)


def test_where_only_the_one_who_asks_could_approve_it_is_not_asked(office: Office, place: str) -> None:
    request = approved(office, place)
    office.policies.use(POLICY.replace("[alice, bob]", "[alice]"))
    with pytest.raises(NoPolicyError):
        office.service.open_standing(
            Person("alice"),
            request.id,
            days=5,
            source=None,
            destination=None,
            new_id=str(uuid4()),
            now=office.now,
        )


def test_a_standing_approval_cannot_be_redeemed(office: Office, place: str) -> None:
    standing = office.stands(approved(office, place))
    with pytest.raises(NotApprovedError):
        office.redeem(office.task(), standing)


def test_a_pending_one_follows_the_policy_or_is_denied_by_it(office: Office, place: str) -> None:
    request = approved(office, place)
    opened = office.service.open_standing(
        Person("zoe"), request.id, days=20, source=None, destination=None, new_id=str(uuid4()), now=office.now
    )
    office.policies.use(POLICY.replace("max_days: 30", "max_days: 10"))
    followed = office.service.follow_policy(opened.request.id, now=office.now)
    assert followed.state is State.DENIED


# --- break glass -----------------------------------------------------------------------------------------


def test_breaking_the_glass_grants_at_once_and_stands_out(office: Office, place: str) -> None:
    ti_id, request = office.ask(an_export(place, rows=9000))
    granted = office.glass(request, reason="the partner is down")
    assert granted.state is State.APPROVED
    kinds = [entry["kind"] for entry in office.entries(request.id)]
    assert kinds == ["request.opened", "glass.broken", "request.approved"]
    assert office.entries(request.id)[1]["data"]["reason"] == "the partner is down"
    receipt = verify_receipt(granted.receipt, by_keyid([office.signer.public_key]))
    assert receipt.grant is not None
    assert (receipt.grant.kind, receipt.grant.by) == (GrantKind.BREAK_GLASS, ("dana",))
    office.publish(ti_id, granted)


def test_who_looked_at_an_emergency_stands_in_the_ledger_and_so_does_who_may_not(
    office: Office, place: str
) -> None:
    _, request = office.ask(an_export(place))
    granted = office.glass(request, reason="the partner is down")
    seen = office.service.review_glass(Person("bob"), granted.id, remark="checked", now=office.now)
    assert office.store.get_request(granted.id) == seen
    last = office.entries(request.id)[-1]
    assert (last["kind"], last["actor"], last["data"]["remark"]) == ("glass.reviewed", "bob", "checked")
    for person in ("alice", "dana", "engineer"):
        with pytest.raises(ApprovalsError):
            office.service.review_glass(Person(person), granted.id, remark="", now=office.now)
        last = office.entries()[-1]
        assert (last["kind"], last["actor"], last["data"]["attempt"]) == ("attempt.refused", person, "review")


def test_a_refused_try_to_break_it_is_on_record(office: Office, place: str) -> None:
    _, request = office.ask(an_export(place))
    for person in ("alice", "engineer"):
        with pytest.raises(NotAllowedError):
            office.glass(request, person)
        last = office.entries()[-1]
        assert (last["kind"], last["actor"], last["data"]["attempt"]) == (
            "attempt.refused",
            person,
            "break-glass",
        )


def test_what_was_denied_stays_denied(office: Office, place: str) -> None:
    _, request = office.ask(an_export(place))
    office.vote("bob", request, Verdict.DENY)
    with pytest.raises(AlreadyDecidedError):
        office.glass(request)


# --- in any order ----------------------------------------------------------------------------------------


class Days(RuleBasedStateMachine):
    """Runs, days, drift, revocations and policy changes in any order, held against one sentence.

    A run is approved without votes of its own if and only if a standing approval is in force whose votes are
    not the starter's, whose policy is the one in force, and from whose evidence nothing has drifted.
    """

    folder: ClassVar[Path]
    shared: ClassVar[SqlStore]

    @initialize()
    def begin(self) -> None:
        self.office = Office(self.shared, self.folder)
        self.place = f"machine-{uuid4().hex[:8]}"
        self.days = 0
        self.policy = "30m"
        self.standing: dict[str, Any] | None = None  # what should be in force: voter, end, policy
        self.known: list[str] = []
        self.base = approved(self.office, self.place)

    @precondition(lambda self: self.standing is None)
    @rule(days=st.integers(1, 5), voter=st.sampled_from(["alice", "bob"]))
    def ask_and_vote(self, days: int, voter: str) -> None:
        opened = self.office.service.open_standing(
            Person("zoe"),
            self.base.id,
            days=days,
            source=None,
            destination=None,
            new_id=str(uuid4()),
            now=self.office.now,
        )
        voted = self.office.vote(voter, opened.request)
        assert voted.state is State.APPROVED
        self.standing = {"id": voted.id, "voter": voter, "end": self.days + days, "policy": self.policy}

    @rule(
        rows=st.sampled_from([1, 1000, 1200, 1201, 1500]),
        starter=st.sampled_from(["engineer", "alice", "bob"]),
    )
    def run(self, rows: int, starter: str) -> None:
        standing = self.standing
        in_force = standing is not None and self.days < standing["end"]
        policy_is_same = in_force and standing is not None and standing["policy"] == self.policy
        drifted = in_force and (not policy_is_same or rows > 1200)
        covered = in_force and not drifted and standing is not None and standing["voter"] != starter
        ti_id, run = self.office.ask(an_export(self.place, rows=rows), triggering_user=starter)
        assert (run.state is State.APPROVED) == covered
        assert (run.granted is not None) == covered
        assert (run.voided is not None) == drifted
        if drifted:
            self.standing = None
        if covered:
            self.office.publish(ti_id, run)
        self.known.append(run.id)

    @rule(days=st.integers(1, 3))
    def pass_time(self, days: int) -> None:
        self.days += days
        self.office.later(days=days)
        self.office.service.expire_due(now=self.office.now)
        if self.standing is not None and self.days >= self.standing["end"]:
            self.standing = None

    @rule(valid_for=st.sampled_from(["30m", "31m"]))
    def change_policy(self, valid_for: str) -> None:
        self.policy = valid_for
        self.office.policies.use(POLICY.replace("30m", valid_for))

    @precondition(lambda self: self.standing is not None)
    @rule()
    def revoke(self) -> None:
        assert self.standing is not None
        self.office.service.revoke(Person("bob"), self.standing["id"], reason="", now=self.office.now)
        self.standing = None

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def redeem_twice(self, data: st.DataObject) -> None:
        request = self.shared.get_request(data.draw(st.sampled_from(self.known)))
        if request.state is State.COMPLETED:
            with pytest.raises(ApprovalsError):
                self.office.redeem(self.office.task(), request)

    @invariant()
    def at_most_one_is_in_force_and_every_grant_names_one_that_was_voted_on(self) -> None:
        for request in map(self.shared.get_request, self.known):
            if request.granted is not None:
                standing = self.shared.get_request(request.granted.standing_id or "")
                assert standing.standing is not None
                assert [vote.voter for vote in standing.votes] == list(request.granted.by)
                assert not set(request.granted.by) & set(request.requesters)


@pytest.fixture(scope="module", autouse=True)
def _machine_store(store: SqlStore) -> Iterator[None]:
    Days.shared, Days.folder = store, Path(tempfile.mkdtemp(prefix="standing-machine-"))
    yield
    shutil.rmtree(Days.folder, ignore_errors=True)


TestDays = Days.TestCase
TestDays.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
