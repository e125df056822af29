"""A PII report counts for the very bytes that it speaks of, and for no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_approvals.core.errors import ReportMismatchError
from airflow_approvals.core.model import Snapshot

DATASET = "dataset_sha256"
"""Where a report names the digest of its dataset."""


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


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")
