"""The outbox: what the ledger says has to be told outside, leased to one process at a time.

It is derived from the ledger by a cursor, so a channel that is down can neither fail nor delay a change, and
nothing is lost that was committed. Several processes may work on it: the cursor's row is locked while it
moves, and a delivery belongs to whoever holds its lease. A process that dies between sending and saying so
sends again: at least once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from airflow_approvals.core.delivery import (
    LEASE,
    PROMPT,
    SPACING,
    UNDERWAY,
    Delivery,
    Telling,
    is_last_try,
    wait_after,
)
from airflow_approvals.core.model import Entry
from airflow_approvals.store.engine import Database
from airflow_approvals.store.ledger import entries_after
from airflow_approvals.store.tables import (
    PROBLEM_LENGTH,
    deliveries,
    delivery_cursor,
    delivery_paces,
    seen_signatures,
)

_ONE = 1
_BATCH = 200
_LOOKED_AT = 200
_KEPT_SIGNATURES = timedelta(minutes=15)

Plan = Callable[[Entry], Telling | None]


class SqlOutbox:
    """Deliveries in Airflow's metadata database."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def plan(self, plan: Plan, *, now: datetime) -> int:
        """Turn new ledger entries into deliveries by `plan`; return how many entries were read."""
        with self._database.reading() as connection:
            last = connection.scalar(select(delivery_cursor.c.idx).where(delivery_cursor.c.id == _ONE))
            if not entries_after(connection, -1 if last is None else last, limit=1):
                return 0
        with self._database.writing() as connection:
            after = _lock_cursor(connection)
            entries = entries_after(connection, after, limit=_BATCH)
            for entry in entries:
                telling = plan(entry)
                if telling is not None:
                    _want(connection, telling, entry.index, now)
            if entries:
                connection.execute(
                    update(delivery_cursor).where(delivery_cursor.c.id == _ONE).values(idx=entries[-1].index)
                )
        return len(entries)

    def claim(self, *, now: datetime, lease: str, request_id: str | None = None) -> Delivery | None:
        """Return a delivery that is due, leased to `lease`; None when nothing may be sent at `now`.

        A channel takes one new message at a time, and the next a second after the answer to it, whichever
        process sends it; a prompt comes before its notes.
        """
        with self._database.reading() as connection:
            if connection.execute(_due(now, request_id).limit(1)).first() is None:
                return None
        with self._database.writing() as connection:
            taken: set[tuple[str, str]] = set()
            query = _due(now, request_id).limit(_LOOKED_AT).with_for_update(skip_locked=True, of=deliveries)
            for row in connection.execute(query).mappings():
                pace = (row["channel"], _kind(row["place"], row["entry"]))
                if pace in taken or not _take_turn(connection, pace, now):
                    taken.add(pace)
                    continue
                connection.execute(
                    update(deliveries)
                    .where(deliveries.c.id == row["id"])
                    .values(lease=lease, leased_until=now + LEASE)
                )
                return _delivery(row)
        return None

    def done(self, delivery: Delivery, *, lease: str, place: dict[str, str] | None, now: datetime) -> None:
        """Record that the message tells what it was to tell, and where it stands."""
        self._give_back(
            delivery,
            lease,
            now=now,
            shown=delivery.wanted,
            place=delivery.place if place is None else place,
            tries=0,
            next_try_at=now,
            problem="",
        )

    def failed(
        self,
        delivery: Delivery,
        *,
        lease: str,
        problem: str,
        refused: bool,
        now: datetime,
        forget: bool = False,
    ) -> None:
        """Record a try that failed; the last one makes a dead letter. `forget` a message that is gone."""
        tries = delivery.tries + 1
        self._give_back(
            delivery,
            lease,
            now=now,
            tries=tries,
            next_try_at=now + wait_after(tries),
            is_dead=is_last_try(tries, refused=refused),
            problem=problem[:PROBLEM_LENGTH],
            **({"place": None, "shown": -1} if forget else {}),
        )

    def hold(self, delivery: Delivery, *, lease: str, until: datetime) -> None:
        """Let the whole channel rest until then, as it asked; that was no try."""
        with self._database.writing() as connection:
            _give_back(connection, delivery, lease, {"next_try_at": until})
            _rest(connection, delivery, until)

    def want_again(self, request_id: str, *, now: datetime) -> None:
        """Have every prompt of the request sent anew: somebody saw a stale one."""
        with self._database.writing() as connection:
            connection.execute(
                update(deliveries)
                .where(deliveries.c.request_id == request_id, deliveries.c.entry == PROMPT)
                .values(shown=-1, tries=0, is_dead=False, next_try_at=now)
            )

    def revive(self, request_id: str, *, now: datetime) -> int:
        """Try again what was given up of one request; return how many messages that are."""
        with self._database.writing() as connection:
            changed = connection.execute(
                update(deliveries)
                .where(deliveries.c.request_id == request_id, deliveries.c.is_dead)
                .values(tries=0, is_dead=False, next_try_at=now)
            )
            return int(changed.rowcount)

    def dead_letters(self, *, limit: int = 100, since: datetime | None = None) -> Sequence[Delivery]:
        """Return what was given up (`since` then), newest first."""
        query = select(deliveries).where(deliveries.c.is_dead).order_by(deliveries.c.id.desc()).limit(limit)
        if since is not None:
            query = query.where(deliveries.c.next_try_at >= since)
        with self._database.reading() as connection:
            return [_delivery(row) for row in connection.execute(query).mappings()]

    def deliveries_of(self, request_id: str) -> Sequence[Delivery]:
        """Return everything that was or will be told about one request, in order."""
        query = select(deliveries).where(deliveries.c.request_id == request_id).order_by(deliveries.c.id)
        with self._database.reading() as connection:
            return [_delivery(row) for row in connection.execute(query).mappings()]

    def next_due(self) -> datetime | None:
        """Return when the next delivery may be tried; None when there is none.

        Its channel has rested by then, and if it is on its way its lease has run out.
        """
        at: ColumnElement[Any] = deliveries.c.next_try_at
        for other in (deliveries.c.leased_until, delivery_paces.c.free_at):
            at = case((other > at, other), else_=at)
        query = (
            select(func.min(at)).outerjoin_from(deliveries, delivery_paces, _is_paced_by()).where(_ready())
        )
        with self._database.reading() as connection:
            found: datetime | None = connection.scalar(query)
        return found

    def is_first_use(self, digest: str, *, now: datetime, within: timedelta = timedelta(0)) -> bool:
        """Remember a signature; return whether no process has seen it `within` that time.

        They are remembered for fifteen minutes at least: longer than Slack's are good for.
        """
        kept = max(within, _KEPT_SIGNATURES)
        with self._database.writing() as connection:
            connection.execute(
                delete(seen_signatures).where(seen_signatures.c.seen_at < now - _KEPT_SIGNATURES)
            )
            added = connection.execute(
                _dialect(connection)
                .insert(seen_signatures)
                .values(digest=digest, seen_at=now + kept - _KEPT_SIGNATURES)
                .on_conflict_do_nothing()
            )
            return bool(added.rowcount == 1)

    def _give_back(self, delivery: Delivery, lease: str, *, now: datetime, **changes: Any) -> None:
        with self._database.writing() as connection:
            _give_back(connection, delivery, lease, changes)
            if _kind(delivery.place, delivery.entry) == "post":
                _rest(connection, delivery, now + SPACING)


def _give_back(connection: Connection, delivery: Delivery, lease: str, changes: dict[str, Any]) -> None:
    # A lease that ran out belongs to another process by now: what that one says counts.
    connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery.id, deliveries.c.lease == lease)
        .values(lease=None, leased_until=None, **changes)
    )


def _rest(connection: Connection, delivery: Delivery, until: datetime) -> None:
    """Let the channel take nothing more of this kind until then."""
    connection.execute(
        update(delivery_paces)
        .where(
            delivery_paces.c.channel == delivery.channel,
            delivery_paces.c.kind == _kind(delivery.place, delivery.entry),
        )
        .values(free_at=until)
    )


def _lock_cursor(connection: Connection) -> int:
    dialect = _dialect(connection)
    connection.execute(dialect.insert(delivery_cursor).values(id=_ONE, idx=-1).on_conflict_do_nothing())
    query = select(delivery_cursor.c.idx).where(delivery_cursor.c.id == _ONE).with_for_update()
    return int(connection.execute(query).scalar_one())


def _want(connection: Connection, telling: Telling, index: int, now: datetime) -> None:
    news = {"wanted": index, "tries": 0, "is_dead": False, "next_try_at": now}
    prompts = and_(deliveries.c.request_id == telling.request_id, deliveries.c.entry == PROMPT)
    connection.execute(update(deliveries).where(prompts).values(news))
    standing = connection.execute(select(deliveries.c.channel).where(prompts)).scalars().all()
    new = [(channel, PROMPT) for channel in telling.channels if channel not in standing]
    new += [(channel, index) for channel in standing if telling.has_note]
    for channel, entry in new:
        connection.execute(
            insert(deliveries).values(
                request_id=telling.request_id, channel=channel, entry=entry, shown=-1, problem="", **news
            )
        )


def _open() -> ColumnElement[bool]:
    return and_(deliveries.c.is_dead.is_(False), deliveries.c.wanted > deliveries.c.shown)


def _ready() -> ColumnElement[bool]:
    """Return the condition of what is open and needs no other message to be sent first."""
    prompt = deliveries.alias("prompt")
    place = select(prompt.c.place).where(
        prompt.c.request_id == deliveries.c.request_id,
        prompt.c.channel == deliveries.c.channel,
        prompt.c.entry == PROMPT,
    )
    # Not "exists": PostgreSQL would read all prompts that there ever were into a table of its own first.
    return and_(_open(), or_(deliveries.c.entry == PROMPT, place.scalar_subquery().is_not(None)))


def _due(now: datetime, request_id: str | None) -> Any:
    resting = select(delivery_paces.c.channel).where(_is_paced_by(), delivery_paces.c.free_at > now)
    query = select(deliveries).where(
        _ready(),
        deliveries.c.next_try_at <= now,
        or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until <= now),
        ~resting.exists(),
    )
    if request_id is not None:
        query = query.where(deliveries.c.request_id == request_id)
    return query.order_by(deliveries.c.next_try_at, deliveries.c.id)


def _is_paced_by() -> ColumnElement[bool]:
    is_update = and_(deliveries.c.entry == PROMPT, deliveries.c.place.is_not(None))
    return and_(
        delivery_paces.c.channel == deliveries.c.channel,
        delivery_paces.c.kind == case((is_update, "update"), else_="post"),
    )


def _kind(place: object, entry: int) -> str:
    return "update" if place is not None and entry == PROMPT else "post"


def _take_turn(connection: Connection, pace: tuple[str, str], now: datetime) -> bool:
    """Return whether it is this channel's turn at `now`; if so, it is nobody else's until that is over."""
    channel, kind = pace
    where = and_(delivery_paces.c.channel == channel, delivery_paces.c.kind == kind)
    dialect = _dialect(connection)
    connection.execute(
        dialect.insert(delivery_paces)
        .values(channel=channel, kind=kind, free_at=now)
        .on_conflict_do_nothing()
    )
    free_at = connection.execute(select(delivery_paces.c.free_at).where(where).with_for_update()).scalar_one()
    if free_at > now:
        return False
    if kind == "post":
        connection.execute(update(delivery_paces).where(where).values(free_at=now + UNDERWAY))
    return True


def _delivery(row: Any) -> Delivery:
    names = Delivery.__dataclass_fields__
    return Delivery(**{name: row[name] for name in names})


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
