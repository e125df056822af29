"""The ledger's rows: entries as written, the Merkle nodes over them, and the head that appenders lock."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from airflow_approvals.core import merkle
from airflow_approvals.core.errors import InvalidRequestError, LedgerTamperedError
from airflow_approvals.core.ledger import entry_body
from airflow_approvals.core.model import Entry, EntryDraft
from airflow_approvals.store.tables import checkpoints, ledger_entries, ledger_head, ledger_nodes

_HEAD = 1
_HASH_BYTES = 32


def append(connection: Connection, draft: EntryDraft) -> Entry:
    """Write the fact as the next entry; the head stays locked until the transaction ends.

    Commits therefore happen in index order: a reader that has seen entry N has seen all before it.
    """
    frontier = _lock_head(connection)
    entry = Entry(index=frontier.size, body=entry_body(draft, frontier.size))
    grown, nodes = merkle.grow(frontier, merkle.leaf_hash(entry.body))
    connection.execute(
        insert(ledger_entries).values(
            idx=entry.index, kind=draft.kind, request_id=draft.request_id, body=entry.body
        )
    )
    connection.execute(
        insert(ledger_nodes), [{"level": node.level, "idx": node.index, "hash": node.hash} for node in nodes]
    )
    connection.execute(
        update(ledger_head)
        .where(ledger_head.c.id == _HEAD)
        .values(size=grown.size, peaks=b"".join(grown.peaks))
    )
    return entry


def entries_after(connection: Connection, index: int, *, limit: int) -> Sequence[Entry]:
    """Return at most `limit` entries after `index` (-1: from the first), in order."""
    rows = connection.execute(
        select(ledger_entries.c.idx, ledger_entries.c.body)
        .where(ledger_entries.c.idx > index)
        .order_by(ledger_entries.c.idx)
        .limit(limit)
    )
    return [Entry(index=idx, body=bytes(body)) for idx, body in rows]


def entries_of_kind(connection: Connection, kind: str, *, limit: int) -> Sequence[Entry]:
    """Return the newest entries of `kind`, newest first."""
    rows = connection.execute(
        select(ledger_entries.c.idx, ledger_entries.c.body)
        .where(ledger_entries.c.kind == kind)
        .order_by(ledger_entries.c.idx.desc())
        .limit(limit)
    )
    return [Entry(index=idx, body=bytes(body)) for idx, body in rows]


def entries_of_request(connection: Connection, request_id: str, *, limit: int) -> Sequence[Entry]:
    """Return the newest entries about one request, newest first."""
    rows = connection.execute(
        select(ledger_entries.c.idx, ledger_entries.c.body)
        .where(ledger_entries.c.request_id == request_id)
        .order_by(ledger_entries.c.idx.desc())
        .limit(limit)
    )
    return [Entry(index=idx, body=bytes(body)) for idx, body in rows]


def find_last_entry(connection: Connection, kind: str) -> Entry | None:
    """Return the newest entry of `kind`; the head is locked, so it stays the newest in this transaction."""
    _lock_head(connection)
    return next(iter(entries_of_kind(connection, kind, limit=1)), None)


def leaves_after(connection: Connection, index: int, *, limit: int) -> Sequence[tuple[bytes, bytes]]:
    """Return body and stored leaf hash of the entries after `index`; a hash that is gone is empty."""
    stored = (ledger_nodes.c.idx == ledger_entries.c.idx) & (ledger_nodes.c.level == 0)
    rows = connection.execute(
        select(ledger_entries.c.body, ledger_nodes.c.hash)
        .outerjoin(ledger_nodes, stored)
        .where(ledger_entries.c.idx > index)
        .order_by(ledger_entries.c.idx)
        .limit(limit)
    )
    return [(bytes(body), bytes(leaf or b"")) for body, leaf in rows]


def checkpoints_after(connection: Connection, size: int, *, limit: int) -> Sequence[tuple[int, str]]:
    """Return size and note of the checkpoints kept for more than `size` entries, in order."""
    rows = connection.execute(
        select(checkpoints.c.size, checkpoints.c.note)
        .where(checkpoints.c.size > size)
        .order_by(checkpoints.c.size)
        .limit(limit)
    )
    return [(int(kept), str(note)) for kept, note in rows]


def size_of(connection: Connection) -> int:
    """Return how many entries there are."""
    size = connection.scalar(select(ledger_head.c.size).where(ledger_head.c.id == _HEAD))
    return 0 if size is None else int(size)


def root_at(connection: Connection, size: int) -> bytes:
    """Return the RFC 6962 root over the first `size` entries; raise `InvalidRequestError` for more."""
    _check_size(connection, size)
    coordinates = merkle.frontier_coordinates(size)
    nodes = _Nodes(connection, coordinates)
    return merkle.root_of(
        merkle.Frontier(size=size, peaks=tuple(nodes.read(level, index) for level, index in coordinates))
    )


def inclusion_proof(connection: Connection, index: int, size: int) -> tuple[bytes, ...]:
    """Return the audit path of entry `index` in the tree of the first `size` entries."""
    _check_size(connection, size)
    nodes = _Nodes(connection, merkle.inclusion_coordinates(index, size))
    return merkle.inclusion_proof(index, size, nodes.read)


def consistency_proof(connection: Connection, old_size: int, new_size: int) -> tuple[bytes, ...]:
    """Return the proof that the tree of `new_size` entries begins with the one of `old_size`."""
    _check_size(connection, new_size)
    nodes = _Nodes(connection, merkle.consistency_coordinates(old_size, new_size))
    return merkle.consistency_proof(old_size, new_size, nodes.read)


def save_checkpoint(connection: Connection, size: int, note: str) -> None:
    """Keep the signed checkpoint; one kept for this size before stays, it may have been given out."""
    # SQLite's guard refuses even an insert that would do nothing; its one writer is never overtaken.
    if find_checkpoint(connection, size) is None:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(dialect.insert(checkpoints).values(size=size, note=note).on_conflict_do_nothing())


def find_checkpoint(connection: Connection, size: int) -> str | None:
    """Return the checkpoint that was kept for `size` entries."""
    return connection.scalar(select(checkpoints.c.note).where(checkpoints.c.size == size))


def last_checkpoint(connection: Connection) -> tuple[int, str] | None:
    """Return size and note of the largest checkpoint."""
    row = connection.execute(
        select(checkpoints.c.size, checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(1)
    ).first()
    return None if row is None else (int(row.size), str(row.note))


class _Nodes:
    """The named nodes, fetched in one query."""

    def __init__(self, connection: Connection, coordinates: Sequence[merkle.Coordinate]) -> None:
        key = tuple_(ledger_nodes.c.level, ledger_nodes.c.idx)
        query = select(ledger_nodes).where(key.in_(coordinates))
        self._hashes = {(row.level, row.idx): bytes(row.hash) for row in connection.execute(query)}

    def read(self, level: int, index: int) -> bytes:
        try:
            return self._hashes[level, index]
        except KeyError:
            raise LedgerTamperedError(
                f"the ledger's tree has no node {index} at level {level}, and it was written once; "
                "the database was changed behind our back, export the ledger and verify it",
                index=index << level,
            ) from None


def _lock_head(connection: Connection) -> merkle.Frontier:
    query = select(ledger_head.c.size, ledger_head.c.peaks).where(ledger_head.c.id == _HEAD).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(
            dialect.insert(ledger_head).values(id=_HEAD, size=0, peaks=b"").on_conflict_do_nothing()
        )
        row = connection.execute(query).one()
    peaks = bytes(row.peaks)
    return merkle.Frontier(
        size=row.size,
        peaks=tuple(peaks[start : start + _HASH_BYTES] for start in range(0, len(peaks), _HASH_BYTES)),
    )


def _check_size(connection: Connection, size: int) -> None:
    stored = size_of(connection)
    if not 0 <= size <= stored:
        raise InvalidRequestError(f"the ledger has {stored} entries, not {size}; ask for at most that many")
