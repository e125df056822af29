"""What the rules of the platform owner are held against: one task, as its DAG file made it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.core.gated_rules import GateRule, TaskFacts, names_task_id, rules_for

RULE_FIELD = "approvals_rule"
"""Template field of a task that a rule has gated: it says which, in the UI and in the serialised DAG."""


class RuleBook:
    """The rules in force, and for each class of tasks the few that could name it."""

    def __init__(self, rules: tuple[GateRule, ...]) -> None:
        self.rules = rules
        self._of_class: dict[type, tuple[GateRule, ...]] = {}

    def rules_of(self, task: Any) -> tuple[GateRule, ...]:
        """Return the rules that gate an operator or a mapped one, as `core.gated_rules.rules_for` does.

        Most tasks are of a class, or called, as no rule names: of them nothing else is looked at.
        """
        is_mapped = is_mapped_task(task)
        cls: Any = task.operator_class if is_mapped else type(task)
        if cls not in self._of_class:
            names = class_names(cls)
            self._of_class[cls] = tuple(
                rule for rule in self.rules if rule.operator is None or rule.operator in names
            )
        candidates = tuple(rule for rule in self._of_class[cls] if names_task_id(rule, task.task_id))
        return rules_for(candidates, _facts_of(task, cls, is_mapped, candidates)) if candidates else ()


def _facts_of(task: Any, cls: type, is_mapped: bool, candidates: tuple[GateRule, ...]) -> TaskFacts:
    conn_ids: tuple[str, ...] = ()
    has_unknown = False
    if any(rule.conn_id for rule in candidates):
        from airflow_approvals.operators.named_connections import connections_of, connections_of_mapped

        named = connections_of_mapped(task) if is_mapped else connections_of(task)
        conn_ids, has_unknown = named.ids, named.has_unknown
    dag = task.dag
    return TaskFacts(
        dag_id=dag.dag_id,
        dag_tags=tuple(dag.tags),
        task_id=task.task_id,
        classes=class_names(cls),
        conn_ids=conn_ids,
        has_unknown_conn=has_unknown,
    )


def is_mapped_task(task: Any) -> bool:
    """Return whether `task` stands for several, made when it runs; another thing than a task is refused."""
    cls: Any = type(task)
    return _is_mapped_class(cls)


@lru_cache(maxsize=4096)
def _is_mapped_class(cls: type) -> bool:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    if issubclass(cls, BaseOperator):
        return False
    if issubclass(cls, MappedOperator):
        return True
    raise PolicyError(
        f"a task is a {cls.__name__}, neither an operator nor a mapped one: whether it is gated cannot be "
        "told; use one of Airflow's task classes"
    )


@lru_cache(maxsize=4096)
def class_names(cls: type) -> tuple[str, ...]:
    """Return the class and all that it is made from, by name and by dotted path."""
    names = [
        name for base in cls.__mro__ for name in (base.__name__, f"{base.__module__}.{base.__qualname__}")
    ]
    return tuple(dict.fromkeys(names))
