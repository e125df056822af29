"""What the rules of the platform owner are held against: one task, as its DAG file made it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.core.gated_rules import TaskFacts
from airflow_approvals.operators.named_connections import connections_of, connections_of_mapped


def facts_of(task: Any) -> TaskFacts:
    """Return what is known of an operator or a mapped one while its file is parsed."""
    is_mapped = is_mapped_task(task)
    named = connections_of_mapped(task) if is_mapped else connections_of(task)
    dag = task.dag
    cls: Any = task.operator_class if is_mapped else type(task)
    return TaskFacts(
        dag_id=dag.dag_id,
        dag_tags=tuple(dag.tags),
        task_id=task.task_id,
        classes=class_names(cls),
        conn_ids=named.ids,
        has_unknown_conn=named.has_unknown,
    )


def is_mapped_task(task: Any) -> bool:
    """Return whether `task` stands for several, made when it runs; another thing than a task is refused."""
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    if isinstance(task, BaseOperator):
        return False
    if isinstance(task, MappedOperator):
        return True
    raise PolicyError(
        f"a task is a {type(task).__name__}, neither an operator nor a mapped one: whether it is gated "
        "cannot be told; use one of Airflow's task classes"
    )


@lru_cache(maxsize=4096)
def class_names(cls: type) -> tuple[str, ...]:
    """Return the class and all that it is made from, by name and by dotted path."""
    names = [
        name for base in cls.__mro__ for name in (base.__name__, f"{base.__module__}.{base.__qualname__}")
    ]
    return tuple(dict.fromkeys(names))
