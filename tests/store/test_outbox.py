from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from airflow_approvals.core.delivery import (
    LEASE,
    MAX_REFUSALS,
    MAX_TRIES,
    PROMPT,
    UNDERWAY,
    Delivery,
    Telling,
)
from airflow_approvals.core.model import Entry
from airflow_approvals.store.lineage import SqlLineageSpool
from airflow_approvals.store.outbox import SqlOutbox
from airflow_approvals.store.sql import SqlStore
from tests.store.samples import NOON, a_fact

PLACE = {"channel": "C1", "ts": "1.2"}
SECOND = timedelta(seconds=1)


@pytest.fixture
def outbox(store: SqlStore) -> SqlOutbox:
    return SqlOutbox(store.engine)


def plan(entry: Entry) -> Telling | None:
    body = json.loads(entry.body)
    if body["request_id"] is None:
        return None
    opened = body["kind"] == "request.opened"
    return Telling(
        request_id=body["request_id"],
        channels=tuple(body["data"].get("channels", ["one"])) if opened else (),
        has_note=body["kind"] == "question.asked",
    )


def happens(
    store: SqlStore, kind: str = "request.opened", request_id: str | None = "r1", **data: object
) -> int:
    with store.begin() as tx:
        return tx.append(a_fact(kind, request_id, **data)).index


def claimed(outbox: SqlOutbox, seconds: float = 0, lease: str = "me") -> Delivery:
    found = outbox.claim(now=NOON + timedelta(seconds=seconds), lease=lease)
    assert found is not None
    return found


def nothing(outbox: SqlOutbox, seconds: float = 0) -> bool:
    return outbox.claim(now=NOON + timedelta(seconds=seconds), lease="other") is None


def test_every_entry_is_read_once_and_a_prompt_stands_in_every_channel(
    store: SqlStore, outbox: SqlOutbox
) -> None:
    happens(store, channels=["one", "two"])
    happens(store, "policy.loaded", None)
    assert outbox.plan(plan, now=NOON) == 2
    assert outbox.plan(plan, now=NOON) == 0
    first, second = claimed(outbox), claimed(outbox)
    assert {first.channel, second.channel} == {"one", "two"}
    assert nothing(outbox)
    for delivery in (first, second):
        outbox.done(delivery, lease="me", place=PLACE, now=NOON)
    assert nothing(outbox, 3600)


def test_news_update_every_prompt_where_it_stands(store: SqlStore, outbox: SqlOutbox) -> None:
    happens(store)
    outbox.plan(plan, now=NOON)
    outbox.done(claimed(outbox), lease="me", place=PLACE, now=NOON)
    index = happens(store, "vote.cast")
    outbox.plan(plan, now=NOON)
    again = claimed(outbox)  # an update needs no spacing
    assert (again.place, again.wanted, again.shown) == (PLACE, index, 0)


def test_news_that_come_while_it_is_sent_are_sent_too(store: SqlStore, outbox: SqlOutbox) -> None:
    happens(store)
    outbox.plan(plan, now=NOON)
    sending = claimed(outbox)
    happens(store, "vote.cast")
    outbox.plan(plan, now=NOON)
    assert nothing(outbox, 2)
    outbox.done(sending, lease="me", place=PLACE, now=NOON)
    assert claimed(outbox).place == PLACE


def test_a_note_waits_for_its_prompt_and_is_sent_once(store: SqlStore, outbox: SqlOutbox) -> None:
    happens(store)
    index = happens(store, "question.asked")
    outbox.plan(plan, now=NOON)
    prompt = claimed(outbox)
    assert prompt.entry == PROMPT
    assert nothing(outbox, 2)
    outbox.done(prompt, lease="me", place=PLACE, now=NOON)
    note = claimed(outbox, 2)
    assert note.entry == index
    outbox.done(note, lease="me", place={"channel": "C1", "ts": "1.3"}, now=NOON)
    happens(store, "vote.cast")
    outbox.plan(plan, now=NOON)
    assert claimed(outbox, 9).entry == PROMPT
    assert nothing(outbox, 9)


def test_what_is_on_its_way_or_must_rest_is_not_due(store: SqlStore, outbox: SqlOutbox) -> None:
    happens(store, request_id="first")
    happens(store, request_id="second")
    outbox.plan(plan, now=NOON)
    assert outbox.next_due() == NOON
    first = claimed(outbox)
    assert outbox.next_due() == NOON + UNDERWAY  # when the second may follow
    outbox.done(first, lease="me", place=PLACE, now=NOON)
    assert outbox.next_due() == NOON + SECOND
    claimed(outbox, 1)
    assert outbox.next_due() == NOON + SECOND + LEASE


def test_one_new_message_a_second_in_one_channel(store: SqlStore, outbox: SqlOutbox) -> None:
    for number in range(3):
        happens(store, request_id=f"r{number}")
    happens(store, request_id="elsewhere", channels=["two"])
    outbox.plan(plan, now=NOON)
    first, elsewhere = claimed(outbox), claimed(outbox)
    assert (first.request_id, elsewhere.request_id) == ("r0", "elsewhere")
    assert nothing(outbox, 3)  # it is on its way, and may yet arrive
    outbox.done(first, lease="me", place=PLACE, now=NOON + 3 * SECOND)
    assert nothing(outbox, 3.9)
    second = claimed(outbox, 4)
    assert second.request_id == "r1"
    outbox.failed(second, lease="me", problem="gone", refused=False, now=NOON + 5 * SECOND)
    assert nothing(outbox, 5.9)
    third = claimed(outbox, 6)
    assert third.request_id in ("r1", "r2")


def test_a_channel_whose_sender_died_is_taken_up_again_soon(store: SqlStore, outbox: SqlOutbox) -> None:
    for number in range(2):
        happens(store, request_id=f"r{number}")
    outbox.plan(plan, now=NOON)
    assert claimed(outbox, lease="died").request_id == "r0"
    assert nothing(outbox, UNDERWAY.total_seconds() - 1)
    assert claimed(outbox, UNDERWAY.total_seconds()).request_id == "r1"


def test_a_channel_that_asks_for_rest_gets_it_and_loses_no_try(store: SqlStore, outbox: SqlOutbox) -> None:
    for number in range(2):
        happens(store, request_id=f"r{number}")
    outbox.plan(plan, now=NOON)
    first = claimed(outbox)
    outbox.hold(first, lease="me", until=NOON + 30 * SECOND)
    assert nothing(outbox, 29)
    again = claimed(outbox, 30)
    assert (again.request_id, again.tries) == ("r1", 0) or (again.request_id, again.tries) == ("r0", 0)


def test_a_lease_that_ran_out_passes_on_and_the_late_one_changes_nothing(
    store: SqlStore, outbox: SqlOutbox
) -> None:
    happens(store)
    outbox.plan(plan, now=NOON)
    lost = claimed(outbox, lease="died")
    assert nothing(outbox, LEASE.total_seconds() - 1)
    taken = claimed(outbox, LEASE.total_seconds(), lease="lives")
    outbox.done(lost, lease="died", place={"channel": "wrong", "ts": "0"}, now=NOON)
    outbox.done(taken, lease="lives", place=PLACE, now=NOON)
    assert [each.place for each in outbox.deliveries_of("r1")] == [PLACE]


@pytest.mark.parametrize(("refused", "most"), [(True, MAX_REFUSALS), (False, MAX_TRIES)])
def test_what_fails_again_and_again_becomes_a_dead_letter_until_there_is_news(
    store: SqlStore, outbox: SqlOutbox, refused: bool, most: int
) -> None:
    happens(store)
    outbox.plan(plan, now=NOON)
    at = NOON
    for tried in range(most):
        found = outbox.claim(now=at, lease="me")
        assert found is not None
        assert found.tries == tried
        outbox.failed(found, lease="me", problem="not_in_channel", refused=refused, now=at)
        assert bool(outbox.dead_letters()) is (tried + 1 == most)
        assert outbox.claim(now=at + 0.9 * SECOND, lease="me") is None
        at += timedelta(minutes=5)
    assert [letter.problem for letter in outbox.dead_letters()] == ["not_in_channel"]
    assert outbox.next_due() is None
    happens(store, "vote.cast")
    outbox.plan(plan, now=at)
    assert outbox.claim(now=at, lease="me") is not None
    assert outbox.dead_letters() == []


def test_what_was_given_up_is_tried_again_when_somebody_says_so(store: SqlStore, outbox: SqlOutbox) -> None:
    for name in ("r1", "r2"):
        happens(store, request_id=name)
    outbox.plan(plan, now=NOON)
    at = NOON
    while len(outbox.dead_letters()) < 2:
        at += timedelta(minutes=5)
        while (found := outbox.claim(now=at, lease="me")) is not None:
            outbox.failed(found, lease="me", problem="not_in_channel", refused=True, now=at)
            at += SECOND
    assert len(outbox.dead_letters(since=at - timedelta(hours=1))) == 2
    assert outbox.dead_letters(since=at + timedelta(days=7)) == []
    assert outbox.revive("r1", now=at) == 1
    assert outbox.revive("r1", now=at) == 0
    again = outbox.claim(now=at, lease="me")
    assert again is not None
    assert (again.request_id, again.tries) == ("r1", 0)
    assert [letter.request_id for letter in outbox.dead_letters()] == ["r2"]


def test_a_message_that_is_gone_is_posted_anew(store: SqlStore, outbox: SqlOutbox) -> None:
    happens(store)
    outbox.plan(plan, now=NOON)
    outbox.done(claimed(outbox), lease="me", place=PLACE, now=NOON)
    outbox.want_again("r1", now=NOON)
    stale = claimed(outbox)
    assert stale.place == PLACE
    outbox.failed(stale, lease="me", problem="message_not_found", refused=False, now=NOON, forget=True)
    assert claimed(outbox, 2).place is None


def test_many_workers_send_each_message_once(store: SqlStore, outbox: SqlOutbox) -> None:
    channels = [f"c{number}" for number in range(5)]
    for number in range(10):
        happens(store, request_id=f"r{number}", channels=channels)
    outbox.plan(plan, now=NOON)
    sent: list[int] = []

    def work(worker: int) -> None:
        own = SqlOutbox(store.engine)
        for second in range(10):
            at = NOON + timedelta(seconds=second)
            while (found := own.claim(now=at, lease=f"w{worker}")) is not None:
                sent.append(found.id)
                own.done(found, lease=f"w{worker}", place=PLACE, now=at)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    while (left := outbox.claim(now=NOON + timedelta(minutes=len(sent)), lease="last")) is not None:
        sent.append(left.id)
        outbox.done(left, lease="last", place=PLACE, now=NOON)
    assert len(sent) == len(set(sent)) == 50


def test_planners_that_run_at_once_want_each_entry_once(store: SqlStore, outbox: SqlOutbox) -> None:
    for number in range(20):
        happens(store, request_id=f"r{number}")
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: SqlOutbox(store.engine).plan(plan, now=NOON), range(4)))
    assert sum(read) == 20
    assert len(outbox.deliveries_of("r3")) == 1


def test_a_signature_is_taken_once_and_forgotten_when_it_is_too_old(outbox: SqlOutbox) -> None:
    assert outbox.is_first_use("a" * 64, now=NOON)
    assert not outbox.is_first_use("a" * 64, now=NOON + timedelta(minutes=10))
    assert outbox.is_first_use("b" * 64, now=NOON + timedelta(minutes=20))
    assert outbox.is_first_use("a" * 64, now=NOON + timedelta(minutes=20))


def test_what_happens_once_an_hour_is_remembered_for_an_hour(outbox: SqlOutbox) -> None:
    hour = timedelta(hours=1)
    assert outbox.is_first_use("a" * 64, now=NOON, within=hour)
    for minutes in (20, 59):
        later = NOON + timedelta(minutes=minutes)
        outbox.is_first_use(f"{minutes:064}", now=later)  # which forgets what is old
        assert not outbox.is_first_use("a" * 64, now=later, within=hour)


LOOKS = {
    "what is due next": (lambda outbox, _: outbox.next_due(), "ix_approvals_delivery_open"),
    "what may be sent": (lambda outbox, _: outbox.claim(now=NOON, lease="me"), "ix_approvals_delivery_open"),
    "what was given up": (lambda outbox, _: outbox.dead_letters(since=NOON), "ix_approvals_delivery_dead"),
    "what lineage may forget": (
        lambda _, spool: spool.forget_sent(before=NOON),
        "ix_approvals_lineage_event_state_sent_at",
    ),
}


@pytest.mark.parametrize(("look", "index"), LOOKS.values(), ids=LOOKS.keys())
def test_what_is_looked_for_every_second_is_not_looked_for_among_all_that_was_sent(
    store: SqlStore, outbox: SqlOutbox, look: Callable[[SqlOutbox, SqlLineageSpool], object], index: str
) -> None:
    asked: list[tuple[str, Any]] = []
    event.listen(
        store.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, given, *_: asked.append((statement, given)),
    )
    look(outbox, SqlLineageSpool(store.engine))
    statement, given = next(each for each in asked if each[0].startswith("SELECT"))
    with store.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")  # there are no rows here to speak of
            explain = "EXPLAIN"
        else:
            explain = "EXPLAIN QUERY PLAN"
        plan_of = " ".join(map(str, connection.exec_driver_sql(f"{explain} {statement}", given)))
    assert index in plan_of
    assert "hashed" not in plan_of  # that would be all prompts, read anew with every look


@pytest.mark.parametrize(
    "database_url", [pytest.param("postgresql", marks=pytest.mark.services)], indirect=True
)
def test_postgresql_compiles_no_question_of_ours(store: SqlStore) -> None:
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW jit").scalar() == "off"
