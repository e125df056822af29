from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from sqlalchemy import exc, insert, text

from airflow_approvals.core import merkle
from airflow_approvals.core.errors import InvalidRequestError, LedgerTamperedError
from airflow_approvals.core.ledger import entry_body
from airflow_approvals.core.model import Entry
from airflow_approvals.store.sql import SqlStore
from airflow_approvals.store.tables import ledger_entries, ledger_nodes
from tests.store.samples import a_fact


def fill(store: SqlStore, count: int) -> list[Entry]:
    entries = []
    for _ in range(count):
        with store.begin() as transaction:
            entries.append(transaction.append(a_fact()))
    return entries


def test_an_empty_ledger_has_the_empty_root(store: SqlStore) -> None:
    assert store.ledger_size() == 0
    assert store.ledger_root(0) == merkle.EMPTY_ROOT
    assert list(store.entries_after(-1, limit=10)) == []
    assert store.last_checkpoint() is None


def test_entries_are_kept_byte_for_byte_in_order(store: SqlStore) -> None:
    written = fill(store, 5)
    assert [entry.index for entry in written] == [0, 1, 2, 3, 4]
    assert written[3].body == entry_body(a_fact(), 3)
    assert list(store.entries_after(-1, limit=10)) == written
    assert list(store.entries_after(1, limit=2)) == written[2:4]
    assert json.loads(written[4].body)["index"] == 4


def test_every_root_and_proof_is_that_of_rfc_6962(store: SqlStore) -> None:
    entries = fill(store, 21)
    leaves = [merkle.leaf_hash(entry.body) for entry in entries]
    roots = {}
    frontier = merkle.Frontier()
    for size in range(22):
        roots[size] = merkle.root_of(frontier)
        if size < 21:
            frontier, _ = merkle.grow(frontier, leaves[size])
    for size in range(22):
        assert store.ledger_root(size) == roots[size]
        for index in range(size):
            merkle.verify_inclusion(
                index=index,
                size=size,
                leaf=leaves[index],
                proof=store.inclusion_proof(index, size),
                root=roots[size],
            )
        merkle.verify_consistency(
            old_size=size,
            new_size=21,
            old_root=roots[size],
            new_root=roots[21],
            proof=store.consistency_proof(size, 21),
        )


def test_more_than_there_is_cannot_be_proven(store: SqlStore) -> None:
    fill(store, 2)
    for ask in (
        lambda: store.ledger_root(3),
        lambda: store.ledger_root(-1),
        lambda: store.inclusion_proof(0, 3),
        lambda: store.inclusion_proof(2, 2),
        lambda: store.consistency_proof(1, 3),
        lambda: store.consistency_proof(2, 1),
    ):
        with pytest.raises(InvalidRequestError):
            ask()


def test_a_node_that_was_removed_is_missed(store: SqlStore) -> None:
    fill(store, 4)
    with store.engine.begin() as connection:
        drop = (
            "ALTER TABLE approvals_ledger_node DISABLE TRIGGER ALL"
            if store.engine.dialect.name == "postgresql"
            else "DROP TRIGGER approvals_ledger_node_refuses_delete"
        )
        connection.execute(text(drop))
        connection.execute(text("DELETE FROM approvals_ledger_node WHERE level = 0 AND idx = 1"))
    with pytest.raises(LedgerTamperedError) as caught:
        store.inclusion_proof(0, 4)
    assert caught.value.index == 1


TAMPERINGS = {
    "entry changed": "UPDATE approvals_ledger_entry SET body = body WHERE idx = 1",
    "entry removed": "DELETE FROM approvals_ledger_entry WHERE idx = 1",
    "all entries removed": "DELETE FROM approvals_ledger_entry",
    "entry moved": "UPDATE approvals_ledger_entry SET idx = 9 WHERE idx = 1",
    "node changed": "UPDATE approvals_ledger_node SET hash = hash WHERE level = 0",
    "node removed": "DELETE FROM approvals_ledger_node WHERE level = 1",
    "checkpoint changed": "UPDATE approvals_checkpoint SET note = note",
    "checkpoint removed": "DELETE FROM approvals_checkpoint",
}


@pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_the_database_refuses_to_change_what_is_written(store: SqlStore, statement: str) -> None:
    before = fill(store, 3)
    store.save_checkpoint(3, "a note")
    with pytest.raises(exc.DBAPIError, match="append-only"), store.engine.begin() as connection:
        connection.execute(text(statement))
    assert list(store.entries_after(-1, limit=10)) == before


REPLACEMENTS: dict[str, Callable[[str], str]] = {
    "replace entry": lambda dialect: (
        "INSERT INTO approvals_ledger_entry (idx, kind, body) VALUES (1, 'x', '') "
        "ON CONFLICT (idx) DO UPDATE SET kind = 'x'"
        if dialect == "postgresql"
        else "INSERT OR REPLACE INTO approvals_ledger_entry (idx, kind, body) VALUES (1, 'x', '')"
    ),
    "upsert node": lambda _: (
        "INSERT INTO approvals_ledger_node (level, idx, hash) VALUES (0, 1, '') "
        "ON CONFLICT (level, idx) DO UPDATE SET hash = ''"
    ),
    "empty": lambda dialect: (
        "TRUNCATE approvals_ledger_entry" if dialect == "postgresql" else "DELETE FROM approvals_ledger_entry"
    ),
}


@pytest.mark.parametrize("statement", REPLACEMENTS.values(), ids=REPLACEMENTS.keys())
def test_the_database_refuses_the_ways_around_too(store: SqlStore, statement: Callable[[str], str]) -> None:
    before = fill(store, 3)
    with pytest.raises(exc.DBAPIError, match="append-only"), store.engine.begin() as connection:
        connection.execute(text(statement(store.engine.dialect.name)))
    assert list(store.entries_after(-1, limit=10)) == before


def test_an_index_cannot_be_written_twice(store: SqlStore) -> None:
    fill(store, 1)
    for table, row in (
        (ledger_entries, {"idx": 0, "kind": "x", "body": b""}),
        (ledger_nodes, {"level": 0, "idx": 0, "hash": b""}),
    ):
        with pytest.raises(exc.IntegrityError), store.engine.begin() as connection:
            connection.execute(insert(table).values(row))


def test_a_checkpoint_stays_as_it_was_given_out(store: SqlStore) -> None:
    fill(store, 3)
    store.save_checkpoint(2, "two")
    store.save_checkpoint(3, "three")
    store.save_checkpoint(2, "another two")
    assert store.find_checkpoint(2) == "two"
    assert store.find_checkpoint(1) is None
    assert store.last_checkpoint() == (3, "three")
