"""PII reports as evidence: what a scan or a verification has written about the very bytes that would move."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import InvalidRequestError, ReportMismatchError

if TYPE_CHECKING:
    from airflow_approvals.core.model import Snapshot

MAX_REPORT = 1024 * 1024
"""Bytes of a report: counts, columns and entity types do not need more."""


def evidence_of(
    report: dict[str, Any] | str | None, dataset: Snapshot | None, *, conn_id: str | None = None
) -> dict[str, Any] | None:
    """Return the report as evidence; raise `ReportMismatchError` unless it is about exactly `dataset`."""
    from airflow_approvals.core.pii_reports import check_report

    found = read_report(report, conn_id=conn_id)
    check_report(found, () if dataset is None else (dataset,))
    return found


def read_report(report: dict[str, Any] | str | None, *, conn_id: str | None = None) -> dict[str, Any] | None:
    """Return a report given as itself, as the path of its file, or as what the task that wrote it returned.

    Raise `InvalidRequestError` where a path does not lead to a JSON object, and `ReportMismatchError` where
    the file is not the one that the task wrote.
    """
    if report is None:
        return None
    if isinstance(report, str):
        return _parsed(report, _read(report, conn_id))
    place, sha256 = report.get("report"), report.get("report_sha256")
    if not isinstance(place, str) or not isinstance(sha256, str):
        return report
    content = _read(place, conn_id)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ReportMismatchError(
            f"{place}: is not the report that the task wrote; expected sha256 {sha256}, found {found}; "
            "run that task again"
        )
    return _parsed(place, content)


def _read(place: str, conn_id: str | None) -> bytes:
    from airflow_approvals.staging.locations import locate, read_fully

    location = locate(place, conn_id)
    listing = location.list_parts()
    if listing.is_folder:
        raise InvalidRequestError(f"{place}: expected the JSON file of a PII report, found a folder")
    buffer = bytearray(MAX_REPORT + 1)
    with location.open_part(listing.parts[0]) as source:
        length = read_fully(source, memoryview(buffer))
    if length > MAX_REPORT:
        raise InvalidRequestError(f"{place}: expected a PII report of at most {MAX_REPORT} bytes, found more")
    return bytes(buffer[:length])


def _parsed(place: str, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequestError(f"{place}: expected the JSON object of a PII report, found something else")
    return found
