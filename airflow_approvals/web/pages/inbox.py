"""The inbox: what waits for an answer of mine, what I asked for, what is open, what is over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlencode

from airflow_approvals.channels.waiting import waiting_for
from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import ApprovalRequest, Person, State
from airflow_approvals.core.policy import PolicyFile
from airflow_approvals.ports import RequestFilter, Visibility
from airflow_approvals.service import Service
from airflow_approvals.service.emergency import GLASS_BROKEN
from airflow_approvals.web.pages.abilities import is_reviewer

PAGE = 25

_EMERGENCIES = 50
"""The last emergency grants that are looked through for one that nobody has looked at."""

_RUNNING = (State.PENDING, State.APPROVED, State.REDEEMED)
_OVER = tuple(state for state in State if state not in _RUNNING)


class View(StrEnum):
    """Which list is shown."""

    ANSWER = "answer"
    MINE = "mine"
    OPEN = "open"
    STANDING = "standing"
    HISTORY = "history"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What somebody wants to see of the inbox, as the address says it."""

    view: View = View.ANSWER
    search: str = ""
    state: str = ""
    policy: str = ""
    dag: str = ""
    requester: str = ""
    page: int = 1

    def query(self, **changes: object) -> str:
        """Return the address's query for this list with `changes`; what is empty is left out."""
        told = {**vars(self), **changes}
        return urlencode({name: value for name, value in told.items() if value not in ("", 1)})

    def whole(self, view: View) -> str:
        """Return the address's query for one whole list."""
        return Wanted(view=view).query()

    @property
    def is_filtered(self) -> bool:
        return any((self.search, self.state, self.policy, self.dag, self.requester))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One request in one line."""

    request: ApprovalRequest
    rows: int | None
    standing: str  # how far it is, or what came of it

    @property
    def is_open(self) -> bool:
        return self.request.state is State.PENDING


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """One page of one list."""

    rows: tuple[Row, ...]
    total: int
    pages: int
    to_answer: int
    to_review: ApprovalRequest | None  # the newest emergency grant that nobody else has looked at


def inbox_of(
    service: Service,
    person: Person,
    wanted: Wanted,
    *,
    policy_file: PolicyFile | None,
    visible_to: Visibility | None,
    now: datetime,
) -> Inbox:
    """Return the page; open requests that run out first come first, past ones newest first."""
    mine = _answerable(service, person, Wanted(), policy_file, now)
    offset = (wanted.page - 1) * PAGE
    if wanted.view is View.ANSWER:
        found = _answerable(service, person, wanted, policy_file, now) if wanted.is_filtered else mine
        requests, total = found[offset : offset + PAGE], len(found)
    else:
        page = service.store.list_requests(_filter(wanted, person, visible_to, offset=offset))
        requests, total = page.requests, page.total
    return Inbox(
        rows=tuple(_row(service, request, policy_file) for request in requests),
        total=total,
        pages=max(1, -(-total // PAGE)),
        to_answer=len(mine),
        to_review=_find_to_review(service, person, policy_file),
    )


def _answerable(
    service: Service, person: Person, wanted: Wanted, policy_file: PolicyFile | None, now: datetime
) -> Sequence[ApprovalRequest]:
    if policy_file is None:
        return ()
    return waiting_for(service.store, person, policy_file, _filter(wanted, person, None), now=now)


def _find_to_review(
    service: Service, person: Person, policy_file: PolicyFile | None
) -> ApprovalRequest | None:
    """Return the newest emergency grant that `person` should look at, among the last ones."""
    if policy_file is None:
        return None
    entries = service.store.entries_of_kind(GLASS_BROKEN, limit=_EMERGENCIES)
    ids = tuple(json.loads(entry.body)["request_id"] for entry in entries)
    if not ids:
        return None
    for request in service.store.list_requests(RequestFilter(ids=ids, limit=_EMERGENCIES)).requests:
        if request.review is None and is_reviewer(request, person, policy_file):
            return request
    return None


def _filter(
    wanted: Wanted, person: Person, visible_to: Visibility | None, *, offset: int = 0
) -> RequestFilter:
    states = states_of(wanted.view)
    # A state that this list never shows does not narrow it.
    states = tuple(state for state in states if state == wanted.state) or states
    requester = person_named(wanted.requester) if wanted.requester else None
    if wanted.view is View.MINE:
        requester = person
    return RequestFilter(
        states=states,
        search=wanted.search or None,
        dag_id=wanted.dag or None,
        policy=wanted.policy or None,
        requester=requester,
        is_standing=True if wanted.view is View.STANDING else None,
        visible_to=visible_to,
        limit=PAGE,
        offset=offset,
    )


def _row(service: Service, request: ApprovalRequest, policy_file: PolicyFile | None) -> Row:
    progress = service.progress_of(request) if policy_file is not None else None
    datasets = request.evidence.datasets
    return Row(
        request=request,
        rows=sum(dataset.rows for dataset in datasets) if datasets else None,
        standing=progress.missing if progress is not None else request.decided_because,
    )


def states_of(view: View) -> tuple[State, ...]:
    """Return the states of the requests in a list."""
    if view is View.ANSWER:
        return (State.PENDING,)
    if view is View.STANDING:
        return (State.APPROVED,)
    return _OVER if view is View.HISTORY else _RUNNING


def check_requester(name: str) -> str:
    """Return the name of a person to look for; one that nobody can have finds nothing instead of failing."""
    try:
        return person_named(name) if name.strip() else ""
    except InvalidRequestError:
        return "-"
