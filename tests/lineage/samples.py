"""Requests, snapshots and reports to tell lineage of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airflow_approvals.core.model import ApprovalRequest, Column, FileDigest, Snapshot, State, Verdict
from tests.store.samples import a_request, decided


def answered(state: State, *, reason: str = "") -> ApprovalRequest:
    """Return a request that one person has answered, and that is in `state` now."""
    request = decided(a_request())
    verdict = Verdict.DENY if state is State.DENIED else Verdict.APPROVE
    vote = replace(request.votes[0], verdict=verdict, reason=reason)
    receipt = None if state in (State.DENIED, State.EXPIRED, State.CANCELLED) else request.receipt
    because = f"{state} by alice: {reason}"
    return replace(request, state=state, votes=(vote,), receipt=receipt, decided_because=because)


def a_snapshot(
    uri: str = "file:///staged/customers.parquet", *, columns: tuple[str, ...] = ("id", "email")
) -> Snapshot:
    """Return a dataset of 5,000 rows in one file, with these columns."""
    return Snapshot(
        uri=uri,
        format="parquet",
        sha256="a" * 64,
        size=4096,
        rows=5000,
        columns=tuple(Column(name=name, type="string") for name in columns),
        schema_sha256="b" * 64,
        files=(FileDigest(name="customers.parquet", sha256="a" * 64, size=4096),),
    )


def a_folder(parts: int) -> Snapshot:
    """Return a dataset in several files."""
    whole = a_snapshot("file:///staged/customers")
    files = tuple(FileDigest(name=f"part-{n}.parquet", sha256="a" * 64, size=1) for n in range(parts))
    return replace(whole, files=files)


def a_report(*, verified: bool = True) -> dict[str, Any]:
    """Return a verification with the scan after it."""
    leak = {"column": "email", "entity_type": "EMAIL_ADDRESS", "found": "survives", "count": 3}
    leaks = [] if verified else [leak]
    return {
        "scanned": True,
        "verified": verified,
        "residual": 0 if verified else 3,
        "rows": 5000,
        "leaks": leaks,
        "rules_digest": "c" * 64,
        "before": _scan({"email": {"EMAIL_ADDRESS": 5000}, "id": {}}),
        "after": _scan({"email": {} if verified else {"EMAIL_ADDRESS": 3}, "id": {}}),
    }


def a_masking(column: str) -> dict[str, Any]:
    """Return the report of a masking of one column."""
    return {
        "dataset_sha256": "d" * 64,
        "rows": 5000,
        "masked": {column: {"EMAIL_ADDRESS": 5000}},
        "dropped": [],
        "became_text": [],
    }


def _scan(found: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {
        "columns": [
            {
                "column": name,
                "type": "string",
                "scanned": 5000,
                "cells_with_findings": sum(classes.values()),
                "entities": [{"entity_type": kind, "cells": cells} for kind, cells in classes.items()],
            }
            for name, classes in found.items()
        ]
    }
