"""Names that the operators share; known where DAG files are parsed, so this imports nothing."""

from __future__ import annotations

RESUME = "approvals_resume"
"""The method that a task goes on with after its wait."""

REQUEST_ID_KEY = "approval_request_id"
"""The XCom that holds the id of the request a task asked with."""

GATE_FIELDS = (
    "approvals_policy",
    "approvals_kind",
    "approvals_source",
    "approvals_destination",
    "approvals_source_conn_id",
    "approvals_pii_report",
    "approvals_parameters",
    "approvals_justification",
)
"""Template fields that a gated task has beside its own."""
