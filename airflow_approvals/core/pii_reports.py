"""A PII report counts for the very bytes that it speaks of, and for no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import ReportMismatchError
from airflow_approvals.core.model import Snapshot

DATASET = "dataset_sha256"
"""Where a report names the digest of its dataset."""


@dataclass(frozen=True, kw_only=True)
class PiiProof:
    """What a receipt says of the report that was approved with the data."""

    dataset_sha256: str
    verified: bool
    residual: int | None
    plan_digest: str | None  # of the masking plan
    report_sha256: str  # canonical JSON of the whole report


def check_report(report: Mapping[str, Any] | None, datasets: Sequence[Snapshot]) -> None:
    """Raise `ReportMismatchError` where data would move and the report is not about exactly that data."""
    if report is None or not datasets or is_about(report, datasets):
        return
    expected = sorted({dataset.sha256 for dataset in datasets})
    named = report.get(DATASET)
    # What the report holds instead of a digest is not repeated: it may be anything.
    found = f"sha256 {named}" if _is_digest(named) else f"no digest under {DATASET!r}"
    raise ReportMismatchError(
        f"the PII report is about other bytes than those that would move; expected one about sha256 "
        f"{', '.join(expected)}, found {found}; scan or verify what is staged now, and give that report"
    )


def is_about(report: Mapping[str, Any], datasets: Sequence[Snapshot]) -> bool:
    """Return whether the report names the digest of all the data that would move."""
    named = report.get(DATASET)
    return _is_digest(named) and {dataset.sha256 for dataset in datasets} == {named}


def proof_of(report: Mapping[str, Any] | None, datasets: Sequence[Snapshot]) -> PiiProof | None:
    """Return what the report says, None where there is none about this data."""
    if report is None or not is_about(report, datasets):
        return None
    residual, plan = report.get("residual"), report.get("plan_digest")
    is_count = isinstance(residual, int) and not isinstance(residual, bool) and residual >= 0
    return PiiProof(
        dataset_sha256=report[DATASET],
        # A proof that masking holds needs a scan to hold against.
        verified=report.get("scanned") is True and report.get("verified") is True,
        residual=residual if is_count else None,
        plan_digest=plan if _is_digest(plan) else None,
        report_sha256=digest_of(dict(report)),
    )


def _is_digest(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")
