"""The use cases on a real store: every change with its ledger entry, whatever people and tasks do in turn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_approvals.core import gate
from airflow_approvals.core.errors import (
    AlreadyDecidedError,
    ApprovalsError,
    IdempotencyConflictError,
    NoPolicyError,
    NotAllowedError,
    PolicyDeniesError,
    PolicyError,
    ReceiptGoneError,
    ServiceUnavailableError,
    TaskInstanceRefusedError,
    VoteRefusedError,
)
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    Evidence,
    Origin,
    Person,
    State,
    Verdict,
)
from airflow_approvals.core.policy import PolicyFile, parse_policy_file
from airflow_approvals.core.receipt import check_covers, verify_receipt
from airflow_approvals.core.signature import public_keys_from_json
from airflow_approvals.keys import load_signer
from airflow_approvals.ports import StoredIdempotencyKey
from airflow_approvals.service import Opened, Opening, Service
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, SqlTransaction, create_store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOSTLY_NOT = [False, False, False, False, True]

POLICY = """
version: 1
groups:
  stewards: {users: [alice, bob, engineer]}
  security: {users: [carol]}
  admins: {users: [root]}
policies:
  - name: export
    match: {action: [export], destination: ["file:///outbox/**"]}
    require: [{group: stewards}, {group: security}]
    deny_if: ["!pii.verified && action.source == 'file:///personal.csv'"]
    expires_after: 4h
    receipt_valid_for: 30m
  - name: delete
    match: {action: [delete]}
    require: [{group: stewards}]
"""
CHANGED = POLICY.replace("30m", "31m")
WITHOUT_EXPORT = POLICY.replace("file:///outbox", "file:///elsewhere")


class Tasks:
    """Task instances by id, as Airflow's database would tell them."""

    def __init__(self) -> None:
        self.origins: dict[str, Origin] = {}

    def origin_of(self, ti_id: str) -> Origin:
        try:
            return self.origins[ti_id]
        except KeyError:
            raise TaskInstanceRefusedError("no such task instance") from None

    def start(self, *, run_id: str = "r1", task_id: str = "publish", try_number: int = 1, **more: Any) -> str:
        ti_id = str(uuid4())
        self.origins[ti_id] = Origin(
            ti_id=ti_id,
            dag_id="export",
            run_id=run_id,
            task_id=task_id,
            map_index=-1,
            try_number=try_number,
            run_type="manual",
            **{"state": "running", "triggering_user": "engineer", "owners": ("team",), **more},
        )
        return ti_id

    def end(self, ti_id: str, state: str = "success") -> None:
        self.origins[ti_id] = replace(self.origins[ti_id], state=state)


class Policies:
    """The policy in force, changed by the test; None while there never was one."""

    def __init__(self) -> None:
        self.file: PolicyFile | None = parse_policy_file(POLICY, name="policy.yaml")

    def current(self) -> PolicyFile:
        if self.file is None:
            raise PolicyError("no policy file")
        return self.file

    def problem(self) -> str | None:
        return None

    def use(self, text: str) -> None:
        self.file = parse_policy_file(text, name="policy.yaml")


class World:
    """A service on a real database, its tasks and its policy."""

    def __init__(self, store: SqlStore, home: Path) -> None:
        self.store, self.tasks, self.policies = store, Tasks(), Policies()
        self.signer = load_signer("", home=home)
        self.service = Service(store=store, origins=self.tasks, policies=self.policies, signer=self.signer)
        self.now = NOON

    def open(self, ti_id: str, opening: Opening | None = None) -> ApprovalRequest:
        opened = self.service.open_for_task(
            ti_id, opening or an_opening(), request_id=str(uuid4()), now=self.now
        )
        return opened.request

    def vote(
        self, name: str, request: ApprovalRequest, verdict: Verdict = Verdict.APPROVE, *, revision: int = 1
    ) -> ApprovalRequest:
        return self.service.cast_vote(
            Person(name),
            request.id,
            verdict,
            reason="because",
            revision=revision,
            channel=Channel.API,
            now=self.now,
        )

    def approve(self, request: ApprovalRequest) -> ApprovalRequest:
        self.vote("alice", request)
        return self.vote("carol", request)

    def redeem(self, ti_id: str, request: ApprovalRequest) -> ApprovalRequest:
        return self.service.redeem(ti_id, request.id, digest=request.action_digest, now=self.now)

    def entries(self, request_id: str | None = None) -> list[dict[str, Any]]:
        found = [json.loads(entry.body) for entry in self.store.entries_after(-1, limit=100_000)]
        return [entry for entry in found if request_id in (None, entry["request_id"])]


def an_opening(name: str = "a", **more: Any) -> Opening:
    return Opening(
        action=Action(kind="export", destination=f"file:///outbox/{name}.csv"), evidence=Evidence(**more)
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def store(home: Path) -> Iterator[SqlStore]:
    found = create_store(f"sqlite:///{home / 'airflow.db'}")
    create_tables(found.engine)
    yield found
    found.close()


@pytest.fixture
def world(store: SqlStore, home: Path) -> World:
    found = World(store, home)
    found.run_id = str(uuid4())  # type: ignore[attr-defined]  # each test has a run of its own
    return found


def started(world: World, **more: Any) -> str:
    return world.tasks.start(run_id=world.run_id, **more)  # type: ignore[attr-defined]  # as above


def test_what_a_policy_denies_or_does_not_cover_is_refused_before_anybody_is_asked(world: World) -> None:
    ti_id = started(world)
    personal = replace(an_opening().action, source="file:///personal.csv")
    with pytest.raises(PolicyDeniesError):
        world.open(
            ti_id, Opening(action=personal, evidence=Evidence(pii={"scanned": True, "verified": True}))
        )
    with pytest.raises(NoPolicyError):
        world.open(ti_id, Opening(action=Action(kind="grant"), evidence=Evidence()))
    with pytest.raises(NoPolicyError):
        world.open(ti_id, replace(an_opening(), policy="delete"))
    assert [entry["kind"] for entry in world.entries()[-3:]] == ["attempt.refused"] * 3
    # There is no request to look the task up by.
    assert {entry["actor"].partition("/")[0] for entry in world.entries()[-3:]} == {"worker:export"}


@pytest.mark.parametrize("state", ["success", "failed", "skipped", "queued", "none"])
def test_a_task_that_does_not_run_cannot_speak(world: World, state: str) -> None:
    ti_id = started(world, state=state)
    with pytest.raises(TaskInstanceRefusedError):
        world.open(ti_id)


def test_without_any_policy_file_nothing_is_opened(world: World) -> None:
    world.policies.file = None
    with pytest.raises(PolicyError):
        world.open(started(world))


def test_a_retry_with_the_same_content_reuses_the_approval(world: World) -> None:
    first = started(world)
    request = world.approve(world.open(first))
    world.tasks.end(first, "up_for_retry")
    second = started(world, try_number=2)
    assert world.open(second).id == request.id
    assert world.redeem(second, request).state is State.REDEEMED


def test_changed_content_supersedes_a_pending_request_and_revokes_an_approved_one(world: World) -> None:
    ti_id = started(world)
    pending = world.open(ti_id)
    approved = world.approve(world.open(ti_id, an_opening("b")))
    assert world.store.get_request(pending.id).state is State.SUPERSEDED
    world.open(ti_id, an_opening("c"))
    assert world.store.get_request(approved.id).state is State.REVOKED
    with pytest.raises(ReceiptGoneError):
        world.redeem(ti_id, approved)


def test_standing_approvals_are_locked_before_the_ledgers_head(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ti_id = started(world)
    world.open(ti_id, an_opening("before"))
    locked: list[str] = []
    find_standing, append = SqlTransaction.find_standing, SqlTransaction.append

    def finds(self: SqlTransaction, *args: Any, **more: Any) -> Any:
        locked.append("standing")
        return find_standing(self, *args, **more)

    def appends(self: SqlTransaction, *args: Any) -> Any:
        locked.append("head")
        return append(self, *args)

    monkeypatch.setattr(SqlTransaction, "find_standing", finds)
    monkeypatch.setattr(SqlTransaction, "append", appends)
    # Whoever takes a standing approval back locks it first and the head second.
    world.open(ti_id, an_opening("after"))
    assert locked == ["standing", "head", "head"]


def test_after_completion_a_cleared_task_asks_anew(world: World) -> None:
    first = started(world)
    request = world.approve(world.open(first))
    world.redeem(first, request)
    world.service.report_outcome(first, request.id, published=True, digest=None, detail="", now=world.now)
    assert world.store.get_request(request.id).state is State.COMPLETED
    again = world.open(started(world, try_number=2))
    assert again.id != request.id
    assert again.state is State.PENDING


def test_a_denial_stands_for_the_same_try_and_a_new_try_may_ask_anew(world: World) -> None:
    first = started(world)
    denied = world.vote("alice", world.open(first), Verdict.DENY)
    assert world.open(first).id == denied.id
    assert world.open(started(world, try_number=2)).id != denied.id


def test_a_policy_that_changes_while_it_is_pending_asks_everybody_again(world: World) -> None:
    request = world.open(started(world))
    world.vote("alice", request)
    world.policies.use(CHANGED)
    with pytest.raises(ApprovalsError, match="revision"):
        world.vote("carol", request, revision=1)
    rebound = world.store.get_request(request.id)
    assert (rebound.revision, rebound.votes) == (2, ())
    assert world.entries(request.id)[-2]["kind"] == "request.rebound"
    world.vote("alice", request, revision=2)
    assert world.vote("carol", request, revision=2).state is State.APPROVED


def test_a_policy_that_no_longer_covers_a_pending_request_denies_it(world: World) -> None:
    request = world.open(started(world))
    world.policies.use(WITHOUT_EXPORT)
    assert world.service.follow_policy(request.id, now=world.now).state is State.DENIED


def test_a_policy_that_changed_after_the_approval_voids_it(world: World) -> None:
    ti_id = started(world)
    request = world.approve(world.open(ti_id))
    world.policies.use(CHANGED)
    with pytest.raises(ReceiptGoneError, match="policy changed"):
        world.redeem(ti_id, request)
    assert world.store.get_request(request.id).state is State.REVOKED


def test_who_clears_a_task_that_waits_is_barred_from_approving_it(world: World) -> None:
    waits = world.open(started(world))
    cleared = world.open(started(world, try_number=2, cleared_by=("Alice",)))
    assert world.store.get_request(waits.id).state is State.SUPERSEDED
    assert cleared.requesters == ("alice", "engineer")
    with pytest.raises(VoteRefusedError):
        world.vote("alice", cleared)
    assert world.open(started(world, try_number=3, cleared_by=("Alice",))).id == cleared.id


def test_what_a_person_opened_is_no_way_around_the_policy_of_a_dag(world: World) -> None:
    """Opened by hand it stands under the open policy; the DAG that would use it stands under its own."""
    stricter = """  - name: this-dag
    match: {dag_id: [export]}
    require: [{group: security}]
  - name: export
"""
    world.policies.use(POLICY.replace("  - name: export\n", stricter))
    opened = world.service.open_for_person(
        Person("engineer"), an_opening(), key=str(uuid4()), request_id=str(uuid4()), now=world.now
    )
    approved = world.approve(opened.request)
    assert (approved.policy, approved.state) == ("export", State.APPROVED)
    with pytest.raises(TaskInstanceRefusedError, match="this-dag"):
        world.redeem(started(world), approved)
    assert world.entries(approved.id)[-1]["kind"] == "attempt.refused"
    world.policies.use(POLICY)
    assert world.redeem(started(world), approved).state is State.REDEEMED


def test_a_call_that_is_repeated_after_the_policy_changed_gets_the_request_that_it_opened(
    world: World,
) -> None:
    key = str(uuid4())

    def ask(opening: Opening) -> Opened:
        return world.service.open_for_person(
            Person("engineer"), opening, key=key, request_id=str(uuid4()), now=world.now
        )

    first = ask(an_opening())
    world.policies.use(WITHOUT_EXPORT)
    again = ask(an_opening())
    assert (again.request.id, again.created) == (first.request.id, False)
    with pytest.raises(IdempotencyConflictError):
        ask(an_opening("other"))


def test_time_expires_what_nobody_answered_and_lapses_what_nobody_used(world: World) -> None:
    pending = world.open(started(world))
    approved = world.approve(world.open(started(world, task_id="other")))
    world.service.expire_due(now=NOON + timedelta(minutes=30))
    assert world.store.get_request(approved.id).state is State.LAPSED
    assert world.store.get_request(pending.id).state is State.PENDING
    world.service.expire_due(now=NOON + timedelta(hours=4))
    assert world.store.get_request(pending.id).state is State.EXPIRED


def test_questions_are_the_approvers_and_answers_the_requesters(world: World) -> None:
    ti_id = started(world)
    request = world.open(ti_id)
    with pytest.raises(NotAllowedError):
        world.service.ask(Person("mallory"), request.id, "why?", channel=Channel.API, now=NOON)
    world.service.ask(Person("alice"), request.id, "why?", channel=Channel.API, now=NOON)
    world.service.ask(Person("carol"), request.id, "where?", channel=Channel.API, now=NOON)
    with pytest.raises(NotAllowedError):
        world.service.answer(Person("bob"), request.id, 1, "dunno", now=NOON)
    world.service.answer(Person("engineer"), request.id, 1, "month end", now=NOON)
    answered = world.service.answer_for_task(ti_id, request.id, 2, "to the partner", now=NOON)
    assert [question.answer for question in answered.questions] == ["month end", "to the partner"]
    with pytest.raises(TaskInstanceRefusedError):
        world.service.answer_for_task(world.tasks.start(run_id="foreign"), request.id, 2, "x", now=NOON)


def test_the_same_key_or_policy_is_recorded_once(world: World) -> None:
    world.service.record_key(now=NOON)
    world.service.record_policy(now=NOON)
    size = world.store.ledger_size()
    world.service.record_key(now=NOON)
    world.service.record_policy(now=NOON)
    assert world.store.ledger_size() == size
    world.policies.use(CHANGED)
    world.service.record_policy(now=NOON)
    assert world.store.ledger_size() == size + 1


def test_of_two_calls_with_one_key_at_once_the_second_gets_the_request_of_the_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(opening: Opening, request_id: str) -> Opened:
        return world.service.open_for_person(
            Person("engineer"), opening, key="k", request_id=request_id, now=NOON
        )

    first = ask(an_opening(), "first")
    find = SqlTransaction.find_idempotency_key
    looks: list[str] = []

    def find_too_early(transaction: SqlTransaction, caller: str, key: str) -> StoredIdempotencyKey | None:
        looks.append(key)
        return None if len(looks) % 2 else find(transaction, caller, key)

    monkeypatch.setattr(SqlTransaction, "find_idempotency_key", find_too_early)
    assert ask(an_opening(), "second") == Opened(request=first.request, created=False)
    with pytest.raises(IdempotencyConflictError):
        ask(an_opening("other"), "third")
    assert len(looks) == 4


def test_processes_with_different_keys_do_not_take_turns_in_recording_them(
    world: World, tmp_path: Path
) -> None:
    other = Service(
        store=world.store,
        origins=world.tasks,
        policies=world.policies,
        signer=load_signer("", home=tmp_path / "another host"),
    )
    for service in (world.service, other):
        service.record_key(now=NOON)
    size = world.store.ledger_size()
    for service in (world.service, other):
        service.record_key(now=NOON)
    assert world.store.ledger_size() == size


def test_a_key_that_does_not_answer_leaves_the_request_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = world.open(started(world))
    world.vote("alice", request)
    size = world.store.ledger_size()

    def away(_: bytes) -> bytes:
        raise ServiceUnavailableError("the key does not answer")

    monkeypatch.setattr(world.signer, "sign", away)
    with pytest.raises(ServiceUnavailableError):
        world.vote("carol", request)
    assert world.store.get_request(request.id).state is State.PENDING
    assert world.store.ledger_size() == size


class LifeOfARequest(RuleBasedStateMachine):
    """People, tasks, time and the policy act in any order; the promises hold after each step."""

    store: SqlStore
    home: Path
    redeemed: ClassVar[set[str]] = set()

    @initialize()
    def begin(self) -> None:
        self.world = World(self.store, self.home)
        self.run = str(uuid4())
        self.try_number = 1
        self.ti_id = self.world.tasks.start(run_id=self.run)
        self.request: ApprovalRequest | None = None
        self.seen: dict[str, State] = {}
        self.first_entry = self.store.ledger_size()
        self._remember(self.world.open(self.ti_id, an_opening("a")))

    @rule(content=st.sampled_from(["a", "b"]))
    def ask_for_approval(self, content: str) -> None:
        self._try(lambda: self._remember(self.world.open(self.ti_id, an_opening(content))))

    @precondition(lambda self: self.request is not None)
    @rule(
        name=st.sampled_from(["alice", "bob", "carol", "engineer", "mallory", "root"]),
        verdict=st.sampled_from([Verdict.APPROVE, Verdict.APPROVE, Verdict.APPROVE, Verdict.DENY]),
        stale=st.sampled_from([0, 0, 0, 1]),
    )
    def vote(self, name: str, verdict: Verdict, stale: int) -> None:
        revision = self._current().revision + stale
        self._try(lambda: self.world.vote(name, self._current(), verdict, revision=revision))

    @precondition(lambda self: self.request is not None)
    @rule()
    def enough_people_approve(self) -> None:
        for name in ("bob", "carol"):
            revision = self._current().revision
            self._try(partial(self.world.vote, name, self._current(), revision=revision))

    @precondition(lambda self: self.request is not None)
    @rule(changed=st.sampled_from(MOSTLY_NOT), stranger=st.sampled_from(MOSTLY_NOT))
    def redeem(self, changed: bool, stranger: bool) -> None:
        ti_id = self.world.tasks.start(run_id="stranger") if stranger else self.ti_id
        digest = "0" * 64 if changed else self._current().action_digest
        before = self._current()
        used = self._try(
            lambda: self.world.service.redeem(ti_id, before.id, digest=digest, now=self.world.now)
        )
        if used:
            assert not changed
            assert not stranger
            after = self._current()
            receipt = verify_receipt(
                after.receipt, public_keys_from_json([self.world.signer.public_key_json()])
            )
            check_covers(receipt, action_digest=after.action_digest, now=after.redeemed_at or NOON)
            self.redeemed.add(after.id)

    @precondition(lambda self: self.request is not None)
    @rule(published=st.booleans())
    def report(self, published: bool) -> None:
        self._try(
            lambda: self.world.service.report_outcome(
                self.ti_id,
                self._current().id,
                published=published,
                digest=None,
                detail="",
                now=self.world.now,
            )
        )

    @precondition(lambda self: self.request is not None)
    @rule(
        name=st.sampled_from(["alice", "engineer", "mallory", "root"]),
        what=st.sampled_from(["cancel", "revoke"]),
    )
    def take_back(self, name: str, what: str) -> None:
        act = getattr(self.world.service, what)
        self._try(lambda: act(Person(name), self._current().id, reason="", now=self.world.now))

    @rule(minutes=st.sampled_from([1, 1, 1, 20, 35, 250]))
    def time_passes(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)
        self.world.service.expire_due(now=self.world.now)

    @rule(text=st.sampled_from([POLICY, POLICY, POLICY, POLICY, CHANGED, WITHOUT_EXPORT]))
    def policy_changes(self, text: str) -> None:
        self.world.policies.use(text)
        if self.request is not None:
            self.world.service.follow_policy(self.request.id, now=self.world.now)

    @rule(state=st.sampled_from(["running", "deferred", "running", "success"]))
    def somebody_marks_the_task(self, state: str) -> None:
        self.world.tasks.end(self.ti_id, state)

    @rule()
    def task_is_retried(self) -> None:
        self.world.tasks.end(self.ti_id, "failed")
        self.try_number += 1
        self.ti_id = self.world.tasks.start(run_id=self.run, try_number=self.try_number)

    @invariant()
    def states_only_move_as_designed(self) -> None:
        for request_id, before in list(self.seen.items()):
            after = self.store.get_request(request_id).state
            assert after is before or _leads_to(before, after), (before, after)
            self.seen[request_id] = after

    @invariant()
    def the_ledger_alone_tells_every_state(self) -> None:
        told: dict[str, str] = {}
        redeemed: dict[str, int] = {}
        for entry in self._entries():
            kind, request_id, data = entry["kind"], entry["request_id"], entry["data"]
            if kind == "receipt.redeemed":
                told[request_id] = "redeemed"
                redeemed[request_id] = redeemed.get(request_id, 0) + 1
            elif kind == "outcome.reported":
                told[request_id] = "completed" if data["outcome"]["published"] else "failed"
            elif kind in ("request.opened", "request.rebound"):
                told[request_id] = "pending"
            elif kind.startswith("request."):
                told[request_id] = kind.removeprefix("request.")
        assert {name: str(state) for name, state in self.seen.items()} == {
            name: told[name] for name in self.seen
        }
        assert all(count == 1 for count in redeemed.values())

    @invariant()
    def whatever_was_redeemed_was_approved_by_two_others(self) -> None:
        for request_id, state in self.seen.items():
            if state in (State.REDEEMED, State.COMPLETED, State.FAILED):
                votes = self.store.get_request(request_id).votes
                approvers = {vote.voter for vote in votes if vote.verdict is Verdict.APPROVE}
                assert approvers & {"alice", "bob"}
                assert "carol" in approvers
                assert not approvers & {"engineer", "mallory", "root"}

    def _remember(self, request: ApprovalRequest) -> None:
        self.request = request
        self.seen.setdefault(request.id, request.state)

    def _current(self) -> ApprovalRequest:
        assert self.request is not None
        return self.store.get_request(self.request.id)

    def _entries(self) -> list[dict[str, Any]]:
        return [
            json.loads(entry.body) for entry in self.store.entries_after(self.first_entry - 1, limit=10_000)
        ]

    def _try(self, act: Any) -> bool:
        """Do it; a refusal must be on the record as the last entry."""
        refused = ""
        try:
            act()
        except ApprovalsError as refusal:
            refused = refusal.type
        if refused:
            last = self._entries()[-1]
            assert (last["kind"], last["data"]["type"]) == ("attempt.refused", refused)
        return not refused


def _leads_to(before: State, after: State) -> bool:
    reached: set[State] = set()
    pending = [before]
    while pending:
        for state in gate.TRANSITIONS[pending.pop()] - reached:
            reached.add(state)
            pending.append(state)
    return after in reached


def test_the_promises_hold_whatever_happens_in_whatever_order(store: SqlStore, home: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    LifeOfARequest.store, LifeOfARequest.home = store, home
    run_state_machine_as_test(
        LifeOfARequest,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # Else it would hold of nothing.
    assert LifeOfARequest.redeemed


def test_votes_of_strangers_and_second_votes_are_on_the_record(world: World) -> None:
    request = world.open(started(world))
    world.vote("alice", request)
    for name, refusal in (("mallory", VoteRefusedError), ("alice", AlreadyDecidedError)):
        with pytest.raises(refusal):
            world.vote(name, request)
        assert world.entries(request.id)[-1]["kind"] == "attempt.refused"
        assert world.entries(request.id)[-1]["actor"] == name
