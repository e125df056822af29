"""Lineage events in Airflow's metadata database: queued in order, sent by one process at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from airflow_approvals.core.model import Entry
from airflow_approvals.lineage.spool import LEASE, Event, Waiting, as_text, key_of
from airflow_approvals.store.engine import Database
from airflow_approvals.store.ledger import entries_after
from airflow_approvals.store.tables import PROBLEM_LENGTH, ledger_entries, lineage_cursor, lineage_events

_ONE = 1
_BATCH = 200


class SqlLineageSpool:
    """The queue, and how far the ledger was read for it."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def plan(self, make: Callable[[Entry], Event | None], *, now: datetime) -> int:
        """Put the events of new ledger entries into the queue; return how many entries were read."""
        with self._database.reading() as connection:
            last = connection.scalar(select(lineage_cursor.c.idx).where(lineage_cursor.c.id == _ONE))
            found = entries_after(connection, -1 if last is None else last, limit=_BATCH)
        if not found:
            return 0
        # Made outside of the transaction: a request is read for each, and SQLite has one writer.
        events = [(entry.index, make(entry)) for entry in found]
        with self._database.writing() as connection:
            after = _lock_cursor(connection)
            for index, event in events:
                if index > after and event is not None:
                    body = as_text(event)
                    _put(connection, event["run"]["runId"], key_of(event["eventType"], body), body, now)
            _move_cursor(connection, max(after, found[-1].index))
        return len(found)

    def skip_to_end(self) -> None:
        """Read the ledger to its end without telling anything."""
        with self._database.reading() as connection:
            last = connection.scalar(select(lineage_cursor.c.idx).where(lineage_cursor.c.id == _ONE))
            if not entries_after(connection, -1 if last is None else last, limit=1):
                return
        with self._database.writing() as connection:
            after = _lock_cursor(connection)
            newest = connection.scalar(select(func.max(ledger_entries.c.idx)))
            _move_cursor(connection, max(after, -1 if newest is None else newest))

    def put(self, run_id: str, key: str, body: str, *, now: datetime) -> bool:
        """Queue an event; return False when this run has told it before."""
        with self._database.writing() as connection:
            return _put(connection, run_id, key, body, now)

    def take_turn(self, *, lease: str, now: datetime) -> bool:
        """Return whether this caller is the one to send, for `LEASE` from `now`."""
        with self._database.reading() as connection:
            if connection.scalar(select(lineage_events.c.id).where(_due(now)).limit(1)) is None:
                return False
        with self._database.writing() as connection:
            _lock_cursor(connection)
            free = or_(lineage_cursor.c.leased_until.is_(None), lineage_cursor.c.leased_until <= now)
            taken = connection.execute(
                update(lineage_cursor)
                .where(lineage_cursor.c.id == _ONE, free)
                .values(lease=lease, leased_until=now + LEASE)
            )
            return bool(taken.rowcount == 1)

    def give_turn(self, *, lease: str) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(lineage_cursor)
                .where(lineage_cursor.c.id == _ONE, lineage_cursor.c.lease == lease)
                .values(lease=None, leased_until=None)
            )

    def next_due(self, *, now: datetime) -> Waiting | None:
        """Return the first of the queue if it may be tried, or else one that was set aside and is due."""
        first = select(lineage_events).where(lineage_events.c.state == "queued").order_by(lineage_events.c.id)
        aside = (
            select(lineage_events)
            .where(lineage_events.c.state == "aside", lineage_events.c.next_try_at <= now)
            .order_by(lineage_events.c.next_try_at, lineage_events.c.id)
        )
        with self._database.reading() as connection:
            row = connection.execute(first.limit(1)).mappings().first()
            if row is None or row["next_try_at"] > now:
                row = connection.execute(aside.limit(1)).mappings().first()
        if row is None:
            return None
        return Waiting(
            id=row["id"],
            run_id=row["run_id"],
            key=row["key"],
            body=row["body"],
            tries=row["tries"],
            is_aside=row["state"] == "aside",
        )

    def sent(self, waiting: Waiting, *, now: datetime) -> None:
        """Remember that it was sent, and let go of what it said."""
        self._change(waiting, state="sent", body=None, sent_at=now, problem="")

    def failed(self, waiting: Waiting, *, problem: str, state: str, next_try_at: datetime) -> None:
        """Record a try that failed; `state` is queued, aside or refused."""
        self._change(
            waiting,
            state=state,
            tries=waiting.tries + 1,
            next_try_at=next_try_at,
            problem=problem[:PROBLEM_LENGTH],
        )

    def forget_sent(self, *, before: datetime) -> None:
        """Remove what was sent before then."""
        old = and_(lineage_events.c.state == "sent", lineage_events.c.sent_at < before)
        with self._database.reading() as connection:
            if connection.scalar(select(lineage_events.c.id).where(old).limit(1)) is None:
                return
        with self._database.writing() as connection:
            connection.execute(delete(lineage_events).where(old))

    def counts(self) -> dict[str, int]:
        """Return how many events there are in each state."""
        query = select(lineage_events.c.state, func.count()).group_by(lineage_events.c.state)
        with self._database.reading() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def problems(self, *, limit: int = 20) -> Sequence[tuple[str, str, str]]:
        """Return run, key and problem of what was refused or set aside, newest first."""
        query = (
            select(lineage_events.c.run_id, lineage_events.c.key, lineage_events.c.problem)
            .where(lineage_events.c.state.in_(("refused", "aside")))
            .order_by(lineage_events.c.id.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [(run_id, key, problem) for run_id, key, problem in connection.execute(query)]

    def _change(self, waiting: Waiting, **changes: Any) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(lineage_events)
                .where(lineage_events.c.id == waiting.id, lineage_events.c.state != "sent")
                .values(**changes)
            )


def _put(connection: Connection, run_id: str, key: str, body: str, now: datetime) -> bool:
    added = connection.execute(
        _dialect(connection)
        .insert(lineage_events)
        .values(
            run_id=run_id,
            key=key,
            state="queued",
            body=body,
            queued_at=now,
            tries=0,
            next_try_at=now,
            problem="",
        )
        .on_conflict_do_nothing()
    )
    return bool(added.rowcount == 1)


def _lock_cursor(connection: Connection) -> int:
    row = select(lineage_cursor.c.idx).where(lineage_cursor.c.id == _ONE).with_for_update()
    found = connection.execute(row).scalar()
    if found is None:
        connection.execute(
            _dialect(connection).insert(lineage_cursor).values(id=_ONE, idx=-1).on_conflict_do_nothing()
        )
        found = connection.execute(row).scalar_one()
    return int(found)


def _move_cursor(connection: Connection, index: int) -> None:
    connection.execute(update(lineage_cursor).where(lineage_cursor.c.id == _ONE).values(idx=index))


def _due(now: datetime) -> Any:
    """Return the condition of what may be tried: the first of the queue, and what was set aside."""
    queued = lineage_events.alias("queued")
    first = select(func.min(queued.c.id)).where(queued.c.state == "queued").scalar_subquery()
    may_be_tried = or_(lineage_events.c.id == first, lineage_events.c.state == "aside")
    return and_(may_be_tried, lineage_events.c.next_try_at <= now)


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
