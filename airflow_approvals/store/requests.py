"""The rows of requests: found by id, by slot, by what is due, and changed under a lock."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import (
    IdempotencyConflictError,
    InvalidRequestError,
    RequestNotFoundError,
)
from airflow_approvals.core.model import ApprovalRequest, StandingTerms, State, from_json, to_json
from airflow_approvals.ports import (
    Page,
    RequestFilter,
    StoredIdempotencyKey,
    StoredReceipt,
    TaskSlot,
    Visibility,
)
from airflow_approvals.store.tables import (
    CALLER_LENGTH,
    KEY_LENGTH,
    idempotency_keys,
    requesters,
    requests,
    slots,
)

MAX_PAGE = 500
MAX_STANDING = 50
"""Standing approvals of one gate that are looked at; there is one per destination."""
MAX_WORDS = 8
"""Words of one search; each is looked for in every row."""


def get_request(connection: Connection, request_id: str, *, for_update: bool = False) -> ApprovalRequest:
    """Return the request; raise `RequestNotFoundError` when there is none."""
    _check_text(request_id)
    query = select(requests.c.document).where(requests.c.id == request_id)
    found = _first(connection, query.with_for_update() if for_update else query)
    if found is None:
        raise RequestNotFoundError("there is no such request; check its id, or list the requests")
    return found


def find_latest_request(
    connection: Connection, slot: TaskSlot, *, for_update: bool
) -> ApprovalRequest | None:
    """Return the newest request of the slot; with `for_update` the slot is locked even when it is empty."""
    key = _slot_key(slot)
    query = select(requests.c.document).where(requests.c.slot == key).order_by(requests.c.seq.desc()).limit(1)
    if not for_update:
        return _first(connection, query)
    dialect = _dialect(connection)
    connection.execute(dialect.insert(slots).values(slot=key).on_conflict_do_nothing())
    connection.execute(select(slots.c.slot).where(slots.c.slot == key).with_for_update())
    return _first(connection, query.with_for_update())


def find_standing(connection: Connection, terms: StandingTerms, *, state: State) -> Sequence[ApprovalRequest]:
    """Return, locked, the standing requests in `state` of the gate that `terms` names, newest first."""
    query = (
        select(requests.c.document)
        .where(requests.c.slot == _standing_key(terms), requests.c.state == state.value)
        .order_by(requests.c.seq.desc())
        .limit(MAX_STANDING)
        .with_for_update()
    )
    return [from_json(ApprovalRequest, document) for document in connection.execute(query).scalars()]


def insert_request(connection: Connection, request: ApprovalRequest) -> None:
    """Write a new request."""
    connection.execute(insert(requests).values(id=request.id, **columns_of(request)))
    _insert_requesters(connection, request)


def update_request(connection: Connection, request: ApprovalRequest) -> None:
    """Write what has changed; raise `RequestNotFoundError` when it was never written."""
    changed = connection.execute(
        update(requests).where(requests.c.id == request.id).values(columns_of(request))
    )
    if changed.rowcount != 1:
        raise RequestNotFoundError("there is no such request to change; it must be opened first")
    query = select(requesters.c.person).where(requesters.c.request_id == request.id)
    if set(connection.execute(query).scalars()) != set(request.requesters):
        connection.execute(delete(requesters).where(requesters.c.request_id == request.id))
        _insert_requesters(connection, request)


def find_due(connection: Connection, now: datetime, *, limit: int) -> Sequence[ApprovalRequest]:
    """Return, locked, what has run out by `now`, first what did so first; locked rows are skipped."""
    found: list[ApprovalRequest] = []
    # An index each: joined by "or", PostgreSQL reads every request that there ever was, every few seconds.
    ends = {State.PENDING: requests.c.expires_at, State.APPROVED: requests.c.receipt_expires_at}
    for state, ends_at in ends.items():
        query = (
            select(requests.c.document)
            .where(requests.c.state == state, ends_at <= now)
            .order_by(ends_at, requests.c.seq)
            .limit(limit - len(found))
            .with_for_update(skip_locked=True)
        )
        documents = connection.execute(query).scalars()
        found.extend(from_json(ApprovalRequest, document) for document in documents)
    return found


def find_unanswered(connection: Connection, now: datetime, *, limit: int) -> Sequence[ApprovalRequest]:
    """Return, locked, open requests that people are to be told of again by `now`; locked rows are skipped."""
    query = (
        select(requests.c.document)
        .where(requests.c.state == State.PENDING, requests.c.next_notice_at <= now)
        .order_by(requests.c.next_notice_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [from_json(ApprovalRequest, document) for document in connection.execute(query).scalars()]


def list_requests(connection: Connection, wanted: RequestFilter) -> Page:
    """Return one page, newest first; raise `InvalidRequestError` for a page that nobody can want."""
    if not 1 <= wanted.limit <= MAX_PAGE or wanted.offset < 0:
        raise InvalidRequestError(
            f"a page holds 1 to {MAX_PAGE} requests from offset 0 on; "
            f"asked for {wanted.limit} from {wanted.offset}"
        )
    texts = (wanted.dag_id, wanted.run_id, wanted.task_id, wanted.policy, wanted.requester, wanted.search)
    _check_text(*texts, wanted.granted_by, wanted.voided, *wanted.ids)
    conditions = _conditions(wanted)
    total = connection.scalar(select(func.count()).select_from(requests).where(*conditions))
    rows = connection.execute(
        select(requests.c.document)
        .where(*conditions)
        .order_by(requests.c.seq.desc())
        .limit(wanted.limit)
        .offset(wanted.offset)
    )
    return Page(
        requests=tuple(from_json(ApprovalRequest, document) for document in rows.scalars()), total=total or 0
    )


def pending_ids(connection: Connection) -> Sequence[str]:
    """Return the ids of all pending requests, read in one statement: pages would shift while some close."""
    query = select(requests.c.id).where(requests.c.state == State.PENDING).order_by(requests.c.seq)
    return connection.execute(query).scalars().all()


def receipts_after(connection: Connection, seq: int, *, limit: int) -> Sequence[StoredReceipt]:
    """Return at most `limit` receipts in the order in which their requests came."""
    envelope, index = requests.c.document["receipt"], requests.c.document["decision_index"].as_integer()
    rows = connection.execute(
        select(requests.c.seq, index.label("index"), envelope.label("envelope"))
        .where(requests.c.seq > seq, envelope["payload"].as_string().is_not(None))
        .order_by(requests.c.seq)
        .limit(limit)
    ).mappings()
    return [StoredReceipt(**row) for row in rows]


def visible_among(connection: Connection, ids: Collection[str], viewer: Visibility) -> frozenset[str]:
    """Return those of `ids` that are of requests which `viewer` may see."""
    found: set[str] = set()
    listed = sorted(ids)
    for start in range(0, len(listed), MAX_PAGE):
        part = listed[start : start + MAX_PAGE]
        query = select(requests.c.id).where(requests.c.id.in_(part), _visible_to(viewer))
        found.update(connection.execute(query).scalars())
    return frozenset(found)


def find_idempotency_key(connection: Connection, caller: str, key: str) -> StoredIdempotencyKey | None:
    """Return what `caller` used `key` for."""
    _check_key(caller, key)
    row = connection.execute(
        select(idempotency_keys.c.request_id, idempotency_keys.c.body_sha256).where(
            idempotency_keys.c.caller == caller, idempotency_keys.c.key == key
        )
    ).first()
    return (
        None if row is None else StoredIdempotencyKey(request_id=row.request_id, body_sha256=row.body_sha256)
    )


def insert_idempotency_key(
    connection: Connection, caller: str, key: str, stored: StoredIdempotencyKey
) -> None:
    """Keep the key; on PostgreSQL this waits for a concurrent transaction that keeps the same one."""
    _check_key(caller, key)
    kept = connection.execute(
        _dialect(connection)
        .insert(idempotency_keys)
        .values(caller=caller, key=key, request_id=stored.request_id, body_sha256=stored.body_sha256)
        .on_conflict_do_nothing()
    )
    if kept.rowcount != 1:
        raise IdempotencyConflictError(
            "this Idempotency-Key was used by another call; repeat yours to get that one's answer"
        )


def _first(connection: Connection, query: Select[tuple[Any]]) -> ApprovalRequest | None:
    row = connection.execute(query).first()
    return None if row is None else from_json(ApprovalRequest, row.document)


def columns_of(request: ApprovalRequest) -> dict[str, Any]:
    """Return the row of a request: the document, and what is searched, sorted and locked by."""
    origin, standing = request.origin, request.standing
    place = standing or origin
    slot = origin and TaskSlot(
        dag_id=origin.dag_id,
        run_id=origin.run_id,
        task_id=origin.task_id,
        map_index=origin.map_index,
        gate=request.gate,
    )
    return {
        "state": request.state.value,
        "revision": request.revision,
        "slot": _standing_key(standing) if standing else slot and _slot_key(slot),
        "dag_id": place and place.dag_id,
        "run_id": origin and origin.run_id,
        "task_id": place and place.task_id,
        "map_index": origin and origin.map_index,
        "gate": request.gate,
        "policy": request.policy,
        "opened_at": request.opened_at,
        "expires_at": request.expires_at,
        "receipt_expires_at": request.receipt_expires_at,
        "next_notice_at": request.next_notice_at,
        "document": to_json(request),
    }


def _insert_requesters(connection: Connection, request: ApprovalRequest) -> None:
    rows = [{"request_id": request.id, "person": person} for person in dict.fromkeys(request.requesters)]
    if rows:
        connection.execute(insert(requesters), rows)


def _slot_key(slot: TaskSlot) -> str:
    return digest_of([slot.dag_id, slot.run_id, slot.task_id, slot.map_index, slot.gate])


def _standing_key(terms: StandingTerms) -> str:
    # Not a slot of any run: what stands is found by every run of its gate.
    return digest_of(["standing", terms.dag_id, terms.task_id, terms.gate])


def _conditions(wanted: RequestFilter) -> list[ColumnElement[bool]]:
    equal: dict[ColumnElement[Any], str | int | None] = {
        requests.c.dag_id: wanted.dag_id,
        requests.c.run_id: wanted.run_id,
        requests.c.task_id: wanted.task_id,
        requests.c.map_index: wanted.map_index,
        requests.c.policy: wanted.policy,
    }
    conditions: list[ColumnElement[bool]] = [
        column == value for column, value in equal.items() if value is not None
    ]
    if wanted.states:
        conditions.append(requests.c.state.in_([state.value for state in wanted.states]))
    if wanted.ids:
        conditions.append(requests.c.id.in_(wanted.ids))
    conditions.extend(_told_by_document(wanted))
    if wanted.opened_before is not None:
        conditions.append(requests.c.opened_at < wanted.opened_before)
    if wanted.requester is not None:
        conditions.append(_asked_by(wanted.requester))
    conditions.extend(_mentions(word) for word in (wanted.search or "").split()[:MAX_WORDS])
    if wanted.visible_to is not None:
        conditions.append(_visible_to(wanted.visible_to))
    return conditions


def _told_by_document(wanted: RequestFilter) -> Iterator[ColumnElement[bool]]:
    """Yield what only the document tells; other conditions keep such a search short."""
    document = requests.c.document
    if wanted.redeemed_by is not None:
        yield document["redeemed_by"].as_string() == wanted.redeemed_by
    if wanted.is_standing is not None:
        terms = document["standing"]["approved_id"].as_string()
        yield terms.is_not(None) if wanted.is_standing else terms.is_(None)
    if wanted.granted_by is not None:
        yield document["granted"]["standing_id"].as_string() == wanted.granted_by
    if wanted.voided is not None:
        yield document["voided"].as_string() == wanted.voided


def _asked_by(person: str) -> ColumnElement[bool]:
    return requests.c.id.in_(select(requesters.c.request_id).where(requesters.c.person == person))


def _mentions(word: str) -> ColumnElement[bool]:
    action = requests.c.document["action"]
    texts = (
        *(requests.c[name] for name in ("id", "state", "dag_id", "run_id", "task_id", "policy")),
        *(action[name].as_string() for name in ("kind", "source", "destination", "justification")),
    )
    named = select(requesters.c.request_id).where(requesters.c.person.icontains(word, autoescape=True))
    return or_(*(text.icontains(word, autoescape=True) for text in texts), requests.c.id.in_(named))


def _visible_to(viewer: Visibility) -> ColumnElement[bool]:
    return or_(
        _asked_by(viewer.person),
        requests.c.policy.in_(viewer.policies),
        requests.c.dag_id.in_(viewer.dag_ids),
    )


def _check_key(caller: str, key: str) -> None:
    _check_text(caller, key)
    if not 1 <= len(key) <= KEY_LENGTH or len(caller) > CALLER_LENGTH:
        raise InvalidRequestError(f"Idempotency-Key: expected 1 to {KEY_LENGTH} characters, found {len(key)}")


def _check_text(*texts: str | None) -> None:
    # PostgreSQL has no such character, and its driver would fail with an error of its own.
    if any("\x00" in text for text in texts if text is not None):
        raise InvalidRequestError("a NUL character cannot be searched for; send plain text")


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
