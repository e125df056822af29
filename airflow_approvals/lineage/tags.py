"""PII classes as field tags in Marquez, through its tag API: its pages do not show the tags facet.

A service of convenience: what cannot be tagged is logged, and nothing waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx

from airflow_approvals.connections import find_connection
from airflow_approvals.lineage.spool import Event

CONN_ID = "marquez_default"
TIMEOUT = 5.0
MAX_KNOWN = 10_000
"""Tags that are remembered as set, so that the same export does not set them anew."""

Mark = tuple[str, str, str, str]  # namespace, dataset, field, tag

log = logging.getLogger(__name__)


class MarquezTags:
    """Marks columns in one Marquez."""

    def __init__(self, base_url: str, auth: tuple[str, str] | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._auth = auth
        self._known: dict[Mark, None] = {}

    def mark(self, event: Event) -> None:
        """Set the tags that the datasets of an event carry; Marquez has them since it took that event."""
        wanted = [mark for mark in _marks(event) if mark not in self._known]
        if not wanted:
            return
        try:
            with httpx.Client(base_url=self._base_url, timeout=TIMEOUT, auth=self._auth) as client:
                for tag in dict.fromkeys(mark[3] for mark in wanted):
                    path = f"/api/v1/tags/{quote(tag, safe='')}"
                    client.put(path, json={"description": _WHAT}).raise_for_status()
                for mark in wanted:
                    namespace, dataset, field, tag = (quote(part, safe="") for part in mark)
                    path = f"/api/v1/namespaces/{namespace}/datasets/{dataset}/fields/{field}/tags/{tag}"
                    client.post(path).raise_for_status()
                    self._remember(mark)
        except (httpx.HTTPError, ValueError) as trouble:
            log.warning("columns could not be tagged in Marquez: %s", _told(trouble))

    def _remember(self, mark: Mark) -> None:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[mark] = None


def find_marquez() -> MarquezTags | None:
    """Return the Marquez of the connection `marquez_default`; None where there is no such connection."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    try:
        connection = find_connection(CONN_ID)
    except AirflowNotFoundException:
        return None
    if not connection.host:
        log.warning("connection %s has no host; columns are not tagged in Marquez", CONN_ID)
        return None
    host = connection.host
    if "://" not in host:
        host = f"{connection.schema or 'http'}://{host}"
    port = f":{connection.port}" if connection.port else ""
    auth = (connection.login, connection.password or "") if connection.login else None
    return MarquezTags(f"{host}{port}", auth)


_WHAT = "A class of personal data that a scan has found"


def _marks(event: Event) -> Iterator[Mark]:
    for dataset in (*(event.get("inputs") or []), *(event.get("outputs") or [])):
        facets: dict[str, Any] = dataset.get("facets") or {}
        known = {field.get("name") for field in facets.get("schema", {}).get("fields", [])}
        for tag in facets.get("tags", {}).get("tags", []):
            if tag.get("key") == "pii" and tag.get("field") in known:
                yield dataset["namespace"], dataset["name"], tag["field"], tag["value"]


def _told(trouble: Exception) -> str:
    if isinstance(trouble, httpx.HTTPStatusError):
        return f"it answers {trouble.response.status_code}"
    return type(trouble).__name__
