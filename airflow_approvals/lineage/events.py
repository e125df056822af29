"""The events of an approval's own run, made from one ledger entry and the request it is about.

START when it is asked, with what would move as input; COMPLETE with the receipt as output, FAIL when denied,
ABORT when it ended without an answer. An approval that is taken back or runs out before its use has had its
COMPLETE: a later ABORT says that nothing can be released by it any more.
"""

from __future__ import annotations

import json
from typing import Any

from airflow_approvals.core.model import ApprovalRequest, Entry, State
from airflow_approvals.lineage import facets
from airflow_approvals.lineage.approval import (
    Site,
    input_of,
    job_of,
    receipt_dataset,
    receipt_facets,
    run_facet,
)
from airflow_approvals.lineage.facets import Facets
from airflow_approvals.lineage.names import PRODUCER, DatasetName, dataset_of, run_id_of

Event = dict[str, Any]

SCHEMA_URL = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"

MOVES: dict[str, tuple[str, State]] = {
    "request.opened": ("START", State.PENDING),
    "request.approved": ("COMPLETE", State.APPROVED),
    "request.denied": ("FAIL", State.DENIED),
    "request.expired": ("ABORT", State.EXPIRED),
    "request.cancelled": ("ABORT", State.CANCELLED),
    "request.superseded": ("ABORT", State.SUPERSEDED),
    "request.revoked": ("ABORT", State.REVOKED),
    "request.lapsed": ("ABORT", State.LAPSED),
}
"""Ledger entries that the run of an approval has an event for."""


def told_by(entry: Entry) -> tuple[str, str, str] | None:
    """Return kind, request and time of an entry that there is an event for; None for any other."""
    body = json.loads(entry.body)
    if body["kind"] not in MOVES or body["request_id"] is None:
        return None
    return body["kind"], body["request_id"], body["time"]


def event_of(
    kind: str, time: str, request: ApprovalRequest, site: Site, *, with_reasons: bool = False
) -> Event:
    """Return the event for a ledger entry of this kind; the request may have moved on since."""
    event_type, state = MOVES[kind]
    run_facets = {facets.APPROVAL: run_facet(request, site, state=state, with_reasons=with_reasons)}
    data = request.evidence.datasets
    return {
        "eventType": event_type,
        "eventTime": time,
        "producer": PRODUCER,
        "schemaURL": SCHEMA_URL,
        "run": {"runId": run_id_of(request.id), "facets": run_facets},
        "job": {
            "namespace": site.namespace,
            "name": job_of(request),
            "facets": {
                "jobType": facets.job_type(),
                "documentation": facets.job_documentation(_what_it_is(request)),
            },
        },
        "inputs": [_input(*input_of(each, request.evidence if len(data) == 1 else None)) for each in data],
        "outputs": [_receipt(request, site)] if state is State.APPROVED else [],
    }


def _input(name: DatasetName, about: Facets, reading: Facets) -> dict[str, Any]:
    return {"namespace": name.namespace, "name": name.name, "facets": about, "inputFacets": reading}


def _receipt(request: ApprovalRequest, site: Site) -> dict[str, Any]:
    name = receipt_dataset(request, site)
    about: Facets = {**receipt_facets(request), "lifecycleStateChange": facets.lifecycle("CREATE")}
    return {"namespace": name.namespace, "name": name.name, "facets": about}


def _what_it_is(request: ApprovalRequest) -> str:
    where = ""
    if request.action.destination:
        place = dataset_of(request.action.destination)  # without credentials
        where = f" to {place.namespace} {place.name}"
    return f"Approval of {request.action.kind}{where} under policy {request.policy}"
