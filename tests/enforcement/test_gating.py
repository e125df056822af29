"""The cluster policy on DAG files as the dag processor loads them, and on files that try to be left out."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow.settings
import pytest
from airflow.policies import hookimpl

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.enforcement import cluster_policy
from airflow_approvals.enforcement.in_force import gates_in
from airflow_approvals.enforcement.rules_file import RulesFile, read_rules
from airflow_approvals.operators.gated import find_made

pytestmark = pytest.mark.airflow

HEAD = """
version: 1
gated_operators:
"""
DAG_FILE = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, BaseOperator, task
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.gated import gated
class Copy(BaseOperator):
    template_fields = ("to",)
    def __init__(self, *, to="", copy_conn_id="default_s3", **kwargs):
        super().__init__(**kwargs)
        self.to, self.copy_conn_id = to, copy_conn_id
    def execute(self, context): pass
class CopyMore(Copy): pass
with DAG("d", tags=["prod"]) as dag:
"""
Load = Callable[[str, str], Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return what loads a DAG file under rules, as `(dag, import errors)`."""
    place = "airflow.dag_processing.dagbag"
    bags = import_module(place if find_spec(place) else "airflow.models.dagbag")

    def load(rules: str, body: str) -> Any:
        policy, dag_file = tmp_path / "policy.yaml", tmp_path / "dags" / "d.py"
        policy.write_text(HEAD + rules)
        dag_file.parent.mkdir(exist_ok=True)
        dag_file.write_text(DAG_FILE + "\n".join(f"    {line}" for line in body.splitlines()))
        monkeypatch.setattr(cluster_policy, "_source", RulesFile(policy, "required"))
        known: Any = vars(airflow.settings)
        # Airflow 3.1 has it as a name of its own.
        made = known.get("get_policy_plugin_manager")
        manager = made() if made else known["POLICY_PLUGIN_MANAGER"]
        if not manager.is_registered(cluster_policy):
            manager.register(cluster_policy)
        bag = bags.DagBag(dag_file)
        return bag.dags.get("d"), "\n".join(bag.import_errors.values())

    return load


def rule_of(dag: Any, task_id: str) -> str | None:
    task = dag.task_dict[task_id]
    cls = type(task) if not hasattr(task, "partial_kwargs") else task.operator_class
    assert (find_made(cls) is not None) == hasattr(cls, "approvals_rule")
    return getattr(cls, "approvals_rule", None)


GATED = {
    "a class made from it": ("{operator: Copy, policy: p}", 'CopyMore(task_id="t")'),
    "its tag": ("{dag_tags: [prod], policy: p}", 'Copy(task_id="t")'),
    "its connection": ("{conn_id: ['prod_*'], policy: p}", 'Copy(task_id="t", copy_conn_id="prod_s3")'),
    "a connection told later": (
        "{conn_id: ['prod_*'], policy: p}",
        'Copy(task_id="t", copy_conn_id="{{ x }}")',
    ),
    "a default connection": ("{conn_id: ['default_*'], policy: p}", 'Copy(task_id="t")'),
    "a mapped connection": (
        "{conn_id: ['prod_*'], policy: p}",
        'Copy.partial(task_id="t").expand(copy_conn_id=["dev", "prod_s3"])',
    ),
    "a mapped task's default connection": (
        "{conn_id: ['default_*'], policy: p}",
        'Copy.partial(task_id="t").expand(to=["a"])',
    ),
    "a mapped task of unknown arguments": (
        "{conn_id: ['prod_*'], policy: p}",
        'Copy.partial(task_id="t").expand_kwargs([{"to": "a"}])',
    ),
    "a TaskFlow function": (
        "{operator: PythonOperator, policy: p}",
        "@task(task_id='t')\ndef f(): pass\nf()",
    ),
    "a connection that a TaskFlow function is called with": (
        "{conn_id: ['prod_*'], policy: p}",
        "@task(task_id='t')\ndef f(conn_id): pass\nf('prod_db')",
    ),
    "a mapped TaskFlow function": (
        "{task_id: [t], policy: p}",
        "@task(task_id='t')\ndef f(x): pass\nf.expand(x=[1])",
    ),
}


@pytest.mark.parametrize(("rule", "body"), GATED.values(), ids=GATED.keys())
def test_what_a_rule_names_is_gated(load: Load, rule: str, body: str) -> None:
    dag, errors = load(f"  - {rule}", body)
    assert not errors
    assert rule_of(dag, "t")


LEFT_ALONE = {
    "another class": ("{operator: Copy, policy: p}", 'BashOperator(task_id="t", bash_command="x")'),
    "another connection": ("{conn_id: ['prod_*'], policy: p}", 'Copy(task_id="t", copy_conn_id="dev")'),
    "what never runs": ("{dag_tags: [prod], policy: p}", 'EmptyOperator(task_id="t")'),
    "what asks by itself": (
        "{dag_tags: [prod], policy: p}",
        'ApprovedExportOperator(task_id="t", source="/a.csv", destination="/b.csv")',
    ),
}


@pytest.mark.parametrize(("rule", "body"), LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_what_no_rule_names_is_left_alone(load: Load, rule: str, body: str) -> None:
    dag, errors = load(f"  - {rule}", body)
    assert not errors
    assert rule_of(dag, "t") is None


def test_a_rule_takes_the_place_of_the_gate_that_the_author_chose(load: Load) -> None:
    dag, errors = load(
        "  - {operator: Copy, policy: strict, kind: export}",
        'gated(Copy(task_id="t"), kind="note", policy="lenient", justification="mine")',
    )
    assert not errors
    task = dag.task_dict["t"]
    assert (task.approvals_policy, task.approvals_kind, task.approvals_justification) == (
        "strict",
        "export",
        "mine",
    )
    assert [base.__name__ for base in type(task).__mro__[:3]] == ["Copy", "Copy", "BaseOperator"]


def test_a_class_that_only_says_that_it_is_gated_is_gated(load: Load) -> None:
    body = 'class Sly(Copy): approvals_terms = approvals_rule = "mine"\nSly(task_id="t")'
    dag, errors = load("  - {operator: Copy, policy: p}", body)
    assert not errors
    assert find_made(type(dag.task_dict["t"])) is not None


def test_a_class_made_from_one_that_asks_by_itself_lets_no_dag_load(load: Load) -> None:
    body = (
        "class Sly(ApprovedExportOperator):\n    def execute(self, context): pass\n"
        'Sly(task_id="t", source="/a.csv", destination="/b.csv")'
    )
    dag, errors = load("  - {dag_tags: [prod], policy: p}", body)
    assert dag is None
    assert "made from an operator that asks by itself" in errors


def test_a_class_with_the_name_of_a_free_one_is_gated(load: Load) -> None:
    body = (
        "class EmptyOperator(Copy): __module__ = 'airflow.providers.standard.operators.empty'\n"
        'EmptyOperator(task_id="t")'
    )
    dag, _ = load("  - {dag_tags: [prod], policy: p}", body)
    assert rule_of(dag, "t")


def test_a_broken_file_lets_no_dag_load(load: Load) -> None:
    dag, errors = load("  - {operator: Copy}", 'BashOperator(task_id="t", bash_command="x")')
    assert dag is None
    assert "policy is missing" in errors


def test_the_stored_dag_tells_what_gates_each_task_and_where_a_gate_is_missing(load: Load) -> None:
    rules = "  - {operator: Copy, policy: p}\n  - {conn_id: ['prod_*'], policy: p}"
    body = (
        'Copy(task_id="own")\nCopyMore(task_id="made_from")\nCopy.partial(task_id="mapped").expand(to=["a"])\n'
        'BashOperator(task_id="free", bash_command="x")\n'
        'gated(BashOperator(task_id="by_author", bash_command="x"))\n'
        'ApprovedExportOperator(task_id="asks", source="/a.csv", destination="/b.csv")'
    )
    gates = gates_of_stored(load, rules, body)
    assert {task_id: gate.standing for task_id, gate in gates.items()} == {
        "own": "by rule",
        "made_from": "by rule",
        "mapped": "by rule",
        "free": "not gated",
        "by_author": "by its DAG",
        "asks": "asks itself",
    }
    # The same DAG, loaded where nobody gated it.
    ungated = gates_of_stored(load, "  []", body, read_rules(HEAD + rules))
    assert {task_id for task_id, gate in ungated.items() if gate.standing == "gate missing"} == {
        "own",
        "mapped",
    }


def gates_of_stored(load: Load, rules: str, body: str, judged_by: Any = None) -> dict[str, Any]:
    ways = import_module("airflow.serialization.serialized_objects")
    serialize = (vars(ways).get("DagSerialization") or ways.SerializedDAG).to_dict
    dag, errors = load(rules, body)
    assert not errors
    found = gates_in(serialize(dag)["dag"], judged_by if judged_by is not None else read_rules(HEAD + rules))
    return {gate.task_id: gate for gate in found}


def test_the_timeout_of_a_dag_file_stays_what_it_was() -> None:
    assert hookimpl.project_name == "airflow.policy"
    told: Any = cluster_policy.get_dagbag_import_timeout("dags/d.py")
    assert told is None


def test_modes_say_what_a_missing_file_means(tmp_path: Path) -> None:
    missing, broken = tmp_path / "missing.yaml", tmp_path / "broken.yaml"
    broken.write_text("gated_operators: [")
    assert RulesFile(missing, "auto").current().rules == ()
    assert RulesFile(broken, "off").current().rules == ()
    for path, mode in ((missing, "required"), (broken, "auto"), (missing, "sometimes"), (tmp_path, "auto")):
        with pytest.raises(PolicyError):
            RulesFile(path, mode).current()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(HEAD + "  - {operator: Copy, policy: p}")
    rules = RulesFile(file, "required")
    assert len(rules.current().rules) == 1
    file.write_text(HEAD + "  []")
    assert rules.current().rules == ()
