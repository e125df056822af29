"""Lineage: what is told of every run is valid, and says whose approval let which bytes out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_approvals.core.model import ApprovalRequest
from airflow_approvals.core.receipt import payload_sha256
from airflow_approvals.lineage.backend import SPOOL
from airflow_approvals.lineage.facets import APPROVAL, RELEASE
from demo.calls import Stage
from demo.places import Places
from demo.promises.board import Promises, Subject
from demo.promises.following import COUNTS, ended
from demo.promises.gate import MARK_SUCCESS
from tests.lineage.spec import SPEC, Spec

VALID, APPROVED = "lineage_events_valid", "approval_in_lineage"

Event = dict[str, Any]


@contextmanager
def surroundings(places: Places) -> Iterator[Mapping[str, str]]:
    """Have Airflow tell its lineage; the backend is a file."""
    backend = {"type": "file", "log_file_path": str(places.root / "lineage.jsonl"), "append": True}
    yield {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": SPOOL, "backend": backend}),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "demo",
    }


def attack(stage: Stage, promises: Promises) -> None:
    """Read what was told of the runs of the gate: one approved, one denied, one marked successful."""
    approved, denied = (ended(stage, run_id) for run_id in ("approved", "denied"))
    job = f"{COUNTS}.export"
    export = stage.wait_for(lambda: _end(stage, job, "approved"), "the lineage of the approved export")
    refused = stage.wait_for(lambda: _end(stage, job, "denied"), "the lineage of the denied export")
    stage.wait_for(lambda: _of_run(stage, approved.id, "COMPLETE"), "the lineage of the approval")
    stage.wait_for(lambda: _of_run(stage, denied.id, "FAIL"), "the lineage of the denial")
    marked = stage.wait_for(lambda: _marked(stage), "the lineage of what was marked successful")
    _check_events(promises, _events(stage))
    wrong = [
        *_wrong_with_export(stage, export, approved),
        *(["a denied export has outputs"] if refused.get("outputs") else []),
        *(["what was marked successful carries an approval"] if APPROVAL in marked["run"]["facets"] else []),
    ]
    facet = export["run"]["facets"].get(APPROVAL, {})
    voters = ", ".join(_voters(facet))
    promises.observe(
        APPROVED,
        not wrong,
        "; ".join(wrong)
        or f"{job} run {export['run']['runId']} was let out by approval {approved.id}: "
        f"{voters}, ledger entry {facet['ledgerIndex']}, receipt {facet['receiptDigest'][:12]}...",
    )


SUBJECT = Subject(promises=(VALID, APPROVED), surroundings=surroundings, attack=attack)


def _check_events(promises: Promises, events: list[Event]) -> None:
    spec = Spec(SPEC if SPEC.is_dir() else None)
    problems = [problem for event in events for problem in spec.problems(event)]
    against = "the OpenLineage specification 2-0-2" if SPEC.is_dir() else "the schemas of this package"
    told = [(event["run"]["runId"], event["eventType"]) for event in events]
    twice = len(told) - len(set(told))
    # An event that is wrong must be found, or nothing was checked.
    broken = {**events[-1], "eventType": "DONE"}
    promises.observe(
        VALID,
        not problems and not twice and bool(spec.problems(broken)),
        "; ".join(problems[:3])
        or f"{len(events)} events of {len(dict(told))} runs against {against}; {twice} told twice",
    )


def _wrong_with_export(stage: Stage, event: Event, request: ApprovalRequest) -> list[str]:
    """Return what the event of an export does not say as it is."""
    published = hashlib.sha256(stage.places.published("approved").read_bytes()).hexdigest()
    facet = event["run"]["facets"].get(APPROVAL, {})
    outputs = event.get("outputs") or [{}]
    release = outputs[0].get("facets", {}).get(RELEASE, {})
    with stage.client("alice") as client:
        bundle = client.get_request(request.id).receipt
    receipt = payload_sha256(bundle["envelope"]) if bundle else "no receipt"
    expected = {
        "request": (facet.get("requestId"), request.id),
        "voters": (_voters(facet), [str(vote.voter) for vote in request.votes]),
        "ledger entry": (facet.get("ledgerIndex"), request.decision_index),
        "receipt": (facet.get("receiptDigest"), receipt),
        "policy": (facet.get("policy", {}).get("digest"), request.policy_digest),
        "released bytes": (release.get("sha256"), published),
        "receipt among the inputs": (
            f"receipt/{request.id}" in [each["name"] for each in event.get("inputs") or []],
            True,
        ),
    }
    differing = {what: told for what, told in expected.items() if told[0] != told[1]}
    return [f"{what}: {found} is told, it is {real}" for what, (found, real) in differing.items()]


def _voters(facet: Mapping[str, Any]) -> list[str]:
    return [vote["voter"] for vote in facet.get("votes", [])]


def _events(stage: Stage) -> list[Event]:
    file = stage.places.root / "lineage.jsonl"
    # The last line may be half written.
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _end(stage: Stage, job: str, run_id: str) -> Event | None:
    """Return the last event of a task in a DAG run."""
    for event in _events(stage):
        airflow = event["run"].get("facets", {}).get("airflow", {})
        is_it = event["job"]["name"] == job and airflow.get("dagRun", {}).get("run_id") == run_id
        if is_it and event["eventType"] in ("COMPLETE", "FAIL"):
            return event
    return None


def _of_run(stage: Stage, run_id: str, kind: str) -> Event | None:
    for event in _events(stage):
        if (event["run"]["runId"], event["eventType"]) == (run_id, kind):
            return event
    return None


def _marked(stage: Stage) -> Event | None:
    for event in _events(stage):
        if event["job"]["name"].startswith(f"{MARK_SUCCESS}.") and event["eventType"] == "COMPLETE":
            return event
    return None
