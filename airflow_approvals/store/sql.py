"""`SqlStore`: the store of `ports.py` on Airflow's metadata database.

A transaction that cannot get its locks in time raises `ServiceUnavailableError` and has changed nothing; it
is not repeated here, because only the caller knows whether its facts are still true. Callers repeat the whole
call, with the same Idempotency-Key where there is one. Lock order, so that no two transactions wait for each
other: slot, then request, then the ledger's head.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from airflow_approvals.core.model import ApprovalRequest, Entry, EntryDraft, StandingTerms, State
from airflow_approvals.ports import (
    Page,
    RequestFilter,
    StoredIdempotencyKey,
    StoredReceipt,
    TaskSlot,
    Visibility,
)
from airflow_approvals.store import ledger, requests
from airflow_approvals.store.engine import Database, open_engine


def create_store(sql_alchemy_conn: str, connect_args: Mapping[str, Any] | None = None) -> SqlStore:
    """Return the store in the database of `[database] sql_alchemy_conn`, on an engine of its own."""
    return SqlStore(open_engine(sql_alchemy_conn, connect_args))


class SqlTransaction:
    """One all-or-nothing change; what it wrote is committed when the `begin()` block ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get_request(self, request_id: str, *, for_update: bool = False) -> ApprovalRequest:
        return requests.get_request(self._connection, request_id, for_update=for_update)

    def find_latest_request(self, slot: TaskSlot, *, for_update: bool = False) -> ApprovalRequest | None:
        return requests.find_latest_request(self._connection, slot, for_update=for_update)

    def find_idempotency_key(self, caller: str, key: str) -> StoredIdempotencyKey | None:
        return requests.find_idempotency_key(self._connection, caller, key)

    def insert_request(self, request: ApprovalRequest) -> None:
        requests.insert_request(self._connection, request)

    def insert_idempotency_key(self, caller: str, key: str, stored: StoredIdempotencyKey) -> None:
        requests.insert_idempotency_key(self._connection, caller, key, stored)

    def update_request(self, request: ApprovalRequest) -> None:
        requests.update_request(self._connection, request)

    def find_standing(self, terms: StandingTerms, *, state: State) -> Sequence[ApprovalRequest]:
        return requests.find_standing(self._connection, terms, state=state)

    def append(self, draft: EntryDraft) -> Entry:
        return ledger.append(self._connection, draft)

    def find_last_entry(self, kind: str) -> Entry | None:
        return ledger.find_last_entry(self._connection, kind)

    def find_due(self, now: datetime, *, limit: int) -> Sequence[ApprovalRequest]:
        return requests.find_due(self._connection, now, limit=limit)

    def find_unanswered(self, now: datetime, *, limit: int) -> Sequence[ApprovalRequest]:
        return requests.find_unanswered(self._connection, now, limit=limit)


class SqlStore:
    """Requests and the ledger, on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._database = Database(engine)

    @contextmanager
    def begin(self) -> Iterator[SqlTransaction]:
        """Commit when the block ends, roll back when it raises."""
        with self._database.writing() as connection:
            yield SqlTransaction(connection)

    def get_request(self, request_id: str) -> ApprovalRequest:
        with self._database.reading() as connection:
            return requests.get_request(connection, request_id)

    def list_requests(self, wanted: RequestFilter) -> Page:
        with self._database.reading() as connection:
            return requests.list_requests(connection, wanted)

    def pending_ids(self) -> Sequence[str]:
        with self._database.reading() as connection:
            return requests.pending_ids(connection)

    def visible_among(self, ids: Collection[str], viewer: Visibility) -> frozenset[str]:
        with self._database.reading() as connection:
            return requests.visible_among(connection, ids, viewer)

    def entries_after(self, index: int, *, limit: int) -> Sequence[Entry]:
        with self._database.reading() as connection:
            return ledger.entries_after(connection, index, limit=limit)

    def entries_of_kind(self, kind: str, *, limit: int) -> Sequence[Entry]:
        with self._database.reading() as connection:
            return ledger.entries_of_kind(connection, kind, limit=limit)

    def entries_of_request(self, request_id: str, *, limit: int) -> Sequence[Entry]:
        with self._database.reading() as connection:
            return ledger.entries_of_request(connection, request_id, limit=limit)

    def leaves_after(self, index: int, *, limit: int) -> Sequence[tuple[bytes, bytes]]:
        with self._database.reading() as connection:
            return ledger.leaves_after(connection, index, limit=limit)

    def checkpoints_after(self, size: int, *, limit: int) -> Sequence[tuple[int, str]]:
        with self._database.reading() as connection:
            return ledger.checkpoints_after(connection, size, limit=limit)

    def receipts_after(self, seq: int, *, limit: int) -> Sequence[StoredReceipt]:
        with self._database.reading() as connection:
            return requests.receipts_after(connection, seq, limit=limit)

    def ledger_size(self) -> int:
        with self._database.reading() as connection:
            return ledger.size_of(connection)

    def ledger_root(self, size: int) -> bytes:
        with self._database.reading() as connection:
            return ledger.root_at(connection, size)

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        with self._database.reading() as connection:
            return ledger.inclusion_proof(connection, index, size)

    def consistency_proof(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        with self._database.reading() as connection:
            return ledger.consistency_proof(connection, old_size, new_size)

    def save_checkpoint(self, size: int, note: str) -> None:
        with self._database.writing() as connection:
            ledger.save_checkpoint(connection, size, note)

    def find_checkpoint(self, size: int) -> str | None:
        with self._database.reading() as connection:
            return ledger.find_checkpoint(connection, size)

    def last_checkpoint(self) -> tuple[int, str] | None:
        with self._database.reading() as connection:
            return ledger.last_checkpoint(connection)

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()
