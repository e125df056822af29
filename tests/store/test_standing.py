"""Standing requests and receipts are found by what they are for, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from airflow_approvals.core.model import ApprovalRequest, Grant, GrantKind, Person, StandingTerms, State
from airflow_approvals.ports import RequestFilter
from airflow_approvals.store.sql import SqlStore
from tests.store.samples import NOON, SLOT, a_request, decided
from tests.store.test_requests import put

TERMS = StandingTerms(approved_id="before", days=5, dag_id="export", task_id="publish", gate="")


def standing(terms: StandingTerms = TERMS, **changes: object) -> ApprovalRequest:
    return replace(decided(a_request(None)), standing=terms, **changes)  # type: ignore[arg-type]  # of one call each


def test_what_stands_is_found_by_its_gate_and_state_newest_first(store: SqlStore) -> None:
    older, newer = standing(), standing()
    elsewhere = [
        standing(replace(TERMS, task_id="other")),
        standing(replace(TERMS, gate="second")),
        standing(state=State.REVOKED),
        decided(a_request()),
    ]
    put(store, older, *elsewhere, newer)
    with store.begin() as transaction:
        found = transaction.find_standing(TERMS, state=State.APPROVED)
        assert [request.id for request in found] == [newer.id, older.id]
        assert found[0] == newer
        assert transaction.find_standing(TERMS, state=State.PENDING) == []


def test_what_stands_is_listed_with_its_task_and_takes_no_runs_place(store: SqlStore) -> None:
    put(store, standing())
    assert store.list_requests(RequestFilter(dag_id="export", task_id="publish")).total == 1
    with store.begin() as transaction:
        assert transaction.find_latest_request(SLOT, for_update=True) is None


def test_what_stands_and_what_it_has_let_out_are_listed_apart(store: SqlStore) -> None:
    stands = standing()
    let_out = [
        replace(
            decided(a_request()),
            granted=Grant(kind=GrantKind.STANDING, by=(Person("bob"),), reason="", standing_id=standing_id),
        )
        for standing_id in (stands.id, "another")
    ]
    ended = replace(a_request(), voided=stands.id)
    put(store, stands, *let_out, ended)

    def ids(wanted: RequestFilter) -> list[str]:
        return [request.id for request in store.list_requests(wanted).requests]

    assert ids(RequestFilter(is_standing=True)) == [stands.id]
    assert len(ids(RequestFilter(is_standing=False))) == 3
    assert ids(RequestFilter(granted_by=stands.id)) == [let_out[0].id]
    assert ids(RequestFilter(voided=stands.id)) == [ended.id]


def test_its_end_is_found_like_that_of_any_approval(store: SqlStore) -> None:
    request = standing(receipt_expires_at=NOON + timedelta(days=5))
    put(store, request)
    with store.begin() as transaction:
        assert transaction.find_due(NOON + timedelta(days=4), limit=10) == []
        due = transaction.find_due(NOON + timedelta(days=5), limit=10)
        assert [each.id for each in due] == [request.id]


def test_receipts_come_in_order_of_arrival_page_by_page(store: SqlStore) -> None:
    put(store, a_request(), decided(a_request()), a_request(None), decided(a_request(None)))
    first = store.receipts_after(0, limit=1)
    rest = store.receipts_after(first[0].seq, limit=10)
    assert [(each.index, each.envelope) for each in (*first, *rest)] == [
        (3, {"payload": "e30=", "signatures": []})
    ] * 2
    assert store.receipts_after(rest[-1].seq, limit=10) == []
