from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_approvals.core import merkle
from airflow_approvals.core.errors import ServiceUnavailableError
from airflow_approvals.core.model import Person, State, Vote
from airflow_approvals.ports import RequestFilter
from airflow_approvals.store import engine
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from tests.store.samples import SLOT, a_fact, a_request, decided
from tests.store.writer import PATIENCE, THREADS, write, write_in_threads

CHECKOUT = Path(__file__).parents[2]


def start_writer(url: str, what: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.store.writer", url, what], cwd=CHECKOUT)


def check_ledger(store: SqlStore, size: int) -> None:
    entries = store.entries_after(-1, limit=size + 1)
    assert [entry.index for entry in entries] == list(range(size))
    assert [json.loads(entry.body)["index"] for entry in entries] == list(range(size))
    frontier = merkle.Frontier()
    for entry in entries:
        frontier, _ = merkle.grow(frontier, merkle.leaf_hash(entry.body))
    assert store.ledger_root(size) == merkle.root_of(frontier)


def test_threads_and_processes_that_write_at_once_leave_a_ledger_without_gap_or_double(
    store: SqlStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_WAIT_SECONDS", PATIENCE)
    others = [start_writer(database_url, "10"), start_writer(database_url, "10")]
    own = create_store(database_url)
    failures = write_in_threads(own, 10)
    own.close()
    assert [other.wait(timeout=PATIENCE) for other in others] == [0, 0]
    assert failures == []
    requests = 3 * THREADS * 10
    check_ledger(store, 2 * requests)
    assert store.list_requests(RequestFilter(states=(State.APPROVED,))).total == requests


def test_votes_on_one_request_at_once_are_all_counted_one_after_the_other(store: SqlStore) -> None:
    request = a_request()
    with store.begin() as transaction:
        transaction.insert_request(request)
    pattern = decided(request).votes[0]

    def vote(voter: Person) -> None:
        with store.begin() as transaction:
            found = transaction.get_request(request.id, for_update=True)
            ballot: Vote = replace(pattern, voter=voter)
            transaction.update_request(replace(found, votes=(*found.votes, ballot)))
            transaction.append(a_fact(request_id=request.id, voter=voter))

    voters = [Person(f"voter{number}") for number in range(8)]
    threads = [threading.Thread(target=vote, args=(voter,)) for voter in voters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {ballot.voter for ballot in store.get_request(request.id).votes} == set(voters)
    check_ledger(store, 8)


def test_what_is_not_committed_yet_is_not_seen(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.insert_request(a_request())
        transaction.append(a_fact())
        assert store.ledger_size() == 0
        assert list(store.entries_after(-1, limit=1)) == []
        assert store.list_requests(RequestFilter()).total == 0
    assert store.ledger_size() == 1


def test_an_error_in_the_block_leaves_nothing_behind(store: SqlStore) -> None:
    def break_half_way() -> None:
        with store.begin() as transaction:
            transaction.find_latest_request(SLOT, for_update=True)
            transaction.insert_request(a_request())
            transaction.append(a_fact())
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        break_half_way()
    assert store.list_requests(RequestFilter()).total == 0
    assert store.ledger_size() == 0
    write(store, 1)
    check_ledger(store, 2)


def test_a_writer_that_is_killed_leaves_nothing_behind_and_blocks_nobody(
    store: SqlStore, database_url: str
) -> None:
    write(store, 1)
    assert start_writer(database_url, "die").wait(timeout=PATIENCE) < 0
    assert store.list_requests(RequestFilter()).total == 1
    with store.begin() as transaction:
        assert transaction.find_latest_request(SLOT, for_update=True) is None
        transaction.insert_request(a_request())
        transaction.append(a_fact())
    check_ledger(store, 3)


def test_a_lock_that_is_not_to_be_had_is_a_service_that_is_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_WAIT_SECONDS", 1)
    holder, waiter = create_store(database_url), create_store(database_url)
    create_tables(holder.engine)
    try:
        with holder.begin() as transaction:
            transaction.append(a_fact())
            with pytest.raises(ServiceUnavailableError, match="nothing was decided"), waiter.begin() as other:
                other.append(a_fact())
        with waiter.begin() as other:
            assert other.append(a_fact()).index == 1
    finally:
        holder.close()
        waiter.close()


def test_a_second_transaction_inside_the_first_is_refused_instead_of_waiting_for_ever(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_WAIT_SECONDS", 1)
    with store.begin() as transaction:
        transaction.append(a_fact())
        with pytest.raises(ServiceUnavailableError), store.begin() as other:
            other.append(a_fact())
