"""The ledger's signed head as an event: whoever keeps lineage then keeps it too, out of the owner's hands."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

from airflow_approvals.core.heads import Head
from airflow_approvals.lineage import facets
from airflow_approvals.lineage.approval import Site
from airflow_approvals.lineage.events import SCHEMA_URL, Event
from airflow_approvals.lineage.names import APPROVAL_JOBS, PRODUCER

JOB = f"{APPROVAL_JOBS}ledger heads"
"""No DAG can be called so, and no worker can tell an event of it."""


def head_event(head: Head, site: Site) -> Event:
    """Return the event of a head: the same head has the same run."""
    facts = {"origin": head.origin, "size": head.size, "root": head.root, "time": head.time}
    facet = facets.own("AirflowApprovalsCheckpointRunFacet", **facts, note=head.note, line=head.line)
    about = facets.job_documentation(
        "Signed heads of the approvals ledger; `airflow-approvals ledger verify --witness` takes their lines"
    )
    return {
        "eventType": "COMPLETE",
        "eventTime": head.time,
        "producer": PRODUCER,
        "schemaURL": SCHEMA_URL,
        "run": {"runId": str(uuid5(NAMESPACE_URL, head.note)), "facets": {facets.CHECKPOINT: facet}},
        "job": {
            "namespace": site.namespace,
            "name": JOB,
            "facets": {"jobType": facets.job_type(), "documentation": about},
        },
        "inputs": [],
        "outputs": [],
    }
