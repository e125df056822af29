"""A transport for OpenLineage's client that hands events to the approvals service, which sends them on.

A lineage backend that is away then costs tasks nothing, and loses nothing; a service that is away costs two
seconds, and what it was to be told is kept on this machine until it can be told. Configured as
`[openlineage] transport = {"type": "airflow_approvals.lineage.transport.SpoolTransport", "backend": {...}}`.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any, Self
from uuid import uuid4

import attrs
import httpx
from openlineage.client.transport.transport import Config, Transport

from airflow_approvals.core.errors import InvalidRequestError, ServiceUnavailableError
from airflow_approvals.core.worker_token import LINEAGE, WorkerClaims, issue_worker_token, worker_key
from airflow_approvals.lineage.kept import FOLDER, MAX_BODY, KeptEvents
from airflow_approvals.lineage.names import clean
from airflow_approvals.lineage.wide import as_json
from airflow_approvals.settings import Settings, read_settings

PATIENCE = 2.0
"""Seconds that telling may take: to connect, to write and to read, all tries and all events together."""

_SHORTEST = 0.4  # seconds left that are worth another try
_PAUSE = 0.2
_WIDE = ("columnLineage", "schema", "tags", "airflowApprovals_pii")
_AWAY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What says nothing about the event, and may be over in a moment."""
_NOT_OURS = frozenset({401, 404, 407})
"""What says nothing about the event either: another server, or another secret than the workers'."""

log = logging.getLogger(__name__)


@attrs.define
class SpoolConfig(Config):
    """What stands in Airflow's configuration; `backend` is read by the service alone."""

    backend: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> SpoolConfig:
        return cls(backend=dict(params.get("backend") or {}))


class SpoolTransport(Transport):
    """Tells events to the service; for as long as it is away they are kept on this machine.

    Raises `InvalidRequestError` for what the service refuses, and `ServiceUnavailableError` where an event
    can be neither told nor kept.
    """

    kind = "approvals_spool"
    config_class = SpoolConfig

    def __init__(self, config: SpoolConfig) -> None:
        self.config = config
        self._settings: Settings | None = None

    def emit(self, event: Any) -> None:
        settings = self._settings = self._settings or read_settings()
        told = as_json(event)
        if "run" not in told:
            raise InvalidRequestError("a lineage event: expected one of a run, found one of a job or dataset")
        run_id, body = told["run"]["runId"], fitting(told)
        kept = KeptEvents(settings.home / FOLDER)
        with _Telling(settings) as telling:
            try:
                kept.hand_over(telling.tell, of=run_id)  # a COMPLETE must not overtake its START
                telling.tell(body)
            except ServiceUnavailableError as trouble:
                kept.keep(run_id, body, now=datetime.now(UTC))
                log.warning("%s: it is kept in %s, and handed over later", trouble, kept.folder)
                return
            try:
                kept.hand_over(telling.tell)
            except ServiceUnavailableError as trouble:
                log.info("%s: others are kept in %s for longer", trouble, kept.folder)


class _Telling:
    """Tells the service one event after the other, for two seconds in all."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._address = f"{settings.service_url}/approvals/api/v1/lineage/events"
        # Reading the trusted certificates alone takes longer than the call.
        certificates = self._address.startswith("https:")
        self._client = httpx.Client(trust_env=False, verify=certificates)
        self._deadline = time.monotonic() + PATIENCE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def tell(self, body: bytes) -> None:
        """Tell one event; raise `ServiceUnavailableError` when the time is up, or waiting is of no use.

        Raises `InvalidRequestError` for an event that the service refuses.
        """
        trouble: str | None = "no time is left"
        while (left := self._deadline - time.monotonic()) > _SHORTEST:
            trouble = self._post(body, seconds=left)
            if trouble is None:
                return
            if time.monotonic() + _PAUSE + _SHORTEST > self._deadline:
                break
            time.sleep(_PAUSE)
        raise ServiceUnavailableError(f"a lineage event could not be handed over: {trouble}")

    def _post(self, body: bytes, *, seconds: float) -> str | None:
        """Return what is in the way, or None; raise what trying again now would not change."""
        claims = WorkerClaims(subject=LINEAGE, scope="lineage")
        token = issue_worker_token(
            worker_key(self._settings.worker_secret), claims, now=datetime.now(UTC), token_id=str(uuid4())
        )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        # Each step has a limit of its own: these add up to all there is.
        timeout = httpx.Timeout(seconds / 4, read=seconds / 2)
        try:
            answer = self._client.post(self._address, content=body, headers=headers, timeout=timeout)
        except httpx.TransportError as error:
            return type(error).__name__
        told = f"the service answers {answer.status_code}"
        if answer.is_success:
            return None
        if answer.status_code in _AWAY:
            return told
        if answer.is_redirect or answer.status_code in _NOT_OURS:
            raise ServiceUnavailableError(f"a lineage event could not be handed over: {told}")
        raise InvalidRequestError(f"a lineage event is refused: {told}")


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
