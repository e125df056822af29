"""What every use case stands on: the store, the rules in force, the task's facts, and the ledger entry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_approvals.core import gate, receipt
from airflow_approvals.core.errors import (
    ApprovalsError,
    ServiceUnavailableError,
    TaskInstanceRefusedError,
)
from airflow_approvals.core.model import (
    ApprovalRequest,
    Entry,
    EntryDraft,
    Origin,
    Person,
    State,
    to_json,
)
from airflow_approvals.ports import (
    Origins,
    PolicySource,
    Signer,
    Store,
    TaskSlot,
    Transaction,
)

LIVE_TASK_STATES = frozenset({"running", "deferred", "awaiting_input"})
"""A task instance in any other state does not run, so nobody can speak for it."""


class UseCases:
    """Store, policy and signer, and how a change and a refusal are put on record."""

    def __init__(self, *, store: Store, origins: Origins, policies: PolicySource, signer: Signer) -> None:
        self.store = store
        self.policies = policies
        self.signer = signer
        self._origins = origins

    def record_refusal(
        self, actor: str, request_id: str | None, attempt: str, refusal: ApprovalsError, *, now: datetime
    ) -> None:
        """Put an attempt into the ledger that was refused, here or before it came here."""
        with self.store.begin() as tx:
            tx.append(
                EntryDraft(
                    kind="attempt.refused",
                    request_id=request_id,
                    actor=actor,
                    time=now,
                    data={"attempt": attempt, "type": refusal.type, "because": str(refusal)},
                )
            )

    def _close(
        self,
        tx: Transaction,
        request: ApprovalRequest,
        to: State,
        because: str,
        *,
        actor: str,
        now: datetime,
        **facts: Any,
    ) -> ApprovalRequest:
        moved = gate.move(request, to, now=now, because=because)
        entry = tx.append(draft_entry(f"request.{to}", moved, actor=actor, now=now, because=because, **facts))
        if request.state is State.PENDING:
            # What ends an approval is no decision: the receipt keeps its place in the ledger.
            moved = replace(moved, decision_index=entry.index)
        tx.update_request(moved)
        return moved

    def _with_receipt(self, decided: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
        if decided.state is not State.APPROVED or decided.receipt_expires_at is None:
            return decided
        statement = receipt.statement_of(decided, decided_at=now, not_after=decided.receipt_expires_at)
        return replace(decided, receipt=receipt.sign_receipt(statement, self.signer))

    def _record_decision(
        self,
        tx: Transaction,
        decided: ApprovalRequest,
        *,
        actor: str,
        now: datetime,
        regrouped: Mapping[Person, Sequence[str]] | None = None,
    ) -> ApprovalRequest:
        """Put a decision on record; `regrouped` are the groups of voters who changed since their vote."""
        facts: dict[str, Any] = {"because": decided.decided_because}
        if regrouped:
            facts["regrouped"] = {person: list(groups) for person, groups in regrouped.items()}
        if decided.granted is not None:
            facts["granted"] = to_json(decided.granted)
        if decided.receipt is not None:
            facts["receipt_sha256"] = receipt.payload_sha256(decided.receipt)
        entry = tx.append(draft_entry(f"request.{decided.state}", decided, actor=actor, now=now, **facts))
        return replace(decided, decision_index=entry.index)

    def _live_origin(self, ti_id: str) -> Origin:
        origin = self._origins.origin_of(ti_id)
        if origin.state not in LIVE_TASK_STATES:
            raise TaskInstanceRefusedError(
                f"task instance {ti_id} is {origin.state}: only a running or deferred one may speak"
            )
        return origin

    @contextmanager
    def _refusals_recorded(
        self, actor: str, request_id: str | None, attempt: str, now: datetime
    ) -> Iterator[None]:
        """Put an attempt that the rules refused into the ledger, in its own transaction, and let it go on."""
        try:
            yield
        except ServiceUnavailableError:
            raise  # nothing was refused: the database or the signing key did not answer
        except ApprovalsError as refusal:
            self.record_refusal(actor, request_id, attempt, refusal, now=now)
            raise


def slot_of(origin: Origin, gate_name: str) -> TaskSlot:
    """Return the place in the DAG run that `origin` occupies, whichever its try."""
    return TaskSlot(
        dag_id=origin.dag_id,
        run_id=origin.run_id,
        task_id=origin.task_id,
        map_index=origin.map_index,
        gate=gate_name,
    )


def actor_of(origin: Origin) -> str:
    """Return how a task instance is named in the ledger."""
    mapped = f"[{origin.map_index}]" if origin.map_index >= 0 else ""
    return f"worker:{origin.dag_id}/{origin.run_id}/{origin.task_id}{mapped}"


def data_of(entry: Entry) -> dict[str, Any]:
    body = json.loads(entry.body)
    return body["data"] if isinstance(body, dict) and isinstance(body.get("data"), dict) else {}


def check_same_run(request: ApprovalRequest, origin: Origin) -> None:
    """Raise unless the task instance is of the DAG run that asked; what a person opened is open to any."""
    asked_by = request.origin
    if asked_by is None or (asked_by.dag_id, asked_by.run_id) == (origin.dag_id, origin.run_id):
        return
    raise TaskInstanceRefusedError(
        f"request {request.id} belongs to run {asked_by.run_id} of {asked_by.dag_id}; "
        f"{origin.dag_id} run {origin.run_id} cannot use it"
    )


def draft_entry(
    kind: str, request: ApprovalRequest, *, actor: str, now: datetime, **facts: Any
) -> EntryDraft:
    return EntryDraft(
        kind=kind,
        request_id=request.id,
        actor=actor,
        time=now,
        data={
            "revision": request.revision,
            "action_digest": request.action_digest,
            "policy": request.policy,
            "policy_digest": request.policy_digest,
            **facts,
        },
    )
