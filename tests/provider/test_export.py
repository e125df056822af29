"""The export in a real Airflow: exactly the approved bytes appear, or nothing does."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.sdk import DAG, BaseOperator

from airflow_approvals.core.errors import ServiceUnavailableError
from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.hooks.approvals import ApprovalsHook, Redeemed
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.triggers.approval import ApprovalTrigger
from tests.provider.runs import Runs, approve, deny
from tests.provider.site import POLICY, Site

pytestmark = pytest.mark.airflow

OTHER = "id,city\n1,Graz\n2,Linz\n4,Enns\n"


class Note(BaseOperator):
    """Notes that it ran."""

    def __init__(self, *, ran: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ran = ran

    def execute(self, context: Any) -> None:
        self.ran.append(self.task_id)


def export_dag(name: str, staged: Path, **kwargs: Any) -> tuple[DAG, Path]:
    target = staged.parent / "outbox" / "customers.csv"
    with DAG(name) as dag:
        ApprovedExportOperator(
            task_id="publish",
            **{"source": str(staged), "destination": str(target), "justification": "monthly", **kwargs},
        )
    return dag, target


def test_an_approved_export_publishes_exactly_the_approved_bytes(runs: Runs, staged: Path) -> None:
    dag, target = export_dag("approved", staged)
    run = runs.test(dag)
    assert run.states == {"publish": "success"}
    assert target.read_bytes() == staged.read_bytes()
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.COMPLETED
    assert request.outcome is not None
    assert request.outcome.digest == request.evidence.datasets[0].sha256
    assert run.xcom("publish")["sha256"] == request.outcome.digest
    assert run.xcom("publish", "_link_ApprovalRequestLink") == (
        f"{runs.site.base_url}/approvals/requests/{request.id}"
    )


def test_a_denied_export_fails_and_is_not_asked_for_again(runs: Runs, staged: Path) -> None:
    dag, target = export_dag("denied", staged, retries=3, retry_delay=timedelta(0))
    run = runs.test(dag, deny)
    assert run.states == {"publish": "failed"}
    assert not target.exists()
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [State.DENIED]


def test_a_denied_export_can_skip_everything_downstream(runs: Runs, staged: Path) -> None:
    ran: list[str] = []
    target = staged.parent / "outbox" / "customers.csv"
    with DAG("denied_skips") as dag:
        publish = ApprovedExportOperator(
            task_id="publish", source=str(staged), destination=str(target), on_denied="skip_downstream"
        )
        near = Note(task_id="near", ran=ran)
        far = Note(task_id="far", ran=ran, trigger_rule="all_done")
        again = ApprovedExportOperator(
            task_id="again",
            source=str(staged),
            destination=str(target),
            request_id="{{ ti.xcom_pull('publish', key='approval_request_id') }}",
            trigger_rule="all_done",
        )
        publish >> near >> far >> again
    run = runs.test(dag, deny)
    assert run.states == dict.fromkeys(("publish", "near", "far", "again"), "skipped")
    assert not ran
    assert not target.exists()
    # Even a downstream write that somebody runs all the same has nothing to redeem.
    runs.again(run, "again")
    assert run.states["again"] == "failed"
    assert not target.exists()


# --- the bytes -----------------------------------------------------------------------------------------


def _rewrite(staged: Path) -> None:
    staged.write_text(OTHER)


def _rename(staged: Path) -> None:
    other = staged.with_suffix(".new")
    other.write_text(OTHER)
    other.replace(staged)


def _link(staged: Path) -> None:
    other = staged.with_suffix(".elsewhere")
    other.write_text(OTHER)
    staged.unlink()
    staged.symlink_to(other)


def _append(staged: Path) -> None:
    with staged.open("a") as file:
        file.write("4,Enns\n")


SWAPS: dict[str, Callable[[Path], None]] = {
    "rewritten": _rewrite,
    "renamed over": _rename,
    "replaced by a link": _link,
    "appended to": _append,
}


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS.keys())
def test_other_bytes_than_approved_never_appear(
    runs: Runs, staged: Path, swap: Callable[[Path], None]
) -> None:
    def change_then_approve(site: Site, request: ApprovalRequest) -> None:
        swap(staged)
        approve(site, request)

    dag, target = export_dag("changed", staged)
    run = runs.test(dag, change_then_approve)
    assert run.states == {"publish": "failed"}
    assert list(target.parent.iterdir()) == []
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.FAILED
    assert request.outcome is not None
    assert request.evidence.datasets[0].sha256 in request.outcome.detail


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS.keys())
def test_bytes_swapped_between_redeem_and_copy_never_appear(
    runs: Runs, staged: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], None]
) -> None:
    redeem = ApprovalsHook.redeem

    def redeem_then_swap(hook: ApprovalsHook, request_id: str, **kwargs: Any) -> Redeemed:
        used = redeem(hook, request_id, **kwargs)
        swap(staged)
        return used

    monkeypatch.setattr(ApprovalsHook, "redeem", redeem_then_swap)
    dag, target = export_dag("swapped", staged)
    run = runs.test(dag)
    assert run.states == {"publish": "failed"}
    assert list(target.parent.iterdir()) == []
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [State.FAILED]


@pytest.mark.parametrize("appeared", [True, False], ids=["after it appeared", "before"])
def test_a_task_that_is_ended_in_the_middle_reports_what_stands(
    runs: Runs, staged: Path, monkeypatch: pytest.MonkeyPatch, appeared: bool
) -> None:
    act = ApprovedExportOperator.act

    def act_and_end(operator: ApprovedExportOperator, context: Any, used: Redeemed) -> dict[str, Any]:
        if appeared:
            act(operator, context, used)
        raise AirflowTaskTimeout

    monkeypatch.setattr(ApprovedExportOperator, "act", act_and_end)
    dag, target = export_dag("ended", staged)
    run = runs.test(dag)
    assert run.states == {"publish": "failed"}
    assert target.exists() is appeared
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is (State.COMPLETED if appeared else State.FAILED)
    assert request.outcome is not None
    assert (request.outcome.digest == request.evidence.datasets[0].sha256) is appeared


# --- what was approved ---------------------------------------------------------------------------------


def test_a_destination_that_changed_since_the_approval_is_refused(runs: Runs, staged: Path) -> None:
    target = staged.parent / "outbox" / "customers.csv"
    other = staged.parent / "outbox" / "elsewhere.csv"
    where = {"to": target}

    def move_then_approve(site: Site, request: ApprovalRequest) -> None:
        where["to"] = other
        approve(site, request)

    with DAG("redirected", user_defined_macros={"where": lambda: where["to"]}) as dag:
        ApprovedExportOperator(task_id="publish", source=str(staged), destination="{{ where() }}")
    run = runs.test(dag, move_then_approve)
    assert run.states == {"publish": "failed"}
    assert list(target.parent.iterdir()) == []
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.APPROVED  # never redeemed


def test_an_approval_that_is_revoked_before_the_write_is_worth_nothing(
    runs: Runs, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def approve_and_revoke(site: Site, request: ApprovalRequest) -> None:
        approve(site, request)
        with site.person("alice") as alice:
            alice.revoke(request.id, reason="wrong month")

    monkeypatch.setattr(ApprovalTrigger, "hold_back", 3.0)
    dag, target = export_dag("revoked", staged)
    run = runs.test(dag, approve_and_revoke)
    assert run.states == {"publish": "failed"}
    assert not target.exists()


def test_an_approval_under_another_policy_is_worth_nothing(
    runs: Runs, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def approve_and_change_policy(site: Site, request: ApprovalRequest) -> None:
        approve(site, request)
        site.put_policy(POLICY.replace("[{group: data-stewards}]", "[{group: data-stewards, approvals: 2}]"))

    monkeypatch.setattr(ApprovalTrigger, "hold_back", 3.0)
    dag, target = export_dag("policy_changed", staged)
    run = runs.test(dag, approve_and_change_policy)
    assert run.states == {"publish": "failed"}
    assert not target.exists()
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [State.REVOKED]


def test_a_policy_that_is_not_the_asserted_one_is_refused(runs: Runs, staged: Path) -> None:
    dag, target = export_dag("asserted", staged, policy="table-write", retries=2)
    run = runs.test(dag)
    assert run.states == {"publish": "failed"}
    assert not runs.site.requests_of(run.run_id)
    assert not target.exists()


def test_a_receipt_that_does_not_verify_stops_the_write(
    runs: Runs, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_approvals.client.api import ApprovalsClient

    monkeypatch.setattr(ApprovalsClient, "keys", lambda _: {"keys": []})
    dag, target = export_dag("unverified", staged)
    run = runs.test(dag)
    assert run.states == {"publish": "failed"}
    assert not target.exists()


# --- before anybody is asked ---------------------------------------------------------------------------


def _missing(staged: Path) -> None:
    staged.unlink()


def _empty(staged: Path) -> None:
    staged.write_text("id,city\n")


BAD_SOURCES: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "missing": (_missing, {}),
    "empty": (_empty, {}),
    "other columns than declared": (lambda _: None, {"columns": {"id": "string", "town": "string"}}),
    "not the format it claims": (lambda _: None, {"format": "parquet"}),
}


@pytest.mark.parametrize("case", BAD_SOURCES.values(), ids=BAD_SOURCES.keys())
def test_a_source_that_cannot_be_used_fails_before_anybody_is_asked(
    runs: Runs, staged: Path, case: tuple[Callable[[Path], None], dict[str, Any]]
) -> None:
    spoil, arguments = case
    spoil(staged)
    dag, _ = export_dag("bad_source", staged, **arguments)
    run = runs.test(dag)
    assert run.states == {"publish": "failed"}
    assert not runs.site.requests_of(run.run_id)


# --- tries ---------------------------------------------------------------------------------------------


def test_a_retry_of_the_same_content_needs_no_second_prompt(
    runs: Runs, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redeem = ApprovalsHook.redeem
    tries: list[str] = []

    def away_at_first(hook: ApprovalsHook, request_id: str, **kwargs: Any) -> Redeemed:
        tries.append(hook.ti_id)
        if len(tries) == 1:
            raise ServiceUnavailableError("the API server is away; nothing was decided")
        return redeem(hook, request_id, **kwargs)

    monkeypatch.setattr(ApprovalsHook, "redeem", away_at_first)
    dag, target = export_dag("retried", staged, retries=1, retry_delay=timedelta(0))
    run = runs.test(dag)
    assert run.states == {"publish": "success"}
    assert len(set(tries)) == 2
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [State.COMPLETED]
    assert target.exists()


def test_a_lost_worker_is_not_published_after(
    runs: Runs, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try publishes and is gone before it reports; the second finds the file, and reports it."""
    report = ApprovalsHook.report_outcome
    reports: list[str] = []

    def lost_at_first(hook: ApprovalsHook, request_id: str, **kwargs: Any) -> ApprovalRequest:
        reports.append(hook.ti_id)
        if len(reports) == 1:
            raise ServiceUnavailableError("the worker is gone")
        return report(hook, request_id, **kwargs)

    monkeypatch.setattr(ApprovalsHook, "report_outcome", lost_at_first)
    dag, target = export_dag("lost", staged, retries=1, retry_delay=timedelta(0))
    run = runs.test(dag)
    assert run.states == {"publish": "success"}
    assert len(set(reports)) == 2
    (request,) = runs.site.requests_of(run.run_id)  # nobody was asked twice
    assert request.state is State.COMPLETED
    assert target.read_bytes() == staged.read_bytes()


def test_a_cleared_export_needs_a_new_approval(runs: Runs, staged: Path) -> None:
    dag, target = export_dag("cleared", staged, overwrite=True)
    run = runs.test(dag)
    target.unlink()
    runs.again(run, "publish", answer=deny)
    assert run.states == {"publish": "failed"}
    assert not target.exists()
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [
        State.DENIED,
        State.COMPLETED,
    ]


# --- a gate of its own ---------------------------------------------------------------------------------


def gate_dag(name: str, staged: Path, **gate: Any) -> tuple[DAG, Path]:
    target = staged.parent / "outbox" / "customers.csv"
    named: dict[str, Any] = {"source": str(staged), "destination": str(target)}
    with DAG(name) as dag:
        ApprovalGateOperator(task_id="gate", kind="export", **{**named, **gate}) >> ApprovedExportOperator(
            task_id="publish", request_id="{{ ti.xcom_pull('gate') }}", **named
        )
    return dag, target


def test_an_export_uses_what_a_gate_upstream_got_approved(runs: Runs, staged: Path) -> None:
    dag, target = gate_dag("gate_then_export", staged)
    run = runs.test(dag)
    assert run.states == {"gate": "success", "publish": "success"}
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.COMPLETED
    assert target.exists()
    # Its receipt is used up: the export alone cannot be run again.
    target.unlink()
    runs.again(run, "publish")
    assert run.states["publish"] == "failed"
    assert not target.exists()


def test_marking_the_gate_successful_gains_nothing(runs: Runs, staged: Path) -> None:
    dag, target = gate_dag("gate_marked", staged)
    run = runs.test(dag, mark_success_pattern="gate")
    assert run.states == {"gate": "success", "publish": "failed"}
    assert not target.exists()


def test_skipping_the_gate_gains_nothing(runs: Runs, staged: Path) -> None:
    dag, target = gate_dag("gate_skipped", staged)
    dag.get_task("publish").trigger_rule = "all_done"
    run = runs.test(dag, deny)
    run.set_state("gate", "skipped")
    runs.again(run, "publish")
    assert run.states["publish"] == "failed"
    assert not target.exists()


WRONG_GATES: dict[str, dict[str, Any]] = {
    "another destination": {"destination": "/tmp/outbox/other.csv"},  # noqa: S108  # never written
    "no data": {"source": None},
    "other parameters": {"parameters": {"overwrite": True}},
}


@pytest.mark.parametrize("gate", WRONG_GATES.values(), ids=WRONG_GATES.keys())
def test_a_gate_for_something_else_gains_nothing(runs: Runs, staged: Path, gate: dict[str, Any]) -> None:
    dag, target = gate_dag("gate_wrong", staged, **gate)
    run = runs.test(dag)
    assert run.states == {"gate": "success", "publish": "failed"}
    assert not target.exists()
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [State.APPROVED]


def test_an_approval_of_another_run_gains_nothing(runs: Runs, staged: Path) -> None:
    dag, target = gate_dag("other_run_gate", staged)
    first = runs.test(dag, mark_success_pattern="publish")
    with DAG("other_run") as other:
        ApprovedExportOperator(
            task_id="publish",
            source=str(staged),
            destination=str(target),
            request_id=first.xcom("gate"),
        )
    run = runs.test(other)
    assert run.states == {"publish": "failed"}
    assert not target.exists()


# --- time ----------------------------------------------------------------------------------------------


def test_a_decision_on_a_young_defer_is_held_back(
    runs: Runs, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ApprovalTrigger, "hold_back", 3.0)
    dag, _ = export_dag("held_back", staged)
    began = time.monotonic()
    assert runs.test(dag).states == {"publish": "success"}
    assert time.monotonic() - began >= 3.0
