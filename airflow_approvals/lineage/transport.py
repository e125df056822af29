"""A transport for OpenLineage's client that hands events to the approvals service, which sends them on.

A lineage backend that is away then costs tasks nothing, and loses nothing. Configured as
`[openlineage] transport = {"type": "airflow_approvals.lineage.transport.SpoolTransport", "backend": {...}}`.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import attrs
import httpx
from openlineage.client.serde import Serde
from openlineage.client.transport.transport import Config, Transport

from airflow_approvals.core.errors import ServiceUnavailableError
from airflow_approvals.core.worker_token import LINEAGE, WorkerClaims, issue_worker_token, worker_key
from airflow_approvals.lineage.names import clean
from airflow_approvals.settings import Settings, read_settings

PATIENCE = 2.0
"""Seconds that telling an event may take: to connect, to write and to read, all tries together."""
MAX_BODY = 1 << 20
"""Bytes of an event as the service takes them; a larger one goes without its widest facets."""

_SHORTEST = 0.4  # seconds left that are worth another try
_PAUSE = 0.2
_WIDE = ("columnLineage", "schema", "tags", "airflowApprovals_pii")

log = logging.getLogger(__name__)


@attrs.define
class SpoolConfig(Config):
    """What stands in Airflow's configuration; `backend` is read by the service alone."""

    backend: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> SpoolConfig:
        return cls(backend=dict(params.get("backend") or {}))


class SpoolTransport(Transport):
    """Posts events to the service; raises `ServiceUnavailableError` if it is not there for two seconds."""

    kind = "approvals_spool"
    config_class = SpoolConfig

    def __init__(self, config: SpoolConfig) -> None:
        self.config = config
        self._settings: Settings | None = None

    def emit(self, event: Any) -> None:
        settings = self._settings = self._settings or read_settings()
        body = fitting(Serde.to_dict(event))
        address = f"{settings.service_url}/approvals/api/v1/lineage/events"
        deadline = time.monotonic() + PATIENCE
        # Reading the trusted certificates alone takes longer than the call.
        certificates = address.startswith("https:")
        with httpx.Client(trust_env=False, verify=certificates) as client:
            while True:
                trouble = _post(client, address, body, settings, seconds=deadline - time.monotonic())
                if trouble is None:
                    return
                if time.monotonic() + _PAUSE + _SHORTEST > deadline:
                    raise ServiceUnavailableError(f"a lineage event could not be handed over: {trouble}")
                time.sleep(_PAUSE)


def fitting(event: dict[str, Any]) -> bytes:
    """Return the event as JSON that the service takes; a larger one goes without its widest facets."""
    body = _encode(event)
    for name in _WIDE:
        if len(body) <= MAX_BODY:
            break
        for dataset in (*(event.get("inputs") or []), *(event.get("outputs") or [])):
            (dataset.get("facets") or {}).pop(name, None)
        log.warning("a lineage event is too large (%d bytes): it is told without %s", len(body), name)
        body = _encode(event)
    return body


def _encode(event: dict[str, Any]) -> bytes:
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"), default=str)
    if "\\u0000" in text or not _is_encodable(text):
        text = json.dumps(_cleaned(event), ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode()


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(each) for each in value]
    return value


def _post(
    client: httpx.Client, address: str, body: bytes, settings: Settings, *, seconds: float
) -> str | None:
    """Return what is in the way, or None; raise what trying again would not change."""
    claims = WorkerClaims(subject=LINEAGE, scope="lineage")
    token = issue_worker_token(
        worker_key(settings.worker_secret), claims, now=datetime.now(UTC), token_id=str(uuid4())
    )
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    # Each step has a limit of its own: these add up to all there is.
    timeout = httpx.Timeout(seconds / 4, read=seconds / 2)
    try:
        answer = client.post(address, content=body, headers=headers, timeout=timeout)
    except httpx.TransportError as error:
        return type(error).__name__
    if answer.status_code in (429, 500, 502, 503, 504):
        return f"the service answers {answer.status_code}"
    if answer.is_error:
        raise ServiceUnavailableError(f"the service refuses a lineage event with {answer.status_code}")
    return None
