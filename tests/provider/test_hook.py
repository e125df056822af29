"""Custom tasks ask and redeem through the hook."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DagRunTriggerException
from airflow.sdk import DAG, task

from airflow_approvals.core.model import Action, Evidence, State
from airflow_approvals.hooks.approvals import ApprovalsHook
from airflow_approvals.operators.gate import ApprovalGateOperator
from tests.provider.runs import Runs

pytestmark = pytest.mark.airflow

ROTATE: dict[str, Any] = {"kind": "rotate_key", "destination": "vault://billing"}
GRANT: dict[str, Any] = {"kind": "grant", "destination": "role://reader"}


def grant_dag(name: str, act: Any) -> DAG:
    with DAG(name) as dag:
        gate = ApprovalGateOperator(task_id="gate", **GRANT)

        @task
        def use(request_id: str) -> str:
            with (
                ApprovalsHook() as hook,
                hook.redeemed(request_id, action=Action(**GRANT)) as used,
            ):
                act()
                return used.receipt.request_id

        use(gate.output)  # type: ignore[arg-type]  # Airflow hands over its result
    return dag


def test_a_task_of_ones_own_redeems_what_a_gate_got_approved(runs: Runs) -> None:
    run = runs.test(grant_dag("hook_used", lambda: None))
    assert run.states == {"gate": "success", "use": "success"}
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.COMPLETED
    assert run.xcom("use") == request.id


def test_a_block_that_raises_is_reported_as_failed(runs: Runs) -> None:
    def fail() -> None:
        raise RuntimeError("jane.doe@example.com is not there")

    run = runs.test(grant_dag("hook_failed", fail))
    assert run.states == {"gate": "success", "use": "failed"}
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.FAILED
    assert request.outcome is not None
    assert request.outcome.detail == "RuntimeError"


def test_another_action_than_approved_is_refused_and_recorded(runs: Runs) -> None:
    with DAG("hook_other") as dag:
        gate = ApprovalGateOperator(task_id="gate", **GRANT)

        @task
        def use(request_id: str) -> None:
            with ApprovalsHook() as hook:
                hook.redeem(request_id, action=Action(kind="grant", destination="role://admin"))

        use(gate.output)  # type: ignore[arg-type]  # Airflow hands over its result
    run = runs.test(dag)
    assert run.states == {"gate": "success", "use": "failed"}
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.APPROVED
    with runs.site.person("admin") as admin:
        kinds = [
            entry["kind"] for entry in admin.events(after=-1).entries if entry["request_id"] == request.id
        ]
    assert "attempt.refused" in kinds


def test_an_action_that_no_policy_covers_is_refused_at_once(runs: Runs) -> None:
    with DAG("hook_uncovered") as dag:

        @task
        def ask() -> None:
            with ApprovalsHook() as hook:
                hook.open_request(Action(**ROTATE), Evidence())

        ask()
    run = runs.test(dag)
    assert run.states == {"ask": "failed"}
    assert not runs.site.requests_of(run.run_id)


class Noting(ApprovalsHook):
    """Notes what is reported instead of telling a service."""

    def __init__(self) -> None:
        super().__init__(ti_id="ti")
        self.told: list[bool] = []

    def report_outcome(self, request_id: str, *, published: bool, **_: Any) -> Any:
        self.told.append(published)


TRIGGERED: dict[str, tuple[dict[str, bool], list[bool]]] = {
    "and not waited for": ({"wait_for_completion": False, "deferrable": True}, [True]),
    "and waited for by the worker": ({"wait_for_completion": True, "deferrable": False}, [True]),
    # Airflow resumes the task when that run is over: it must still hold its approval then.
    "and waited for in the triggerer": ({"wait_for_completion": True, "deferrable": True}, []),
}


@pytest.mark.parametrize(("way", "told"), TRIGGERED.values(), ids=TRIGGERED.keys())
def test_a_task_that_starts_another_run_has_acted_once_it_is_through(
    way: dict[str, bool], told: list[bool]
) -> None:
    hook = Noting()
    start: Any = DagRunTriggerException
    others = {"trigger_dag_id": "other", "dag_run_id": "r", "conf": None, "poke_interval": 1}
    with pytest.raises(DagRunTriggerException), hook.reporting("request"):
        raise start(
            **others,
            **way,
            logical_date=None,
            reset_dag_run=False,
            skip_when_already_exists=False,
            allowed_states=["success"],
            failed_states=["failed"],
        )
    assert hook.told == told
