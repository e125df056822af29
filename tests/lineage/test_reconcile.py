"""Lineage against the ledger: what moved into a gated place was approved as exactly that, or is named."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_approvals.cli.reconciling import utc_of
from airflow_approvals.lineage.movements import BareEnd, Movement, movements
from airflow_approvals.lineage.names import DatasetName, dataset_of
from airflow_approvals.lineage.reconcile import Approval, Fault, reconcile, uri_of

OUTBOX = "file:///data/outbox/customers.parquet"
GLOBS = ["file:///data/outbox/**", "s3://partner-*/**"]
SHA, OTHER = "a" * 64, "b" * 64


def approval(**changes: Any) -> Approval:
    facts: dict[str, Any] = {
        "id": "r1",
        "state": "completed",
        "job": "customer_export.export",
        "destination": OUTBOX,
        "digests": (SHA,),
        "published_digest": SHA,
        "was_approved": True,
        "in_period": True,
    }
    return Approval(**facts | changes)


def moved(to: str | DatasetName = OUTBOX, **changes: Any) -> Movement:
    facts: dict[str, Any] = {
        "dataset": dataset_of(to) if isinstance(to, str) else to,
        "run_id": "run-1",
        "job": "airflow/customer_export.export",
        "at": "2026-11-22T01:00:00Z",
        "request_id": "r1",
        "sha256": SHA,
    }
    return Movement(**facts | changes)


def faults(
    moves: list[Movement | BareEnd], approvals: list[Approval], globs: list[str] = GLOBS
) -> list[Fault]:
    return [each.fault for each in reconcile(moves, {one.id: one for one in approvals}, globs).findings]


def test_what_an_approval_of_exactly_that_let_out_is_covered() -> None:
    found = reconcile([moved()], {"r1": approval()}, GLOBS)
    assert (found.movements, found.gated, found.covered, found.findings) == (1, 1, 1, ())


def test_what_moves_elsewhere_needs_no_approval() -> None:
    found = reconcile([moved("file:///data/staged/a.parquet", request_id=None)], {}, GLOBS)
    assert (found.movements, found.gated, found.findings) == (1, 0, ())


UNCOVERED = {
    "names no approval": (moved(request_id=None, sha256=None), approval(), Fault.UNCOVERED),
    "by another tool, to a bucket of the policy": (
        moved("s3://partner-acme/x.csv", request_id=None),
        approval(),
        Fault.UNCOVERED,
    ),
    "to a name that can be read in two ways": (
        moved("s3://partner-acme/..%2fx.csv", request_id=None),
        approval(),
        Fault.UNCOVERED,
    ),
    "names an approval that nobody gave": (moved(request_id="r9"), approval(), Fault.UNKNOWN),
    "was denied": (moved(), approval(state="denied", was_approved=False), Fault.NOT_APPROVED),
    "still waits": (moved(), approval(state="pending", was_approved=False), Fault.NOT_APPROVED),
    "was revoked before its use": (moved(), approval(state="revoked"), Fault.NOT_APPROVED),
    "was approved and never redeemed": (moved(), approval(state="approved"), Fault.NOT_APPROVED),
    "was approved for another place": (moved("file:///data/outbox/b.parquet"), approval(), Fault.ELSEWHERE),
    "an ungated place, by an approval for a gated one": (
        moved("file:///data/staged/b.parquet"),
        approval(),
        Fault.ELSEWHERE,
    ),
    "wrote other bytes": (moved(sha256=OTHER), approval(), Fault.DIGEST),
    "reported other bytes": (moved(sha256=None), approval(published_digest=OTHER), Fault.DIGEST),
}


@pytest.mark.parametrize(("movement", "known", "fault"), UNCOVERED.values(), ids=UNCOVERED.keys())
def test_a_movement_that_no_approval_covers_is_named(
    movement: Movement, known: Approval, fault: Fault
) -> None:
    found = reconcile([movement], {known.id: known}, GLOBS)
    assert fault in [each.fault for each in found.broken]
    assert found.covered == 0
    assert uri_of(movement.dataset) in found.broken[0].told


def test_an_approval_is_for_one_run() -> None:
    again = moved(run_id="run-2")
    assert faults([moved(), moved(), again], [approval()]) == [Fault.TWICE]


def test_a_place_that_an_approval_was_ever_for_is_gated_without_any_policy() -> None:
    assert faults([moved(request_id=None)], [approval()], []) == [Fault.UNCOVERED, Fault.UNSEEN]
    assert faults([moved(request_id=None)], [], []) == []


@pytest.mark.parametrize("state", ["approved", "lapsed", "revoked"])
def test_an_approval_that_was_never_used_is_a_notice(state: str) -> None:
    unused = approval(state=state, published_digest=None)
    found = reconcile([], {"r1": unused}, GLOBS)
    assert [each.fault for each in found.findings] == [Fault.UNUSED]
    assert found.broken == ()


def test_a_write_that_lineage_does_not_show_is_a_notice() -> None:
    assert faults([], [approval()]) == [Fault.UNSEEN]
    assert faults([], [approval(in_period=False)]) == []


@pytest.mark.parametrize(
    ("job", "expected"),
    [("airflow/customer_export.export", [Fault.AROUND]), ("airflow/customer_export.stage", [])],
)
def test_a_task_that_asks_in_other_runs_and_was_marked_successful_is_a_notice(
    job: str, expected: list[Fault]
) -> None:
    marked = BareEnd(run_id="run-2", job=job, at="2026-11-22T01:00:00Z")
    found = reconcile([moved(), marked], {"r1": approval()}, GLOBS)
    assert [each.fault for each in found.findings] == expected
    assert found.broken == ()
    assert (found.movements, found.covered) == (1, 1)


@pytest.mark.parametrize(("table", "expected"), [("customers", []), ("orders", [Fault.ELSEWHERE])])
def test_a_table_is_known_by_its_database_and_by_its_connection(table: str, expected: list[Fault]) -> None:
    known = approval(destination="sql://crm/public.customers")
    written = DatasetName(namespace="postgres://db:5432", name=f"crm.public.{table}")
    assert faults([moved(written)], [known]) == expected


def event(kind: str = "COMPLETE", job: str = "dag.task", **parts: Any) -> dict[str, Any]:
    return {
        "eventType": kind,
        "eventTime": "2026-11-22T01:00:00Z",
        "run": {"runId": "run-1"},
        "job": {"namespace": "airflow", "name": job},
        "outputs": [{"namespace": "file", "name": "/data/outbox/x"}],
        **parts,
    }


def test_only_what_ended_well_has_moved_and_each_run_moves_a_dataset_once() -> None:
    events = [
        event("START"),
        event("FAIL"),
        event(job="approval.dag.task"),
        event(),
        event(),
    ]
    (found,) = movements(events)
    assert isinstance(found, Movement)
    assert found.job == "airflow/dag.task"


def test_what_ended_well_and_tells_neither_outputs_nor_an_approval_is_bare() -> None:
    approved = {"runId": "run-2", "facets": {"airflowApprovals_approval": {"requestId": "r1"}}}
    events = [event(outputs=[]), event(outputs=None), event(outputs=[], run=approved)]
    assert [(type(each), each.run_id) for each in movements(events)] == [(BareEnd, "run-1")]


def test_a_movement_names_the_approval_of_its_dataset_before_that_of_its_run() -> None:
    run = {"runId": "run-1", "facets": {"airflowApprovals_approval": {"requestId": "of the run"}}}
    release = {"airflowApprovals_release": {"requestId": "of the data", "sha256": SHA}}
    outputs = [
        {"namespace": "file", "name": "/a", "facets": release},
        {"namespace": "file", "name": "/b"},
    ]
    found = [each for each in movements([event(run=run, outputs=outputs)]) if isinstance(each, Movement)]
    assert [(each.request_id, each.sha256) for each in found] == [("of the data", SHA), ("of the run", None)]


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("2026-03-01T12:00:00+02:00", "2026-03-01 10:00:00 UTC"),
        ("2026-03-01T12:00:00.123Z", "2026-03-01 12:00:00 UTC"),
        ("2026-03-01T12:00:00", "2026-03-01T12:00:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_the_time_of_a_movement_is_told_in_one_zone_or_as_it_stands(at: str, told: str) -> None:
    assert utc_of(at) == told
