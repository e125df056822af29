"""What a lineage backend knows to have been written: the outputs of runs that ended well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from airflow_approvals.core.errors import ApprovalsError, InvalidRequestError, ServiceUnavailableError
from airflow_approvals.core.moments import rfc3339
from airflow_approvals.lineage.facets import APPROVAL, RELEASE
from airflow_approvals.lineage.names import APPROVAL_JOBS, DatasetName

PAGE = 100
TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Movement:
    """One dataset that one run has written."""

    dataset: DatasetName
    run_id: str
    job: str  # namespace/name
    at: str  # RFC 3339, as the event has it
    request_id: str | None  # the approval that the event names
    sha256: str | None  # what the event says was written, where it says so


@dataclass(frozen=True, kw_only=True)
class BareEnd:
    """One run that ended well, and tells neither what it wrote nor whose approval it had."""

    run_id: str
    job: str  # namespace/name
    at: str


class Marquez:
    """Reads the raw events of one Marquez, which keeps every one as it came."""

    def __init__(self, base_url: str, auth: tuple[str, str] | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._auth = auth

    def events(self, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
        """Yield what happened from `since` up to `until`, in order; raises `ServiceUnavailableError`."""
        window: dict[str, str | int] = {"after": rfc3339(since), "before": rfc3339(until), "limit": PAGE}
        window["sortDirection"] = "asc"
        try:
            with httpx.Client(base_url=self._base_url, timeout=TIMEOUT, auth=self._auth) as client:
                offset = 0
                while True:
                    answer = client.get("/api/v1/events/lineage", params=window | {"offset": offset})
                    answer.raise_for_status()
                    page = answer.json()["events"]
                    yield from page
                    offset += len(page)
                    if len(page) < PAGE:
                        return
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ApprovalsError:
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            return InvalidRequestError(f"{self._base_url}: expected the http address of Marquez's API")
        told = (
            f"answers {error.response.status_code}"
            if isinstance(error, httpx.HTTPStatusError)
            else f"no answer to use ({type(error).__name__})"
        )
        return ServiceUnavailableError(
            f"{self._base_url}: {told}; nothing was reconciled: check that Marquez's API runs there"
        )


def movements(events: Iterable[dict[str, Any]]) -> Iterator[Movement | BareEnd]:
    """Yield what each run has written, once per run; approvals themselves move nothing."""
    seen: set[tuple[str, DatasetName | None]] = set()
    for event in events:
        if event.get("eventType") != "COMPLETE" or event["job"]["name"].startswith(APPROVAL_JOBS):
            continue
        for found in _told_by(event):
            key = (found.run_id, found.dataset if isinstance(found, Movement) else None)
            if key not in seen:
                seen.add(key)
                yield found


def _told_by(event: dict[str, Any]) -> Iterator[Movement | BareEnd]:
    written = event.get("outputs") or []
    for each in written:
        yield _movement(event, each)
    if not written and APPROVAL not in (event["run"].get("facets") or {}):
        yield BareEnd(run_id=event["run"]["runId"], job=_job_of(event), at=event["eventTime"])


def _movement(event: dict[str, Any], written: dict[str, Any]) -> Movement:
    facets = written.get("facets") or {}
    release = facets.get(RELEASE) or {}
    approval = (event["run"].get("facets") or {}).get(APPROVAL) or {}
    return Movement(
        dataset=DatasetName(namespace=written["namespace"], name=written["name"]),
        run_id=event["run"]["runId"],
        job=_job_of(event),
        at=event["eventTime"],
        request_id=release.get("requestId") or approval.get("requestId"),
        sha256=release.get("sha256"),
    )


def _job_of(event: dict[str, Any]) -> str:
    return f"{event['job']['namespace']}/{event['job']['name']}"
