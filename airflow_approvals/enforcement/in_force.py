"""The gates that are in force: the DAG as the dag processor stored it, held against the rules of the file.

Both are told apart on purpose: what a rule demands, and what the stored DAG has. A DAG file that keeps the
gate off its task shows here, unless it hides what the task is made from as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.gated_rules import GateRule, TaskFacts, reason_of, rules_for
from airflow_approvals.enforcement.facts import RULE_FIELD
from airflow_approvals.operators.named_connections import SUFFIX

GATE_FIELD = "approvals_policy"
OUR_OPERATORS = "airflow_approvals.operators."
_FREE = frozenset({"airflow.providers.standard.operators.empty.EmptyOperator"})

Standing = Literal["by rule", "by its DAG", "asks itself", "not gated", "gate missing"]


@dataclass(frozen=True, kw_only=True)
class TaskGate:
    """How one task stands: what gates it, and why; `is_certain` is False where its destination decides."""

    task_id: str
    operator: str
    standing: Standing
    because: str
    is_certain: bool = True


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A task instance, of a task that is gated, that ended in success."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    was_started: bool


def gates_of(dag_id: str, rules: Iterable[GateRule]) -> list[TaskGate]:
    """Return how every task of the newest stored version of a DAG stands, in the order of the DAG."""
    from airflow.models.serialized_dag import SerializedDagModel

    stored = SerializedDagModel.get(dag_id)
    if stored is None or stored.data is None:
        raise InvalidRequestError(
            f"DAG {dag_id} is not known to this Airflow; check its id, and that its file is loaded"
        )
    return gates_in(stored.data["dag"], tuple(rules))


def gates_in(dag: Mapping[str, Any], rules: tuple[GateRule, ...]) -> list[TaskGate]:
    """Return how every task of a serialised DAG stands."""
    return [_gate_of(_var(task), dag, rules) for task in dag["tasks"]]


def ended_runs(rules: tuple[GateRule, ...], *, since: datetime) -> Iterator[EndedRun]:
    """Yield the task instances of gated tasks that ended in success since then.

    Without a redeemed request they were marked successful by hand, or ran without their gate. A task whose
    destination decides whether it is gated is left out: whether it was is not known.
    """
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        columns = (
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.start_date,
        )
        query = select(*columns).where(TaskInstance.state == "success", TaskInstance.end_date >= since)
        ended: list[Any] = list(session.execute(query.order_by(TaskInstance.dag_id)))
    gated: dict[str, frozenset[str]] = {}
    for row in ended:
        if row.dag_id not in gated:
            stored = SerializedDagModel.get(row.dag_id)
            gates = gates_in(stored.data["dag"], rules) if stored and stored.data else []
            gated[row.dag_id] = frozenset(gate.task_id for gate in gates if _must_redeem(gate))
        if row.task_id in gated[row.dag_id]:
            yield EndedRun(
                dag_id=row.dag_id,
                run_id=row.run_id,
                task_id=row.task_id,
                map_index=row.map_index,
                was_started=row.start_date is not None,
            )


def answered_questions(*, since: datetime) -> list[tuple[EndedRun, str]]:
    """Return the Human-in-the-loop tasks that were answered since then, with their task instance ids."""
    from airflow.models import hitl
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    detail: Any = hitl.HITLDetail
    answered_at = detail.responded_at if hasattr(detail, "responded_at") else detail.response_at  # 3.1.0
    query = (
        select(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
        .add_columns(TaskInstance.id)
        .join(detail, detail.ti_id == TaskInstance.id)
        .where(answered_at >= since)
    )
    with create_session() as session:
        rows: list[Any] = list(session.execute(query))
    return [
        (
            EndedRun(
                dag_id=row.dag_id,
                run_id=row.run_id,
                task_id=row.task_id,
                map_index=row.map_index,
                was_started=True,
            ),
            str(row.id),
        )
        for row in rows
    ]


def _must_redeem(gate: TaskGate) -> bool:
    return gate.is_certain and gate.standing in ("by rule", "by its DAG", "gate missing")


def _gate_of(task: Mapping[str, Any], dag: Mapping[str, Any], rules: tuple[GateRule, ...]) -> TaskGate:
    operator = f"{task.get('_task_module', '')}.{task.get('task_type', '')}"
    fields = task.get("template_fields", ())
    wanted = rules_for(rules, _facts_of(task, operator, dag))
    is_certain = bool(wanted) and not wanted[0].to
    standing: Standing
    if RULE_FIELD in fields:
        # Of a mapped task only the name of the field is stored; a base class is not stored at all.
        told = _told(wanted) or "gated_operators: a rule for a class that it is made from"
        standing, because = "by rule", str(task.get(RULE_FIELD) or told)
        is_certain = is_certain or (not wanted and "destination " not in because)
    elif operator.startswith(OUR_OPERATORS):
        standing, because, is_certain = "asks itself", "an operator of airflow-approvals", False
    elif operator in _FREE or not wanted:
        standing, because = "not gated", "no rule names it"
        if GATE_FIELD in fields:
            standing, because, is_certain = "by its DAG", "gated(...) in the DAG file", True
    else:
        standing, because = "gate missing", f"{_told(wanted)}, and the stored DAG has no gate on it"
    return TaskGate(
        task_id=str(task["task_id"]),
        operator=operator,
        standing=standing,
        because=because,
        is_certain=is_certain,
    )


def _told(rules: Iterable[GateRule]) -> str:
    return "; or ".join(reason_of(rule) for rule in rules)


def _facts_of(task: Mapping[str, Any], operator: str, dag: Mapping[str, Any]) -> TaskFacts:
    given: dict[str, Any] = {**task, **_plain(task.get("partial_kwargs"))}
    named = {name: value for name, value in given.items() if name.endswith(SUFFIX)}
    literal = {
        value
        for name, value in named.items()
        if not name.startswith("approvals_") and isinstance(value, str) and "{{" not in value
    }
    return TaskFacts(
        dag_id=str(dag["dag_id"]),
        dag_tags=tuple(_plain(dag.get("tags", ()))),
        task_id=str(task["task_id"]),
        classes=(operator, operator.rpartition(".")[2]),
        conn_ids=tuple(sorted(literal)),
    )


def _var(value: Any) -> Any:
    return value["__var"] if isinstance(value, Mapping) and "__var" in value else value


def _plain(value: Any) -> Any:
    return _var(value) or {}
