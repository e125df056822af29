"""Requests and facts to store: small, whole, and different where asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    Column,
    EntryDraft,
    Evidence,
    FileDigest,
    Origin,
    Person,
    Question,
    Snapshot,
    State,
    Verdict,
    Vote,
    digest_of_action,
)
from airflow_approvals.ports import TaskSlot

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SLOT = TaskSlot(dag_id="export", run_id="manual__1", task_id="publish", map_index=-1, gate="")
ACTION = Action(
    kind="export",
    source="file:///staged/customers.parquet",
    destination="file:///outbox/customers.parquet",
    parameters={"format": "parquet", "limit": None, "größe": 1.5},
    justification="monthly partner feed",
)
EVIDENCE = Evidence(
    datasets=(
        Snapshot(
            uri="file:///staged/customers.parquet",
            format="parquet",
            sha256="a" * 64,
            size=2**40,
            rows=5000,
            columns=(Column(name="id", type="int64"),),
            schema_sha256="b" * 64,
            files=(FileDigest(name="customers.parquet", sha256="a" * 64, size=2**40),),
        ),
    ),
    pii={"verified": True, "residual": 0},
)
ORIGIN = Origin(
    ti_id="0190c0de-0000-7000-8000-000000000001",
    dag_id="export",
    run_id="manual__1",
    task_id="publish",
    map_index=-1,
    try_number=1,
    run_type="manual",
    state="running",
    triggering_user="engineer",
    owners=("engineer",),
)


def a_request(slot: TaskSlot | None = SLOT, **changes: Any) -> ApprovalRequest:
    """Return a pending request of `slot`, or of nobody's task when it is None."""
    origin = None
    if slot is not None:
        origin = replace(
            ORIGIN, dag_id=slot.dag_id, run_id=slot.run_id, task_id=slot.task_id, map_index=slot.map_index
        )
    request = ApprovalRequest(
        id=str(uuid4()),
        revision=1,
        state=State.PENDING,
        action=ACTION,
        evidence=EVIDENCE,
        action_digest=digest_of_action(ACTION, EVIDENCE),
        gate=slot.gate if slot else "",
        opened_by="worker",
        requesters=(Person("engineer"),),
        origin=origin,
        policy="partner-export",
        policy_digest="c" * 64,
        opened_at=NOON,
        expires_at=NOON + timedelta(hours=4),
    )
    return replace(request, **changes)


def decided(request: ApprovalRequest) -> ApprovalRequest:
    """Return `request` with every field in use."""
    vote = Vote(
        voter=Person("alice"),
        verdict=Verdict.APPROVE,
        reason="looks right",
        channel=Channel.CLI,
        cast_at=NOON + timedelta(minutes=1, microseconds=7),
        revision=1,
        shown_digest=request.action_digest,
        groups=("data-stewards",),
    )
    question = Question(
        id=1,
        asked_by=Person("alice"),
        asked_at=NOON,
        text="why now?",
        channel=Channel.API,
        answer="month end",
    )
    return replace(
        request,
        state=State.APPROVED,
        votes=(vote,),
        questions=(question,),
        decided_at=vote.cast_at,
        decided_because="approved by alice",
        receipt_expires_at=vote.cast_at + timedelta(minutes=30),
        decision_index=3,
        receipt={"payload": "e30=", "signatures": []},
    )


def a_fact(kind: str = "vote.cast", request_id: str | None = None, **data: Any) -> EntryDraft:
    """Return something to write into the ledger."""
    return EntryDraft(kind=kind, request_id=request_id, actor="alice", time=NOON, data=data)
