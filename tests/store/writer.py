"""A process that writes to the store: `python -m tests.store.writer URL COUNT`, or `die` for COUNT."""

from __future__ import annotations

import os
import signal
import sys
import threading

from airflow_approvals.store import engine
from airflow_approvals.store.sql import SqlStore, create_store
from tests.store.samples import SLOT, a_fact, a_request, decided

THREADS = 4
PATIENCE = 600
"""Seconds for a turn to write: twelve writers want one, and a disk may take half a second for each commit."""


def write(store: SqlStore, count: int) -> None:
    """Open `count` requests and decide them, one ledger entry for each step."""
    for _ in range(count):
        request = a_request(None)
        with store.begin() as transaction:
            transaction.insert_request(request)
            transaction.append(a_fact("request.opened", request.id))
        with store.begin() as transaction:
            found = transaction.get_request(request.id, for_update=True)
            transaction.update_request(decided(found))
            transaction.append(a_fact("request.approved", request.id))


def write_in_threads(store: SqlStore, count: int) -> list[BaseException]:
    """Write from several threads at once, `count` requests each; return what went wrong."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            write(store, count)
        except BaseException as error:  # noqa: BLE001  # handed to whoever asked
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def die_half_way(store: SqlStore) -> None:
    """Be killed after everything is written and before it is committed."""
    with store.begin() as transaction:
        request = a_request()
        transaction.find_latest_request(SLOT, for_update=True)
        transaction.insert_request(request)
        transaction.append(a_fact("request.opened", request.id))
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    engine.LOCK_WAIT_SECONDS = PATIENCE
    opened = create_store(sys.argv[1])
    if sys.argv[2] == "die":
        die_half_way(opened)
    sys.exit(len(write_in_threads(opened, int(sys.argv[2]))))
