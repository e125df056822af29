"""Tasks of kinds that need care, in a real Airflow: what they wait for, leave open, skip, or are not told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, task

from airflow_approvals.core.model import State
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.operators.gated import gated
from airflow_approvals.sensors.approval import ApprovalSensor
from tests.provider.runs import Runs, approve, deny

pytestmark = pytest.mark.airflow

ACTS: list[str] = []


@pytest.fixture(autouse=True)
def no_acts() -> None:
    ACTS.clear()


class BeginsAgain(BaseOperator):
    """Waits for something of its own and then begins again, as Amazon's EMR and Neptune operators do."""

    def execute(self, context: Any, event: Any = None) -> str:
        if event is None:
            ACTS.append("began")
            self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=0)), method_name="execute")
        ACTS.append("went on")
        return "done"


class Note(BaseOperator):
    """Notes that it ran."""

    def execute(self, context: Any) -> None:
        ACTS.append(self.task_id)


def test_an_operator_that_begins_again_after_its_own_wait_is_asked_for_once(runs: Runs) -> None:
    with DAG("begins_again") as dag:
        gated(BeginsAgain(task_id="act"))
    run = runs.test(dag)
    assert run.states == {"act": "success"}
    assert ACTS == ["began", "went on"]
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [State.COMPLETED]


def test_a_command_that_a_function_makes_is_run_once_approved(runs: Runs, tmp_path: Path) -> None:
    made = tmp_path / "made"
    with DAG("bash_function") as dag:

        @gated
        @task.bash
        def act(path: str) -> str:
            return f"echo done > {path}"

        act(str(made))
    run = runs.test(dag)
    assert run.states == {"act": "success"}
    assert made.read_text() == "done\n"


# --- hooks run before anybody is asked: what they make of the task is what is asked for -------------------


def test_a_task_whose_condition_does_not_hold_is_not_asked_for(runs: Runs) -> None:
    with DAG("condition") as dag:

        @gated
        @task.run_if(lambda context: False)
        @task
        def act() -> None:
            ACTS.append("acted")

        act()
    run = runs.test(dag)
    assert run.states == {"act": "skipped"}
    assert not runs.site.requests_of(run.run_id)
    assert not ACTS


class Sends(BaseOperator):
    """Notes where it sends to, which its hook is told in front of each run."""

    template_fields = ("to",)
    told: Iterator[str]

    def __init__(self, *, to: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.to = to

    def pre_execute(self, context: Any) -> None:
        self.to = next(Sends.told)

    def execute(self, context: Any) -> None:
        ACTS.append(self.to)


TOLD: dict[str, tuple[list[str], str, list[str], State]] = {
    "the same again": (["a", "a"], "success", ["a"], State.COMPLETED),
    "another one once it is approved": (["a", "b"], "failed", [], State.APPROVED),
}


@pytest.mark.parametrize(("told", "state", "acts", "ended"), TOLD.values(), ids=TOLD.keys())
def test_what_a_hook_makes_of_a_task_is_what_is_approved(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    state: str,
    acts: list[str],
    ended: State,
) -> None:
    monkeypatch.setattr(Sends, "told", iter(told), raising=False)
    with DAG("hooked") as dag:
        gated(Sends(task_id="act", to="nobody"), show=["to"])
    run = runs.test(dag)
    assert run.states == {"act": state}
    assert acts == ACTS
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is ended
    assert request.action.parameters is not None
    assert request.action.parameters["task"]["shown"] == {"to": "a"}


def test_a_no_skips_everything_downstream_but_teardowns(runs: Runs) -> None:
    with DAG("denied_torn_down") as dag:
        start, end = Note(task_id="start"), Note(task_id="end")
        gate = ApprovalGateOperator(
            task_id="gate", kind="grant", destination="role://reader", on_denied="skip_downstream"
        )
        start >> gate >> Note(task_id="act") >> end.as_teardown(setups=start)
    run = runs.test(dag, deny)
    assert run.states == {"start": "success", "gate": "skipped", "act": "skipped", "end": "success"}
    assert ACTS == ["start", "end"]


# --- what no task upstream has told ---------------------------------------------------------------------


@task
def nothing() -> None: ...


def _export(told: Any, staged: Path) -> Any:
    return ApprovedExportOperator(task_id="act", source=told, destination=str(staged.parent / "outbox/a.csv"))


def _export_of_a_gate(told: Any, staged: Path) -> Any:
    target = str(staged.parent / "outbox" / "a.csv")
    return ApprovedExportOperator(task_id="act", source=str(staged), destination=target, request_id=told)


def _export_with_a_report(told: Any, staged: Path) -> Any:
    target = str(staged.parent / "outbox" / "a.csv")
    return ApprovedExportOperator(task_id="act", source=str(staged), destination=target, pii_report=told)


def _gate(told: Any, staged: Path) -> Any:
    return ApprovalGateOperator(task_id="act", kind="delete", source=told, destination="file:///data/old")


def _gated(told: Any, staged: Path) -> Any:
    return gated(Note(task_id="act"), source=told, destination="sftp://partner/in")


def _gated_destination(told: Any, staged: Path) -> Any:
    return gated(Note(task_id="act"), source=str(staged), destination=told)


def _sensor(told: Any, staged: Path) -> Any:
    return ApprovalSensor(task_id="act", request_id=told, mode="poke", poke_interval=0.2, timeout=2)


def _sensor_of_a_run(told: Any, staged: Path) -> Any:
    return ApprovalSensor(
        task_id="act",
        external_dag_id="other",
        external_task_id="gate",
        external_run_id=told,
        mode="poke",
        poke_interval=0.2,
        timeout=2,
    )


UNTOLD: dict[str, Callable[[Any, Path], Any]] = {
    "the source of an export": _export,
    "the request that an export is to use": _export_of_a_gate,
    "the report about what an export moves": _export_with_a_report,
    "the source of a gate": _gate,
    "the source of a gated task": _gated,
    "the destination of a gated task": _gated_destination,
    "the request that a sensor waits for": _sensor,
    "the run that a sensor waits for": _sensor_of_a_run,
}


@pytest.mark.parametrize("make", UNTOLD.values(), ids=UNTOLD.keys())
def test_what_no_task_upstream_has_told_is_neither_asked_for_nor_taken_for_anything(
    runs: Runs, staged: Path, make: Callable[[Any, Path], Any]
) -> None:
    with DAG("other") as other:  # an approved request that somebody could be taken for
        ApprovalGateOperator(task_id="gate", kind="grant", destination="role://reader")
    runs.test(other, approve)
    with DAG("untold") as dag:
        told: Any = nothing()
        make(told, staged)
    run = runs.test(dag, approve, mark_success_pattern="nothing")
    assert run.states == {"nothing": "success", "act": "failed"}
    assert not runs.site.requests_of(run.run_id)
    assert not ACTS
    assert list((staged.parent / "outbox").iterdir()) == []


def test_words_of_the_operator_in_parameters_from_upstream_are_refused(runs: Runs, staged: Path) -> None:
    with DAG("own_words") as dag:

        @task
        def told() -> dict[str, Any]:
            return {"destination_conn_id": "somewhere_safe"}

        parameters: Any = told()
        target = str(staged.parent / "outbox" / "a.csv")
        ApprovedExportOperator(task_id="act", source=str(staged), destination=target, parameters=parameters)
    run = runs.test(dag)
    assert run.states == {"told": "success", "act": "failed"}
    assert not runs.site.requests_of(run.run_id)


def test_an_export_that_can_never_be_published_is_not_asked_for(runs: Runs, staged: Path) -> None:
    with DAG("never") as dag:
        ApprovedExportOperator(
            task_id="act", source=str(staged), destination=f"file://{staged.parent}/outbox/"
        )
    run = runs.test(dag)
    assert run.states == {"act": "failed"}
    assert not runs.site.requests_of(run.run_id)
