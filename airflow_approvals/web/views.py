"""Requests as the API tells them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from airflow_approvals.core.model import ApprovalRequest, to_json
from airflow_approvals.core.progress import Progress

RequestId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]


def request_view(request: ApprovalRequest) -> dict[str, Any]:
    """Return the request without its receipt, which comes with its proof or not at all."""
    view: dict[str, Any] = to_json(request)
    del view["receipt"]
    return view


def brief_view(request: ApprovalRequest) -> dict[str, Any]:
    """Return what the shared watch of a triggerer needs to know of its many requests."""
    return {"id": request.id, "state": request.state, "revision": request.revision}


def progress_view(progress: Progress | None) -> dict[str, Any] | None:
    """Return how far each rule is met, and what is missing in words."""
    if progress is None:
        return None
    return {
        "is_met": progress.is_met,
        "missing": progress.missing,
        "rules": [{**to_json(rule), "is_met": rule.is_met} for rule in progress.rules],
    }
