"""An approval as facets: who said yes to what under which rule, and where the proof of it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_approvals.core.model import ApprovalRequest, Evidence, Grant, GrantKind, Snapshot, State
from airflow_approvals.core.moments import rfc3339
from airflow_approvals.core.receipt import payload_sha256
from airflow_approvals.lineage import facets
from airflow_approvals.lineage.facets import Facet, Facets
from airflow_approvals.lineage.names import (
    DatasetName,
    approval_job,
    clean,
    dataset_of,
    receipt_of,
    run_id_of,
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all events of one installation have in common."""

    namespace: str  # of Airflow's jobs: `[openlineage] namespace`
    base_url: str  # of Airflow's API server, without /approvals


def job_of(request: ApprovalRequest) -> str:
    """Return the job that this approval is a run of."""
    origin = request.origin
    return approval_job(
        origin.dag_id if origin else None, origin.task_id if origin else None, request.gate, request.policy
    )


def receipt_dataset(request: ApprovalRequest, site: Site) -> DatasetName:
    """Return the dataset that stands for the receipt of this approval."""
    return receipt_of(site.namespace, request.id)


def receipt_facets(request: ApprovalRequest) -> Facets:
    """Return what is said of a receipt by whoever writes or reads it.

    All say all of it: Marquez takes the description of a dataset away with the next event that has none.
    """
    told = f"Receipt of approval {request.id}: policy {request.policy}, {how_approved(request)}"
    return {"version": facets.version(request.id), "documentation": facets.documentation(told)}


def run_facet(
    request: ApprovalRequest, site: Site, *, state: State | None = None, with_reasons: bool = False
) -> Facet:
    """Return the approval as a facet of a run: of its own, and of the task that asked or acts.

    `state` says what the request was at the time of an event, where that is not what it is now.
    """
    state = state or request.state
    facts: dict[str, Any] = {
        "requestId": request.id,
        "state": str(state),
        "approvalRun": _approval_run(request, site),
        "actionKind": clean(request.action.kind),
        "actionDigest": request.action_digest,
        "policy": {"name": request.policy, "digest": request.policy_digest},
        "requesters": [clean(each) for each in request.requesters],
        "openedAt": rfc3339(request.opened_at),
        "expiresAt": rfc3339(request.expires_at),
        "link": f"{site.base_url}/approvals/requests/{request.id}",
    }
    if request.action.destination is not None:
        facts["destination"] = _place(request.action.destination)
    if request.origin is not None:
        facts["origin"] = {
            "dagId": request.origin.dag_id,
            "runId": clean(request.origin.run_id),
            "taskId": request.origin.task_id,
            "mapIndex": request.origin.map_index,
        }
    if state is not State.PENDING:
        facts |= _decision(request, with_reasons=with_reasons)
    return facets.own("AirflowApprovalsApprovalRunFacet", **facts)


def release_facet(request: ApprovalRequest, data: Snapshot, site: Site) -> Facet:
    """Return what a published dataset says of the approval that let it out."""
    facts: dict[str, Any] = {
        "requestId": request.id,
        "approvalRun": _approval_run(request, site),
        "policy": {"name": request.policy, "digest": request.policy_digest},
        "approvers": approvers_of(request),
        "sha256": data.sha256,
        "link": f"{site.base_url}/approvals/requests/{request.id}",
    }
    facts |= _proof(request)
    return facets.own("AirflowApprovalsReleaseDatasetFacet", **facts)


def approvers_of(request: ApprovalRequest) -> list[str]:
    """Return who said yes: on this request, or in place of votes on it."""
    voted = {clean(vote.voter) for vote in request.votes if vote.verdict == "approve"}
    return sorted(voted | {clean(each) for each in (request.granted.by if request.granted else ())})


def how_approved(request: ApprovalRequest) -> str:
    """Return in words how the yes came about; an emergency stands out."""
    by = ", ".join(approvers_of(request)) or "nobody"
    if request.granted is None:
        return f"approved by {by}"
    if request.granted.kind is GrantKind.BREAK_GLASS:
        return f"BREAK GLASS: opened in an emergency by {by} alone"
    return f"approved for recurring runs by {by}"


def input_of(data: Snapshot, evidence: Evidence | None = None) -> tuple[DatasetName, Facets, Facets]:
    """Return a staged dataset as an input: its name, its facets, and those of having read it."""
    about: Facets = {"schema": facets.schema(data.columns), "version": facets.version(data.sha256)}
    reading: Facets = {"inputStatistics": facets.input_statistics(data)}
    if len(data.files) > 1:
        reading["subset"] = facets.input_subset(data)
    report = evidence.pii if evidence else None
    if report is not None:
        about["tags"] = facets.pii_tags(facets.pii_classes(report))
        about[facets.PII] = facets.pii_summary(report)
        if (assertions := facets.masking_assertions(report)) is not None:
            reading["dataQualityAssertions"] = assertions
    return dataset_of(data.uri), about, reading


def _approval_run(request: ApprovalRequest, site: Site) -> dict[str, str]:
    return {"runId": run_id_of(request.id), "namespace": site.namespace, "job": job_of(request)}


def _decision(request: ApprovalRequest, *, with_reasons: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "votes": [
            {
                "voter": clean(vote.voter),
                "verdict": str(vote.verdict),
                "channel": str(vote.channel),
                "castAt": rfc3339(vote.cast_at),
                "groups": [clean(group) for group in vote.groups],
                "selfApproval": vote.voter in request.requesters,
                **({"reason": clean(vote.reason)} if with_reasons and vote.reason else {}),
            }
            for vote in request.votes
        ]
    }
    if request.granted is not None:
        facts["grant"] = _grant(request.granted)
    return facts | _proof(request)


def _grant(granted: Grant) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": str(granted.kind), "by": [clean(each) for each in granted.by]}
    if granted.standing_id is not None:
        facts["standingRequestId"] = granted.standing_id
    return facts


def _proof(request: ApprovalRequest) -> dict[str, Any]:
    proof: dict[str, Any] = {}
    if request.decision_index is not None:
        proof["ledgerIndex"] = request.decision_index
    if request.receipt is not None:
        proof["receiptDigest"] = payload_sha256(request.receipt)
    return proof


def _place(uri: str) -> dict[str, str]:
    named = dataset_of(uri)
    return {"namespace": named.namespace, "name": named.name}
