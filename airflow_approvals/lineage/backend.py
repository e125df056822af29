"""The other end of the spool: whatever Airflow's OpenLineage configuration names, through its own client.

Workers may be configured with `SpoolTransport`; the backend is then the transport that stands inside of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.lineage.spool import (
    BackendAwayError,
    BackendChokedError,
    BackendRefusedError,
    Event,
)

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent
    from openlineage.client.transport import Transport

SPOOL = "airflow_approvals.lineage.transport.SpoolTransport"
"""How Airflow's configuration names our transport."""
TIMEOUT = 20.0
"""Seconds for one call to an HTTP backend: what it took and did not answer by then is sent twice."""

_AWAY = frozenset({401, 403, 404, 405, 407, 408, 425, 429, 502, 503, 504})
"""What says nothing about the event: wrong address or credentials, or a backend that is not ready."""


class Tags(Protocol):
    """Marks columns in a catalogue."""

    def mark(self, event: Event) -> None: ...


class TransportBackend:
    """Sends through one of OpenLineage's transports."""

    def __init__(self, transport: Transport, tags: Tags | None = None) -> None:
        self._transport = transport
        self._tags = tags

    def send(self, event: Event) -> None:
        """Deliver one event, or raise how it failed; messages hold no address and nothing of the event."""
        try:
            self._transport.emit(run_event(event))
        except Exception as error:
            raise _as_ours(error) from error

    def mark(self, event: Event) -> None:
        """Tag columns where the backend has tags of its own."""
        if self._tags is not None:
            self._tags.mark(event)


def find_transport() -> Transport | None:
    """Return the transport that Airflow's configuration leads to; None while OpenLineage is off.

    Raises `ConfigurationError` for a spool that stands before nothing.
    """
    from airflow.providers.openlineage import conf

    if conf.is_disabled():
        return None
    from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport import get_default_factory

    from airflow_approvals.lineage.transport import SpoolTransport

    config = OpenLineageAdapter().get_openlineage_config()
    if config is None:  # from OPENLINEAGE_URL and its like
        found: Transport = OpenLineageClient().transport
        config = dict(found.config.backend) if isinstance(found, SpoolTransport) else None
        return get_default_factory().create(patient(config)) if config else found
    wanted = config.get("transport", {})
    if wanted.get("type") == SPOOL:
        wanted = wanted.get("backend") or {}
        if not isinstance(wanted, Mapping) or not wanted.get("type"):
            raise ConfigurationError(
                f'[openlineage] transport: {SPOOL} needs a "backend", the transport that the API server '
                'sends on by, like {"type": "http", "url": "http://marquez:5000"}'
            )
    return get_default_factory().create(patient(wanted))


def job_namespace() -> str:
    """Return the namespace of Airflow's jobs."""
    from airflow.providers.openlineage import conf

    return str(conf.namespace())


def patient(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a transport's configuration for a caller that tries again by itself."""
    made = dict(config)
    if made.get("type") == "http":
        made.setdefault("timeout", TIMEOUT)
        made.setdefault("retry", {"total": 0, "read": 0, "connect": 0, "status_forcelist": []})
    if made.get("type") == "composite":
        made["continue_on_failure"] = False  # or a failure is only logged, and the event is gone
    return made


def run_event(event: Event) -> RunEvent:
    """Return the client's object for an event that was kept as JSON."""
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

    return RunEvent(
        eventType=RunState(event["eventType"]),
        eventTime=event["eventTime"],
        run=Run(runId=event["run"]["runId"], facets=event["run"].get("facets") or {}),
        job=Job(
            namespace=event["job"].get("namespace", ""),
            name=event["job"]["name"],
            facets=event["job"].get("facets") or {},
        ),
        inputs=[
            InputDataset(
                namespace=each["namespace"],
                name=each["name"],
                facets=each.get("facets") or {},
                inputFacets=each.get("inputFacets") or {},
            )
            for each in event.get("inputs") or []
        ],
        outputs=[
            OutputDataset(
                namespace=each["namespace"],
                name=each["name"],
                facets=each.get("facets") or {},
                outputFacets=each.get("outputFacets") or {},
            )
            for each in event.get("outputs") or []
        ],
        producer=event.get("producer", ""),
    )


def _as_ours(error: Exception) -> Exception:
    status = getattr(getattr(error, "response", None), "status_code", None)
    # An address that cannot be read is a ValueError too, of the kind that knows a response.
    if isinstance(error, KeyError | TypeError | ValueError) and not hasattr(error, "response"):
        return BackendRefusedError(f"the event is not one that can be sent ({type(error).__name__})")
    if not isinstance(status, int):
        return BackendAwayError(f"the lineage backend does not answer ({type(error).__name__})")
    if status in _AWAY:
        return BackendAwayError(f"the lineage backend answers {status}; check its address and credentials")
    if status >= 500:
        return BackendChokedError(f"the lineage backend failed at this event with {status}")
    return BackendRefusedError(f"the lineage backend refuses this event with {status}")
