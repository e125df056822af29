from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from sqlalchemy import exc

from airflow_approvals.core.errors import (
    IdempotencyConflictError,
    InvalidRequestError,
    RequestNotFoundError,
)
from airflow_approvals.core.model import ApprovalRequest, Person, State
from airflow_approvals.ports import RequestFilter, StoredIdempotencyKey, TaskSlot
from airflow_approvals.store.sql import SqlStore
from tests.store.samples import NOON, SLOT, a_request, decided


def put(store: SqlStore, *requests: ApprovalRequest) -> None:
    with store.begin() as transaction:
        for request in requests:
            transaction.insert_request(request)


def test_a_request_comes_back_as_it_was_stored(store: SqlStore) -> None:
    request = a_request()
    put(store, request)
    assert store.get_request(request.id) == request
    changed = decided(request)
    with store.begin() as transaction:
        transaction.update_request(changed)
        assert transaction.get_request(request.id, for_update=True) == changed
    assert store.get_request(request.id) == changed


def test_an_unknown_request_is_refused(store: SqlStore) -> None:
    with pytest.raises(RequestNotFoundError):
        store.get_request("no-such-request")
    with pytest.raises(RequestNotFoundError), store.begin() as transaction:
        transaction.get_request("no-such-request", for_update=True)
    with pytest.raises(RequestNotFoundError), store.begin() as transaction:
        transaction.update_request(a_request())


@pytest.mark.parametrize("wanted", [RequestFilter(dag_id="a\x00"), RequestFilter(ids=("\x00",))])
def test_what_postgres_cannot_hold_is_refused_on_both(store: SqlStore, wanted: RequestFilter) -> None:
    with pytest.raises(InvalidRequestError, match="NUL"):
        store.list_requests(wanted)
    with pytest.raises(InvalidRequestError, match="NUL"):
        store.get_request("\x00")


def test_what_is_stored_does_not_reach_a_log_by_way_of_an_error(store: SqlStore) -> None:
    request = a_request(policy="something private")
    put(store, request)
    with pytest.raises(exc.IntegrityError) as caught:
        put(store, request)
    assert "private" not in str(caught.value)


def test_the_latest_request_of_a_slot_is_the_one_opened_last_even_within_one_tick(store: SqlStore) -> None:
    first, second = a_request(), a_request()
    other = a_request(replace(SLOT, map_index=0))
    put(store, first, second, other)
    with store.begin() as transaction:
        assert transaction.find_latest_request(SLOT) == second
        assert transaction.find_latest_request(SLOT, for_update=True) == second
        assert transaction.find_latest_request(replace(SLOT, gate="second gate")) is None


def test_ids_that_run_together_are_different_slots(store: SqlStore) -> None:
    put(store, a_request(TaskSlot(dag_id="a", run_id="bc", task_id="d", map_index=-1, gate="")))
    with store.begin() as transaction:
        slot = TaskSlot(dag_id="ab", run_id="c", task_id="d", map_index=-1, gate="")
        assert transaction.find_latest_request(slot) is None


def test_two_opens_of_one_empty_slot_run_one_after_the_other(store: SqlStore) -> None:
    seen: list[ApprovalRequest | None] = []
    start = threading.Barrier(8)

    def open_one() -> None:
        start.wait()
        with store.begin() as transaction:
            found = transaction.find_latest_request(SLOT, for_update=True)
            seen.append(found)
            if found is None:
                transaction.insert_request(a_request())

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen.count(None) == 1
    assert store.list_requests(RequestFilter()).total == 1


FILTERS = {
    "everything": (RequestFilter(), [3, 2, 1, 0]),
    "state": (RequestFilter(states=(State.APPROVED,)), [1]),
    "two states": (RequestFilter(states=(State.APPROVED, State.PENDING)), [3, 2, 1, 0]),
    "dag": (RequestFilter(dag_id="export"), [1, 0]),
    "run": (RequestFilter(run_id="manual__2"), [2]),
    "task": (RequestFilter(task_id="publish", dag_id="other"), [2]),
    "policy": (RequestFilter(policy="internal"), [3]),
    "requester": (RequestFilter(requester="bob"), [2, 1]),
    "nobody's": (RequestFilter(requester="carol"), []),
    "first of two": (RequestFilter(limit=2), [3, 2]),
    "rest": (RequestFilter(limit=2, offset=2), [1, 0]),
}


@pytest.mark.parametrize(("wanted", "expected"), FILTERS.values(), ids=FILTERS.keys())
def test_a_list_is_narrowed_by_every_given_field_newest_first(
    store: SqlStore, wanted: RequestFilter, expected: list[int]
) -> None:
    engineer, bob = Person("engineer"), Person("bob")
    requests = [
        a_request(),
        decided(a_request(requesters=(engineer, bob))),
        a_request(replace(SLOT, dag_id="other", run_id="manual__2"), requesters=(bob,)),
        a_request(None, policy="internal", requesters=()),
    ]
    put(store, *requests)
    page = store.list_requests(wanted)
    assert list(page.requests) == [requests[number] for number in expected]
    assert page.total == (4 if wanted.limit == 2 else len(expected))


def test_a_list_by_ids_finds_only_those(store: SqlStore) -> None:
    requests = [a_request() for _ in range(3)]
    put(store, *requests)
    found = store.list_requests(RequestFilter(ids=(requests[0].id, requests[2].id)))
    assert found.requests == (requests[2], requests[0])


@pytest.mark.parametrize(
    "wanted", [RequestFilter(limit=0), RequestFilter(limit=501), RequestFilter(offset=-1)]
)
def test_a_page_that_nobody_can_want_is_refused(store: SqlStore, wanted: RequestFilter) -> None:
    with pytest.raises(InvalidRequestError, match="a page holds 1 to 500"):
        store.list_requests(wanted)


def test_requesters_that_change_are_found_by_their_new_names(store: SqlStore) -> None:
    request = a_request()
    put(store, request)
    with store.begin() as transaction:
        transaction.update_request(replace(request, requesters=(Person("carol"),)))
    assert store.list_requests(RequestFilter(requester="engineer")).total == 0
    assert store.list_requests(RequestFilter(requester="carol")).total == 1


def test_only_what_has_run_out_is_due_oldest_first(store: SqlStore) -> None:
    now = NOON + timedelta(hours=1)
    expired = a_request(expires_at=now)
    waiting = a_request(expires_at=now + timedelta(microseconds=1))
    lapsed = replace(decided(a_request()), receipt_expires_at=now)
    good = replace(decided(a_request()), receipt_expires_at=now + timedelta(microseconds=1))
    redeemed = replace(lapsed, id=a_request().id, state=State.REDEEMED)
    put(store, expired, waiting, lapsed, good, redeemed)
    with store.begin() as transaction:
        assert list(transaction.find_due(now, limit=10)) == [expired, lapsed]
        assert list(transaction.find_due(now, limit=1)) == [expired]


def test_what_ran_out_first_is_due_first(store: SqlStore) -> None:
    later, sooner = a_request(expires_at=NOON), a_request(expires_at=NOON - timedelta(hours=1))
    put(store, later, sooner)
    with store.begin() as transaction:
        assert list(transaction.find_due(NOON, limit=10)) == [sooner, later]
        assert list(transaction.find_due(NOON, limit=1)) == [sooner]


# SQLite has one writer: there is no second transaction to hold a row.
@pytest.mark.parametrize(
    "database_url", [pytest.param("postgresql", marks=pytest.mark.services)], indirect=True
)
def test_what_another_transaction_holds_is_not_due_for_us(store: SqlStore) -> None:
    requests = [a_request(expires_at=NOON) for _ in range(3)]
    put(store, *requests)
    with store.begin() as first, store.begin() as second:
        assert [found.id for found in first.find_due(NOON, limit=2)] == [requests[0].id, requests[1].id]
        assert [found.id for found in second.find_due(NOON, limit=2)] == [requests[2].id]


def test_times_are_ordered_whatever_their_offset(store: SqlStore) -> None:
    east = timezone(timedelta(hours=9))
    request = a_request(expires_at=NOON.astimezone(east))
    put(store, request)
    with store.begin() as transaction:
        assert list(transaction.find_due(NOON - timedelta(seconds=1), limit=1)) == []
        assert list(transaction.find_due(NOON, limit=1)) == [request]


def test_an_idempotency_key_belongs_to_its_caller(store: SqlStore) -> None:
    stored = StoredIdempotencyKey(request_id="r", body_sha256="d" * 64)
    with store.begin() as transaction:
        assert transaction.find_idempotency_key("alice", "k") is None
        transaction.insert_idempotency_key("alice", "k", stored)
    with store.begin() as transaction:
        assert transaction.find_idempotency_key("alice", "k") == stored
        assert transaction.find_idempotency_key("bob", "k") is None


@pytest.mark.parametrize("key", ["", "k" * 256, "a\x00b"])
def test_an_idempotency_key_that_cannot_be_kept_is_refused(store: SqlStore, key: str) -> None:
    with pytest.raises(InvalidRequestError), store.begin() as transaction:
        transaction.find_idempotency_key("alice", key)
    with pytest.raises(InvalidRequestError), store.begin() as transaction:
        transaction.insert_idempotency_key(
            "alice", key, StoredIdempotencyKey(request_id="r", body_sha256="d")
        )


def test_of_two_who_keep_one_key_at_once_one_is_told(store: SqlStore) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def keep(number: int) -> None:
        start.wait()
        try:
            with store.begin() as transaction:
                stored = StoredIdempotencyKey(request_id=str(number), body_sha256="d" * 64)
                transaction.insert_idempotency_key("alice", "k", stored)
                transaction.insert_request(a_request(None))
            outcomes.append("kept")
        except IdempotencyConflictError:
            outcomes.append("told")

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["kept", "told", "told", "told"]
    assert store.list_requests(RequestFilter()).total == 1
