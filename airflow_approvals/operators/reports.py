"""PII reports as evidence: given as a dict, or as the file that a scan upstream has written."""

from __future__ import annotations

import json
from typing import Any

from airflow_approvals.core.errors import InvalidRequestError

MAX_REPORT = 1024 * 1024
"""Bytes of a report: counts, columns and entity types do not need more."""


def read_report(report: dict[str, Any] | str | None, *, conn_id: str | None = None) -> dict[str, Any] | None:
    """Return the report itself; raise `InvalidRequestError` where a path does not lead to a JSON object."""
    if not isinstance(report, str):
        return report
    from airflow_approvals.staging.locations import locate

    place = locate(report, conn_id)
    listing = place.list_parts()
    if listing.is_folder:
        raise InvalidRequestError(f"{report}: expected the JSON file of a PII report, found a folder")
    buffer = bytearray(MAX_REPORT + 1)
    length = 0
    with place.open_part(listing.parts[0]) as source:
        while count := source.readinto(memoryview(buffer)[length:]):
            length += count
    if length > MAX_REPORT:
        raise InvalidRequestError(
            f"{report}: expected a PII report of at most {MAX_REPORT} bytes, found more"
        )
    try:
        found = json.loads(bytes(buffer[:length]))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequestError(f"{report}: expected the JSON object of a PII report, found something else")
    return found
