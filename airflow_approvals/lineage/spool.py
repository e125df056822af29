"""Events on their way to the lineage backend: kept by the service, sent in order, again until they arrive.

Nothing here can fail or delay a gate: what the ledger says is told afterwards, and what workers tell is taken
in and sent later. Each (run, event type) is kept once, however often it is told: a task that resumes tells
its START again. A backend that is away stops the queue, so that a COMPLETE never overtakes its START; an
event that the backend itself chokes on is set aside and tried again now and then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from airflow_approvals.core.canonical import sha256_hex
from airflow_approvals.core.errors import ApprovalsError, InvalidRequestError, NotAllowedError, PolicyError
from airflow_approvals.core.heads import Head
from airflow_approvals.core.model import Entry
from airflow_approvals.lineage.approval import Site
from airflow_approvals.lineage.events import event_of, told_by
from airflow_approvals.lineage.heads import head_event
from airflow_approvals.lineage.kept import KeptEvents
from airflow_approvals.lineage.names import APPROVAL_JOBS
from airflow_approvals.service import Service

LEASE = timedelta(seconds=60)
"""For how long one process sends alone."""
KEPT = timedelta(days=60)
"""For how long it is remembered what was sent: a task can resume, and tell its START again, weeks later."""
MAX_CHOKES = 5
"""Tries of an event that makes the backend fail, before it makes way for the others."""
LONGEST_WAIT = timedelta(seconds=30)
ASIDE_FOR = timedelta(hours=1)

ONCE = frozenset({"START", "COMPLETE", "FAIL", "ABORT"})
"""Events that a run has one of."""

_RUN_ID = 36  # characters of a UUID
_KIND = 20

Event = dict[str, Any]
log = logging.getLogger(__name__)


class BackendAwayError(ApprovalsError):
    """The lineage backend does not answer, or says that it cannot take anything now."""

    type = "lineage-away"


class BackendChokedError(ApprovalsError):
    """The lineage backend failed at this event."""

    type = "lineage-choked"


class BackendRefusedError(ApprovalsError):
    """The lineage backend says that this event is wrong; it will not take it later either."""

    type = "lineage-refused"


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """One event that is due."""

    id: int
    run_id: str
    key: str
    body: str  # JSON
    tries: int
    is_aside: bool


class Spool(Protocol):
    """Where events are kept."""

    def plan(self, make: Callable[[Entry], Event | None], *, now: datetime) -> int:
        """Put the events of new ledger entries into the queue; return how many entries were read."""

    def skip_to_end(self) -> None:
        """Read the ledger to its end without telling anything."""

    def put(self, run_id: str, key: str, body: str, *, now: datetime) -> bool:
        """Queue an event; return False when this run has told it before."""

    def take_turn(self, *, lease: str, now: datetime) -> bool:
        """Return whether this caller is the one to send, for `LEASE` from `now`."""

    def give_turn(self, *, lease: str) -> None: ...

    def next_due(self, *, now: datetime) -> Waiting | None:
        """Return the first of the queue if it may be tried, or else one that was set aside and is due."""

    def sent(self, waiting: Waiting, *, now: datetime) -> None: ...

    def failed(self, waiting: Waiting, *, problem: str, state: str, next_try_at: datetime) -> None:
        """Record a try that failed; `state` is queued, aside or refused."""

    def forget_sent(self, *, before: datetime) -> None: ...


class Backend(Protocol):
    """The other end: Marquez, or whatever OpenLineage's transports reach."""

    def send(self, event: Event) -> None:
        """Deliver one event, or raise one of the errors above."""

    def mark(self, event: Event) -> None:
        """Tell what the backend does not read off the event itself (tags), as far as that goes."""


class Lineage:
    """Plans, takes in and sends."""

    def __init__(
        self, spool: Spool, backend: Backend, service: Service, site: Site, kept: KeptEvents | None = None
    ) -> None:
        self.spool = spool
        self._backend = backend
        self._service = service
        self._site = site
        self._kept = kept

    def plan(self, *, now: datetime) -> int:
        """Queue what the ledger has new; return how many entries that were."""
        return self.spool.plan(self._event, now=now)

    def take_in(self, body: bytes, *, now: datetime) -> bool:
        """Queue an event that a worker, the scheduler or the API server tells; False when it was known.

        Raises `InvalidRequestError` for what is no run event, and `NotAllowedError` for one in the name of an
        approval: those are told by the service alone.
        """
        run_id, key, text = _read(body)
        while self.plan(now=now):  # what was decided before this was told comes before it
            pass
        return self.spool.put(run_id, key, text, now=now)

    def collect(self, *, now: datetime) -> int:
        """Take in what processes of this machine could not tell, and kept; return how many that were."""
        return self._kept.hand_over(lambda body: self.take_in(body, now=now)) if self._kept else 0

    def tell_head(self, head: Head, *, now: datetime) -> bool:
        """Queue the ledger's signed head; False when it was told before."""
        event = head_event(head, self._site)
        return self.spool.put(event["run"]["runId"], event["eventType"], as_text(event), now=now)

    def send_due(self, *, lease: str, now: Callable[[], datetime], at_most: int = 200) -> int:
        """Send what is due, in order, while it is this caller's turn; return how many went out."""
        if not self.spool.take_turn(lease=lease, now=now()):
            return 0
        sent, began = 0, now()
        try:
            while sent < at_most and now() - began < LEASE / 2:
                waiting = self.spool.next_due(now=now())
                if waiting is None or not self._send(waiting, now=now()):
                    break
                sent += 1
        finally:
            self.spool.give_turn(lease=lease)
        return sent

    def _event(self, entry: Entry) -> Event | None:
        told = told_by(entry)
        if told is None:
            return None
        kind, request_id, time = told
        request = self._service.store.get_request(request_id)
        return event_of(kind, time, request, self._site, with_reasons=self._tells_reasons(request.policy))

    def _tells_reasons(self, name: str) -> bool:
        try:
            policy = self._service.policies.current().find_policy(name)
        except PolicyError:
            return False
        return policy is not None and policy.reasons_in_lineage

    def _send(self, waiting: Waiting, *, now: datetime) -> bool:
        """Send one; return whether the next may follow."""
        tries = waiting.tries + 1
        event = json.loads(waiting.body)
        try:
            self._backend.send(event)
        except BackendAwayError as trouble:
            self._failed(waiting, trouble, "aside" if waiting.is_aside else "queued", now + _wait(tries))
            return False
        except BackendRefusedError as trouble:
            self._failed(waiting, trouble, "refused", now)
            return True
        except BackendChokedError as trouble:
            aside = waiting.is_aside or tries >= MAX_CHOKES
            self._failed(
                waiting, trouble, "aside" if aside else "queued", now + (ASIDE_FOR if aside else _wait(tries))
            )
            return aside
        self.spool.sent(waiting, now=now)
        self._backend.mark(event)
        return True

    def _failed(self, waiting: Waiting, trouble: ApprovalsError, state: str, next_try_at: datetime) -> None:
        level = logging.WARNING if waiting.tries == 0 or state != "queued" else logging.DEBUG
        log.log(level, "lineage event %s of run %s (%s): %s", waiting.key, waiting.run_id, state, trouble)
        self.spool.failed(waiting, problem=str(trouble), state=state, next_try_at=next_try_at)


def key_of(event_type: str, body: str) -> str:
    """Return what an event of a run is remembered by."""
    return event_type if event_type in ONCE else f"{event_type}:{sha256_hex(body.encode())[:32]}"


def as_text(event: Event) -> str:
    """Return the JSON of an event as it is kept."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _read(body: bytes) -> tuple[str, str, str]:
    """Return run id, key and text of an event, or raise."""
    try:
        event = json.loads(body)
        text = body.decode()
    except (ValueError, RecursionError):
        raise InvalidRequestError("a lineage event: expected JSON in UTF-8, found something else") from None
    match event:
        case {
            "eventType": str(kind),
            "eventTime": str(),
            "run": {"runId": str(run_id)},
            "job": {"name": str(job)},
        }:
            if job.startswith(APPROVAL_JOBS):
                raise NotAllowedError(
                    f"a lineage event of a job that begins with {APPROVAL_JOBS!r}: only the service tells "
                    "what became of an approval"
                )
            if not 0 < len(run_id) <= _RUN_ID or not 0 < len(kind) <= _KIND or "\\u0000" in text:
                raise InvalidRequestError("a lineage event: expected a UUID as runId and no NUL in any text")
            return run_id, key_of(kind, text), text
        case _:
            raise InvalidRequestError(
                "a lineage event: expected an OpenLineage RunEvent with eventType, eventTime, run and job"
            )


def _wait(tries: int) -> timedelta:
    return min(LONGEST_WAIT, timedelta(seconds=2 ** min(tries - 1, 10)))
