"""What an append costs in a short and in a long ledger: it must not matter how long it is."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert

from airflow_approvals.core import merkle
from airflow_approvals.core.ledger import entry_body
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from airflow_approvals.store.tables import ledger_entries, ledger_head, ledger_nodes
from tests.store.samples import a_fact

SHORT, LONG = 1_000, 1_000_000
SAMPLES = 200
_BATCH = 20_000


def figures(*, short: int = SHORT, long: int = LONG) -> dict[str, float]:
    """Return the median milliseconds of an append transaction on SQLite at both lengths, and their ratio.

    The two ledgers take turns, so that whatever else the machine does weighs on both.
    """
    with tempfile.TemporaryDirectory(prefix="airflow-approvals-bench-") as folder:
        stores = [_filled(Path(folder) / f"{size}.db", size) for size in (short, long)]
        taken: list[list[float]] = [[], []]
        for _ in range(SAMPLES):
            for store, times in zip(stores, taken, strict=True):
                times.append(_append_ms(store))
        for store in stores:
            store.close()
    at_short, at_long = (statistics.median(times) for times in taken)
    return {
        "append_ms_1e3": at_short,
        "append_ms_1e6": at_long,
        "append_ratio_1e6_to_1e3": at_long / at_short,
    }


def extend(store: SqlStore, frontier: merkle.Frontier, count: int) -> merkle.Frontier:
    """Add `count` entries in large batches: the same rows that as many single appends would have written."""
    left = count
    while left > 0:
        entries, nodes = [], []
        for _ in range(min(left, _BATCH)):
            draft = a_fact("vote.cast", None, number=frontier.size)
            body = entry_body(draft, frontier.size)
            entries.append({"idx": frontier.size, "kind": draft.kind, "request_id": None, "body": body})
            frontier, grown = merkle.grow(frontier, merkle.leaf_hash(body))
            nodes += [{"level": node.level, "idx": node.index, "hash": node.hash} for node in grown]
        with store.engine.connect() as plain:
            connection = plain.execution_options(approvals_writes=True)
            with connection.begin():
                connection.execute(insert(ledger_entries), entries)
                connection.execute(insert(ledger_nodes), nodes)
                connection.execute(ledger_head.delete())
                connection.execute(
                    insert(ledger_head), {"id": 1, "size": frontier.size, "peaks": b"".join(frontier.peaks)}
                )
        left -= len(entries)
    return frontier


def _filled(path: Path, size: int) -> SqlStore:
    store = create_store(f"sqlite:///{path}")
    create_tables(store.engine)
    extend(store, merkle.Frontier(), size)
    return store


def _append_ms(store: SqlStore) -> float:
    began = time.perf_counter()
    with store.begin() as transaction:
        transaction.append(a_fact())
    return (time.perf_counter() - began) * 1000
