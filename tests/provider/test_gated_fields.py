"""What a gate asks with and what its task does, as Airflow parses and renders them: no server is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import DAG, BaseOperator, task

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.operators.fingerprints import describe_task
from airflow_approvals.operators.gated import gated
from airflow_approvals.operators.rendered import check_rendered

pytestmark = pytest.mark.airflow


class Load(BaseOperator):
    """Takes statements, or files of them, as the SQL operators do."""

    template_fields = ("statement",)
    template_ext = (".sql", ".json")

    def __init__(self, *, statement: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.statement = statement

    def execute(self, context: Any) -> None: ...


def test_a_uri_that_ends_like_a_template_file_of_the_operator_is_rendered_as_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with DAG("endings"):
        load: Any = gated(
            Load(task_id="load", statement="SELECT {{ params.n }}", params={"n": 1}),
            source="/staged/{{ params.day }}.json",
            destination="sftp://partner/in.json",
            parameters={"ticket": "t.sql"},
        )
        mapped = gated(Load.partial(task_id="mapped").expand(statement=["x"]), source="/staged/a.json")
    with caplog.at_level(logging.ERROR):
        load.resolve_template_files()
    assert not caplog.records
    load.render_template_fields({"params": {"n": 1, "day": "monday"}})
    assert (load.approvals_source, load.approvals_destination) == (
        "/staged/monday.json",
        "sftp://partner/in.json",
    )
    assert load.approvals_parameters == {"ticket": "t.sql"}
    assert load.statement == "SELECT 1"
    assert (load.template_ext, mapped.template_ext) == ((".sql", ".json"), (".sql", ".json"))
    assert "approvals_source" in load.template_fields


def test_the_operators_own_template_files_are_read_as_before(tmp_path: Any) -> None:
    (tmp_path / "load.sql").write_text("SELECT {{ params.n }}")
    with DAG("files", template_searchpath=str(tmp_path)):
        load: Any = gated(Load(task_id="load", statement="load.sql"), source="/staged/load.sql")
        late = gated(Load(task_id="late", statement="{{ '' }}load.sql"))
    load.resolve_template_files()
    load.render_template_fields({"params": {"n": 1}})
    assert (load.statement, load.approvals_source) == ("SELECT 1", "/staged/load.sql")
    late.statement = "load.sql"
    late.render_template_fields({"params": {"n": 2}})
    assert late.statement == "SELECT 2"


def _partial(first: Any) -> Any:
    return gated(Load.partial(task_id="second"), destination=first.output).expand(statement=["a"])


def _partial_kwargs(first: Any) -> Any:
    return gated(Load.partial(task_id="second"), source=first.output).expand_kwargs([{"statement": "a"}])


def _mapped(first: Any) -> Any:
    return gated(Load.partial(task_id="second").expand(statement=["a"]), destination=first.output)


def _function(first: Any) -> Any:
    @gated(destination=first.output)
    @task
    def second(number: int) -> None: ...

    return second


WAYS: dict[str, Callable[[Any], Any]] = {
    "a mapped operator": _mapped,
    "a partial one": _partial,
    "a partial one, by keywords": _partial_kwargs,
    "a function": lambda first: _function(first)(1).operator,
    "a mapped function": lambda first: _function(first).expand(number=[1]).operator,
    "a function with other arguments": lambda first: (
        _function(first).override(task_id="other").partial().expand(number=[1]).operator
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_task_runs_after_what_its_gate_reads_however_it_is_made(way: Callable[[Any], Any]) -> None:
    with DAG("depends"):
        assert way(Load(task_id="first", statement="1")).upstream_task_ids == {"first"}


@pytest.mark.parametrize("way", ["partial", "mapped"])
def test_a_mapped_task_that_could_start_in_the_triggerer_starts_with_its_gate(way: str) -> None:
    with DAG("starts"):
        task_of_files = FileSensor.partial(task_id="wait", deferrable=True, start_from_trigger=True)
        if way == "partial":
            mapped: Any = gated(task_of_files).expand(filepath=["a"])
        else:
            mapped = gated(task_of_files.expand(filepath=["a"]))
    assert mapped.start_from_trigger is False


def _bash() -> Any:
    @gated
    @task.bash
    def act() -> str:
        return "echo 1"

    made: Any = act()
    return made.operator


def _trigger() -> Any:
    return gated(TriggerDagRunOperator(task_id="act", trigger_dag_id="other"))


@pytest.mark.parametrize("make", [_bash, _trigger], ids=["set while it runs", "left out"])
def test_an_argument_that_airflow_leaves_open_has_a_digest(make: Callable[[], Any]) -> None:
    with DAG("open"):
        act = make()
    one, other = (describe_task(act, fields=type(act).approvals_terms.own_fields, show=()) for _ in "12")
    assert one == other


@pytest.mark.parametrize("word", ["show", "connections", "variables"])
def test_one_text_is_no_list_of_names(word: str) -> None:
    given: dict[str, Any] = {word: "prod_db"}
    with DAG("names"), pytest.raises(TypeError, match=f"{word}: expected a list of names"):
        gated(Load(task_id="act", statement="x"), **given)


EMPTY = [None, "", "None", " None "]
OF_ANOTHER_KIND: dict[str, tuple[str, Any, str]] = {
    "a number": ("justification", 2026, "expected text, found a int"),
    "several": ("request_id", ["a", "b"], "expected text, found a list"),
    "a path object": ("source", DAG, "expected text"),
    "one address": ("links", "https://wiki", "expected a list of addresses, found a str"),
    "no dict": ("parameters", [1], "expected a dict"),
    "a list of reports": ("pii_report", [{}], "expected a report"),
}


@pytest.mark.parametrize("value", EMPTY)
def test_what_was_given_and_is_empty_when_the_task_runs_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="task act: source was given, but is empty now"):
        check_rendered("act", {"source": value}, needed=["source"])
    check_rendered("act", {"source": value}, needed=[])


@pytest.mark.parametrize(
    ("name", "value", "told"), OF_ANOTHER_KIND.values(), ids=list(OF_ANOTHER_KIND.keys())
)
def test_a_field_of_another_kind_is_named_with_its_kind(name: str, value: Any, told: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"task act: {name}: {told}") as refused:
        check_rendered("act", {name: value}, needed=[])
    assert "2026" not in str(refused.value)
    assert "wiki" not in str(refused.value)


UNTELLABLE: dict[str, Any] = {
    "a set, whose order differs from process to process": {"columns": {"a", "b"}},
    "no number": {"share": float("nan")},
    "bytes": {"deep": [{"key": b"\xff"}]},
    "an object": {"deep": [object()]},
    "a key that is no text": {"deep": {1: "a"}},
}


@pytest.mark.parametrize("parameters", UNTELLABLE.values(), ids=UNTELLABLE.keys())
def test_parameters_that_would_be_shown_otherwise_than_they_are_are_refused(parameters: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"task act: parameters.*expected text"):
        check_rendered("act", {"parameters": parameters}, needed=[])


def test_parameters_of_text_numbers_times_lists_and_dicts_are_taken() -> None:
    told = {
        "a": [1, 2.5, None, True, ("x",)],
        "day": datetime(2026, 1, 1, tzinfo=UTC),
        "price": Decimal("1.50"),
    }
    check_rendered("act", {"parameters": told}, needed=[])


def test_fields_of_other_packages_are_left_alone() -> None:
    check_rendered("act", {"statement": 7, "links": ["https://wiki"], "pii_report": {}}, needed=[])
