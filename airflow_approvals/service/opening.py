"""Open a request: for a running task, or for a person."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from airflow_approvals.core import gate
from airflow_approvals.core import policy as policies
from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import (
    IdempotencyConflictError,
)
from airflow_approvals.core.identity import requesters_of
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Evidence,
    Origin,
    Outcome,
    Person,
    State,
    to_json,
)
from airflow_approvals.ports import (
    StoredIdempotencyKey,
    Transaction,
)
from airflow_approvals.service.binding import draft_under
from airflow_approvals.service.cases import actor_of, draft_entry, slot_of
from airflow_approvals.service.standing import Opened, StandingCases


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a caller wants approved."""

    action: Action
    evidence: Evidence
    gate: str = ""
    policy: str | None = None  # an assertion: the server's match must be this one


class OpeningCases(StandingCases):
    """Turns what a caller wants approved into a request."""

    def open_for_task(self, ti_id: str, opening: Opening, *, request_id: str, now: datetime) -> Opened:
        """Open a request for a running task instance, or return the one that it already has.

        The same content of the same gate in the same task reuses a pending or approved request, whichever try
        asks; changed content supersedes a pending one and revokes an approved one. So repeating the call is
        harmless without an Idempotency-Key.
        """
        with self._refusals_recorded(f"worker:{ti_id}", None, "open", now):
            origin = self._live_origin(ti_id)
        actor = actor_of(origin)  # no request says whose attempt this was: its entry must
        with self._refusals_recorded(actor, None, "open", now):
            draft = self._draft(
                opening,
                origin=origin,
                requesters=requesters_of(origin),
                opened_by="worker",
                request_id=request_id,
                now=now,
            )
            slot = slot_of(origin, opening.gate)
            with self.store.begin() as tx:
                prior = tx.find_latest_request(slot, for_update=True)
                if prior is not None and _is_answer_to(draft, prior, now=now):
                    return Opened(request=prior, created=False)
                # Before the first entry locks the ledger's head: the standing ones are locked here, and a
                # signer may be far away.
                standings = self._ask_standings(tx, draft, now=now)
                if prior is not None:
                    self._close_prior(tx, prior, draft, actor=actor, now=now)
                opened = self._insert_answered(tx, standings, actor=actor, now=now)
            return Opened(request=opened, created=True)

    def open_for_person(
        self, person: Person, opening: Opening, *, key: str, request_id: str, now: datetime
    ) -> Opened:
        """Open a request that a logged-in person asks for; that person is its requester."""
        with self._refusals_recorded(person, None, "open", now):
            try:
                return self._open_once(person, opening, key=key, request_id=request_id, now=now)
            except IdempotencyConflictError:
                # Another call with this key may have been first just now; its request answers this one too.
                return self._open_once(person, opening, key=key, request_id=request_id, now=now)

    def _open_once(
        self, person: Person, opening: Opening, *, key: str, request_id: str, now: datetime
    ) -> Opened:
        digest = digest_of_opening(opening)
        with self.store.begin() as tx:
            # First of all: what was opened was opened, whatever the policy file says by now.
            stored = tx.find_idempotency_key(person, key)
            if stored is None:
                draft = self._draft(
                    opening,
                    origin=None,
                    requesters=(person,),
                    opened_by=person,
                    request_id=request_id,
                    now=now,
                )
                tx.insert_idempotency_key(
                    person, key, StoredIdempotencyKey(request_id=draft.id, body_sha256=digest)
                )
                self._insert(tx, draft, actor=person)
                return Opened(request=draft, created=True)
            if stored.body_sha256 != digest:
                raise IdempotencyConflictError(
                    "Idempotency-Key: it was used for another request; send a new key for new content"
                )
            return Opened(request=tx.get_request(stored.request_id), created=False)

    def _draft(
        self,
        opening: Opening,
        *,
        origin: Origin | None,
        requesters: tuple[Person, ...],
        opened_by: str,
        request_id: str,
        now: datetime,
    ) -> ApprovalRequest:
        policy_file = self.policies.current()
        policy = policy_file.match(opening.action, dag_id=origin.dag_id if origin else None)
        policies.check_asserted(policy, opening.policy)
        drafted = draft_under(
            policy,
            policy_file,
            request_id=request_id,
            action=opening.action,
            evidence=opening.evidence,
            gate=opening.gate,
            opened_by=opened_by,
            requesters=requesters,
            origin=origin,
            now=now,
        )
        gate.check_text("justification", opening.action.justification)
        return drafted

    def _close_prior(
        self, tx: Transaction, prior: ApprovalRequest, draft: ApprovalRequest, *, actor: str, now: datetime
    ) -> None:
        """Close the prior request of this slot, as far as it is open; `draft` takes its place."""
        because = f"superseded by {draft.id}"
        match prior.state:
            case State.PENDING:
                self._close(tx, prior, State.SUPERSEDED, because, actor=actor, now=now)
            case State.APPROVED:
                self._close(tx, prior, State.REVOKED, because, actor=actor, now=now)
            case State.REDEEMED:
                self._close_unreported(tx, prior, actor=actor, now=now)
            case _:
                pass

    def _close_unreported(
        self, tx: Transaction, prior: ApprovalRequest, *, actor: str, now: datetime
    ) -> None:
        """Fail what an earlier try redeemed and never reported: its worker is gone."""
        outcome = Outcome(
            published=False, detail="no outcome was reported by the try that redeemed it", reported_at=now
        )
        closed = replace(
            gate.move(prior, State.FAILED, now=now, because=prior.decided_because), outcome=outcome
        )
        tx.append(draft_entry("outcome.reported", closed, actor=actor, now=now, outcome=to_json(outcome)))
        tx.update_request(closed)


def digest_of_opening(opening: Opening) -> str:
    """Return the digest by which a repeated Idempotency-Key is held against its first use."""
    return digest_of(to_json(opening))


def _is_answer_to(draft: ApprovalRequest, prior: ApprovalRequest, *, now: datetime) -> bool:
    """Return whether the prior request of this slot answers what `draft` asks."""
    same = (prior.action_digest, prior.policy_digest) == (draft.action_digest, draft.policy_digest)
    ti_id = draft.origin.ti_id if draft.origin else None
    match prior.state:
        case State.PENDING:
            # Who asks now, having cleared the task, must not be free to approve what others asked for.
            all_barred = set(draft.requesters) <= set(prior.requesters)
            return same and all_barred and now < prior.expires_at
        case State.APPROVED:
            return same and prior.receipt_expires_at is not None and now < prior.receipt_expires_at
        case State.REDEEMED:
            # Whichever try opened it: this one is at it (a rescheduled task runs anew within its try).
            return ti_id is not None and prior.redeemed_by == ti_id
        case State.DENIED | State.EXPIRED | State.CANCELLED:
            # The same try asks again after its answer: the answer stands. A new try may ask anew.
            return same and prior.origin is not None and prior.origin.ti_id == ti_id
        case _:
            return False
