from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from airflow_approvals.core import merkle
from airflow_approvals.store.sql import SqlStore
from airflow_approvals.store.tables import ledger_entries, ledger_head, ledger_nodes
from tests.bench.ledger_append import extend
from tests.store.samples import a_fact


def rows(store: SqlStore) -> list[Sequence[Any]]:
    with store.engine.connect() as connection:
        return [
            list(connection.execute(select(table).order_by(*table.primary_key)))
            for table in (ledger_entries, ledger_nodes, ledger_head)
        ]


def test_what_the_benchmark_loads_in_bulk_is_what_appending_would_have_written(
    store: SqlStore, empty_store: SqlStore
) -> None:
    frontier = extend(empty_store, merkle.Frontier(), 20)
    extend(empty_store, frontier, 17)
    for number in range(37):
        with store.begin() as transaction:
            transaction.append(a_fact(number=number))
    assert rows(empty_store) == rows(store)
