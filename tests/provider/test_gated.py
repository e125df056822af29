"""`gated(...)` around tasks of every kind, in a real Airflow: asked first, run once, and only as approved."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, ObjectStoragePath, task

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.fingerprints import digest_of_value
from airflow_approvals.operators.gated import gated
from tests.provider.runs import Runs, approve, deny
from tests.provider.site import Site

pytestmark = pytest.mark.airflow

ACTS: list[str] = []
FOLDERS = {"to": "outbox"}


@pytest.fixture(autouse=True)
def no_acts() -> None:
    ACTS.clear()


class Act(BaseOperator):
    """Notes what it was told to do, and hands it on."""

    template_fields = ("what",)

    def __init__(self, *, what: str, how: str = "carefully", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what = what
        self.how = how

    def execute(self, context: Any) -> str:
        ACTS.append(self.what)
        return self.what


class DeferringAct(Act):
    """Acts, then waits for something of its own, as stock deferrable operators do."""

    def execute(self, context: Any) -> str:
        ACTS.append(f"began {self.what}")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=0)), method_name="finish")

    def finish(self, context: Any, event: Any = None) -> str:
        ACTS.append(f"finished {self.what}")
        return self.what


class TwiceLooking(BaseSensorOperator):
    """A sensor that is done at its second look."""

    def poke(self, context: Any) -> bool:
        ACTS.append("looked")
        return len(ACTS) > 1


def check_completed(runs: Runs, run_id: str, count: int = 1) -> None:
    states = [request.state for request in runs.site.requests_of(run_id)]
    assert states == [State.COMPLETED] * count


def test_a_gated_operator_acts_once_it_is_approved(runs: Runs) -> None:
    with DAG("gated_operator") as dag:
        gated(Act(task_id="act", what="on {{ run_id }}"), kind="delete", destination="file:///data/old")
    run = runs.test(dag)
    assert run.states == {"act": "success"}
    assert [f"on {run.run_id}"] == ACTS
    (asked,) = runs.asked
    assert (asked.action.kind, asked.action.destination) == ("delete", "file:///data/old")
    assert run.run_id not in str(asked.action.parameters)  # digests, unless `show` says otherwise
    check_completed(runs, run.run_id)


def test_a_denied_gated_operator_does_not_act(runs: Runs) -> None:
    with DAG("gated_denied") as dag:
        gated(Act(task_id="act", what="it", retries=2, retry_delay=timedelta(0)))
    run = runs.test(dag, deny)
    assert run.states == {"act": "failed"}
    assert not ACTS
    assert len(runs.asked) == 1


def test_marking_success_is_not_acting_and_clearing_asks_anew(runs: Runs) -> None:
    with DAG("gated_marked") as dag:
        gated(Act(task_id="act", what="it"))
    run = runs.test(dag, mark_success_pattern="act")
    assert run.states == {"act": "success"}
    assert not ACTS
    assert not runs.asked
    runs.again(run, "act")
    runs.again(run, "act")
    assert ACTS == ["it", "it"]
    assert len(runs.asked) == 2  # every run of the task, once more after its completion, needs its own
    check_completed(runs, run.run_id, 2)


def test_an_argument_that_changes_while_people_think_is_refused(runs: Runs) -> None:
    what = {"to do": "the approved"}

    def change_then_approve(site: Site, request: ApprovalRequest) -> None:
        what["to do"] = "something else"
        approve(site, request)

    with DAG("gated_changed", user_defined_macros={"what": lambda: what["to do"]}) as dag:
        gated(Act(task_id="act", what="{{ what() }}"))
    run = runs.test(dag, change_then_approve)
    assert run.states == {"act": "failed"}
    assert not ACTS
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [State.APPROVED]


def test_an_argument_that_is_no_template_is_bound_too(runs: Runs) -> None:
    with DAG("gated_bound") as dag:
        act = gated(Act(task_id="act", what="it", how="carefully"))

    def change_then_approve(site: Site, request: ApprovalRequest) -> None:
        act.how = "carelessly"
        approve(site, request)

    run = runs.test(dag, change_then_approve)
    assert run.states == {"act": "failed"}
    assert not ACTS


@pytest.mark.parametrize("changed", ["variable", "default", "constant"])
def test_what_a_function_brings_along_is_bound_too(
    runs: Runs, changed: str, capfd: pytest.CaptureFixture[str]
) -> None:
    limit = 10

    def act(most: int = 5) -> None:
        ACTS.append(str([limit, most, FOLDERS]))

    def change_then_approve(site: Site, request: ApprovalRequest) -> None:
        nonlocal limit
        if changed == "variable":
            limit = 10**6
        elif changed == "default":
            act.__defaults__ = (10**6,)
        else:
            FOLDERS["to"] = "everywhere"
        approve(site, request)

    with DAG(f"gated_{changed}") as dag:
        gated(task(act))()
    try:
        run = runs.test(dag, change_then_approve)
    finally:
        FOLDERS["to"] = "outbox"
    assert run.states == {"act": "failed"}
    assert "python_callable differs; a function is its source with its defaults" in capfd.readouterr().out
    assert not ACTS
    assert [request.state for request in runs.site.requests_of(run.run_id)] == [State.APPROVED]


def test_an_object_storage_path_can_be_given_to_a_gated_function(runs: Runs, tmp_path: Path) -> None:
    with DAG("gated_path") as dag:

        @gated
        @task
        def act(place: ObjectStoragePath) -> None:
            place.write_text("approved")

        act(ObjectStoragePath(f"file://{tmp_path}/outbox.txt"))
    run = runs.test(dag)
    assert run.states == {"act": "success"}
    assert (tmp_path / "outbox.txt").read_text() == "approved"
    check_completed(runs, run.run_id)


def test_a_source_that_changes_while_people_think_is_refused(runs: Runs, staged: Path) -> None:
    def change_then_approve(site: Site, request: ApprovalRequest) -> None:
        staged.write_text("id,city\n9,Steyr\n")
        approve(site, request)

    with DAG("gated_source") as dag:
        gated(Act(task_id="act", what="upload"), source=str(staged), destination="sftp://partner/in")
    run = runs.test(dag, change_then_approve)
    assert run.states == {"act": "failed"}
    assert not ACTS
    (asked,) = runs.asked
    assert asked.evidence.datasets[0].rows == 3


def test_a_source_that_stayed_as_it_was_is_what_was_moved(runs: Runs, staged: Path) -> None:
    with DAG("gated_moved") as dag:
        gated(Act(task_id="act", what="upload"), source=str(staged), destination="sftp://partner/in")
    run = runs.test(dag)
    assert ACTS == ["upload"]
    check_completed(runs, run.run_id)


def test_approvers_see_the_fields_that_are_shown(runs: Runs) -> None:
    with DAG("gated_shown") as dag:
        gated(
            BashOperator(task_id="act", bash_command="echo {{ params.word }}", params={"word": "moved"}),
            show=["bash_command"],
            parameters={"ticket": "OPS-7"},
            justification="see {{ dag.dag_id }}",
        )
    run = runs.test(dag)
    assert run.xcom("act") == "moved"
    (asked,) = runs.asked
    assert asked.action.justification == "see gated_shown"
    assert asked.action.parameters is not None
    assert asked.action.parameters["ticket"] == "OPS-7"
    assert asked.action.parameters["task"]["shown"] == {"bash_command": "echo moved"}
    assert asked.action.parameters["task"]["operator"].endswith("bash.BashOperator")


# --- TaskFlow and mapping -----------------------------------------------------------------------------


def test_the_result_of_a_task_function_can_be_gated(runs: Runs) -> None:
    with DAG("gated_result") as dag:

        @task(multiple_outputs=True)
        def act(what: str) -> dict[str, str]:
            ACTS.append(what)
            return {"done": what}

        @task
        def after(done: str) -> str:
            return f"after {done}"

        result: Any = gated(act("this"))
        after(result["done"])
    run = runs.test(dag)
    assert run.states == {"act": "success", "after": "success"}
    assert ACTS == ["this"]
    assert run.xcom("after") == "after this"
    check_completed(runs, run.run_id)


def test_a_task_function_can_be_gated_by_a_decorator(runs: Runs) -> None:
    with DAG("gated_decorator") as dag:

        @task
        def before() -> str:
            return "that"

        @gated(kind="grant", destination="role://{{ ti.xcom_pull('before') }}")
        @task
        def act(what: str) -> str:
            ACTS.append(what)
            return what

        first: Any = before()
        act(first)
    run = runs.test(dag)
    assert run.states == {"before": "success", "act": "success"}
    assert ACTS == ["that"]
    assert runs.asked[0].action.destination == "role://that"
    check_completed(runs, run.run_id)


def test_every_index_of_a_mapped_task_needs_its_own_approval(runs: Runs) -> None:
    def deny_one(site: Site, request: ApprovalRequest) -> None:
        assert request.origin is not None
        (deny if request.origin.map_index == 1 else approve)(site, request)

    with DAG("gated_mapped") as dag:
        gated(Act.partial(task_id="act").expand(what=["a", "b", "c"]))
    run = runs.test(dag, deny_one)
    assert run.states == {"act[0]": "success", "act[1]": "failed", "act[2]": "success"}
    assert sorted(ACTS) == ["a", "c"]


def test_mapped_task_functions_and_partials_can_be_gated(runs: Runs) -> None:
    with DAG("gated_mapped_functions") as dag:

        @task
        def numbers() -> list[int]:
            return [1, 2]

        @gated
        @task
        def act(number: int, word: str) -> str:
            ACTS.append(f"{word}{number}")
            return word

        act.partial(word="n").expand(number=numbers())
        gated(Act.partial(task_id="rows")).expand_kwargs([{"what": "r1"}, {"what": "r2"}])
    run = runs.test(dag)
    assert set(run.states.values()) == {"success"}
    assert sorted(ACTS) == ["n1", "n2", "r1", "r2"]
    check_completed(runs, run.run_id, 4)


# --- operators that do not simply end -----------------------------------------------------------------


def test_an_operator_that_defers_by_itself_goes_on_under_its_approval(runs: Runs) -> None:
    with DAG("gated_deferring") as dag:
        gated(DeferringAct(task_id="act", what="it"))
    run = runs.test(dag)
    assert run.states == {"act": "success"}
    assert ACTS == ["began it", "finished it"]
    assert len(runs.asked) == 1
    check_completed(runs, run.run_id)


def test_resuming_without_a_redeemed_approval_is_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def straight_to_its_end(self: Any, context: Any) -> None:
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=0)), method_name="finish")

    with DAG("gated_resumed") as dag:
        act = gated(DeferringAct(task_id="act", what="it"))
    monkeypatch.setattr(type(act), "execute", straight_to_its_end)
    run = runs.test(dag)
    assert run.states == {"act": "failed"}
    assert not ACTS


def test_a_rescheduled_sensor_is_asked_for_once(runs: Runs) -> None:
    with DAG("gated_sensor") as dag:
        gated(TwiceLooking(task_id="act", mode="reschedule", poke_interval=0.1))
    run = runs.test(dag)
    assert run.states == {"act": "success"}
    assert ACTS == ["looked", "looked"]
    assert len(runs.asked) == 1
    check_completed(runs, run.run_id)


def test_an_operator_that_skips_downstream_has_acted(runs: Runs) -> None:
    with DAG("gated_branch") as dag:
        gated(ShortCircuitOperator(task_id="act", python_callable=_no)) >> Act(task_id="after", what="after")
    run = runs.test(dag)
    assert run.states == {"act": "success", "after": "skipped"}
    check_completed(runs, run.run_id)


def test_a_task_that_skips_itself_is_skipped_and_has_published_nothing(runs: Runs) -> None:
    with DAG("gated_skipping") as dag:
        gated(Act(task_id="act", what="it"))
        gated(BashOperator(task_id="bash", bash_command="exit 99", retries=1, retry_delay=timedelta(0)))

        @gated
        @task
        def function() -> None:
            raise AirflowSkipException("jane.doe@example.com has not asked for it")

        function()
    run = runs.test(dag)
    assert run.states == {"act": "success", "bash": "skipped", "function": "skipped"}
    ended = {
        request.origin.task_id: request for request in runs.site.requests_of(run.run_id) if request.origin
    }
    assert len(runs.asked) == len(ended) == 3
    assert ended["act"].state is State.COMPLETED
    for task_id in ("bash", "function"):
        assert ended[task_id].state is State.FAILED
        outcome = ended[task_id].outcome
        assert outcome is not None
        assert (outcome.published, outcome.detail) == (False, "the task skipped itself")


def test_an_operator_that_fails_is_reported_as_failed_without_its_message(runs: Runs) -> None:
    with DAG("gated_failing") as dag:
        gated(BashOperator(task_id="act", bash_command="echo jane.doe@example.com; exit 3"))
    run = runs.test(dag)
    assert run.states == {"act": "failed"}
    (request,) = runs.site.requests_of(run.run_id)
    assert request.state is State.FAILED
    assert request.outcome is not None
    assert request.outcome.detail == "AirflowException"


def _no() -> bool:
    return False


# --- what stays as it is, and what is refused ---------------------------------------------------------


def test_a_gated_task_looks_as_before_to_airflow() -> None:
    from airflow.serialization import serialized_objects

    names = vars(serialized_objects)
    ways: Any = names.get("DagSerialization") or names["SerializedDAG"]

    def parse(gate: Any) -> dict[str, dict[str, Any]]:
        with DAG("same") as dag:
            first = Act(task_id="first", what="1")
            second = gate(Act(task_id="second", what="{{ ds }}"))
            mapped = gate(Act.partial(task_id="mapped").expand(what=["a"]))
            first >> second >> mapped
        tasks = ways.serialize_dag(dag)["tasks"]
        ways.deserialize_dag(ways.serialize_dag(dag))
        return {each["__var"]["task_id"]: each["__var"] for each in tasks}

    before, after = parse(lambda thing: thing), parse(gated)
    for task_id, plain in before.items():
        for field in ("task_type", "_task_module", "downstream_task_ids", "ui_color", "_is_mapped"):
            assert plain.get(field) == after[task_id].get(field), (task_id, field)
    assert "_link_ApprovalRequestLink" in str(after["second"])
    assert "_link_ApprovalRequestLink" in str(after["mapped"])


def test_a_gate_that_reads_another_task_depends_on_it() -> None:
    with DAG("depends"):
        first = Act(task_id="first", what="1")
        second = gated(Act(task_id="second", what="2"), destination=first.output)
    assert second.upstream_task_ids == {"first"}


def _gated_twice() -> None:
    gated(gated(Act(task_id="act", what="it")))


REFUSED: dict[str, Any] = {
    "twice": _gated_twice,
    "an operator that is never run": lambda: gated(EmptyOperator(task_id="act")),
    "an operator that asks by itself": lambda: gated(
        ApprovedExportOperator(task_id="act", source="/a", destination="/b")
    ),
    "a plain function": lambda: gated(_no),
    "a list of tasks": lambda: gated([Act(task_id="act", what="it")]),
    "a field that is not rendered": lambda: gated(Act(task_id="act", what="it"), show=["how"]),
    "no kind": lambda: gated(Act(task_id="act", what="it"), kind=""),
    "an unknown way to go on": lambda: gated(Act(task_id="act", what="it"), on_denied="ignore"),
    "a parameter named task": lambda: gated(Act(task_id="act", what="it"), parameters={"task": 1}),
    "a connection without a source": lambda: gated(Act(task_id="act", what="it"), source_conn_id="s3"),
    "what is made of another task's result": lambda: gated(Act(task_id="act", what="it").output.map(str)),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_gated_is_refused_when_the_dag_is_parsed(make: Any) -> None:
    with (
        DAG("refused"),
        pytest.raises((ValueError, TypeError), match=r"gated|kind|on_denied|parameters|source"),
    ):
        make()


@pytest.mark.parametrize(
    "value",
    [object(), {1: "a"}, [{"deep": object()}], "\ud800"],
    ids=["object", "number as key", "deep", "surrogate"],
)
def test_an_argument_without_a_digest_is_named(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="argument what"):
        digest_of_value(value, "what")


SAME = {
    "sets in any order": ({"a", "b", "c"}, {"c", "b", "a"}),
    "dicts in any order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "lists and tuples": ([1, 2], (1, 2)),
}
OTHERS: dict[str, tuple[Any, Any]] = {
    "text and number": ("1", 1),
    "large integers": (2**60, 2**60 + 1),
    "bytes": (b"a", b"b"),
    "functions": (_no, _gated_twice),
    "order of a list": ([1, 2], [2, 1]),
    "nothing and empty": (None, ""),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME.keys())
def test_equal_arguments_have_one_digest(one: Any, other: Any) -> None:
    assert digest_of_value(one, "x") == digest_of_value(other, "x")


@pytest.mark.parametrize(("one", "other"), OTHERS.values(), ids=OTHERS.keys())
def test_different_arguments_have_different_digests(one: Any, other: Any) -> None:
    assert digest_of_value(one, "x") != digest_of_value(other, "x")
