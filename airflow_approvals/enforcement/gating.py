"""The gate that the platform owner's rules put on a task, whatever its DAG says: the same one as `gated`."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.core.gated_rules import GateRule, reason_of
from airflow_approvals.enforcement.facts import RULE_FIELD, is_mapped_task
from airflow_approvals.operators.gated import (
    Terms,
    exchange_class,
    exchange_mapped_class,
    find_made,
    gated_class,
)
from airflow_approvals.operators.names import GATE_FIELDS

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

_FREE = (
    "airflow.providers.standard.operators.empty.EmptyOperator",
    "airflow_approvals.operators.export.ApprovedExportOperator",
    "airflow_approvals.operators.gate.ApprovalGateOperator",
    "airflow_approvals.operators.sql.ApprovedSqlWriteOperator",
    "airflow_approvals.sensors.approval.ApprovalSensor",
)
_ASKING = (
    "airflow_approvals.operators.approved.ApprovedOperator",
    "airflow_approvals.operators.gate.ApprovalGateOperator",
)


def gate_by_rules(task: Any, rules: tuple[GateRule, ...]) -> None:
    """Gate `task`, an operator or a mapped one, by `rules`; raise `PolicyError` where it cannot be.

    A gate that the DAG's author has put on it gives way: what it asks with might be weaker than the rule.
    """
    is_mapped = is_mapped_task(task)
    cls: Any = task.operator_class if is_mapped else type(task)
    if _needs_no_gate(cls, task.task_id):
        return
    made = find_made(cls)
    if made is not None:
        gated = _regated(made.base, made.fields, made.terms, rules)
    else:
        gated = _gated(cls, tuple(task.template_fields), rules)
    if is_mapped:
        exchange_mapped_class(task, gated)
    else:
        exchange_class(task, gated)


@lru_cache(maxsize=4096)
def _gated(
    base: type[BaseOperator], own_fields: tuple[str, ...], rules: tuple[GateRule, ...]
) -> type[BaseOperator]:
    """Return the gated class of `base`: one for all tasks of a kind, so that large DAGs parse fast."""
    terms = Terms(own_fields=own_fields, show=(), on_denied="fail", rules=rules)
    fields = {**dict.fromkeys(GATE_FIELDS), "approvals_justification": "", **_told(rules)}
    # The rule's own words: a destination in them is rendered when the task runs.
    return gated_class(base, fields, terms, rendered=(RULE_FIELD,))


def _regated(
    base: type[BaseOperator], fields: Any, terms: Terms, rules: tuple[GateRule, ...]
) -> type[BaseOperator]:
    told = {**fields, **_told(rules)}
    return gated_class(base, told, terms._replace(rules=rules), rendered=(*GATE_FIELDS, RULE_FIELD))


def _told(rules: tuple[GateRule, ...]) -> dict[str, Any]:
    first = rules[0]
    return {
        "approvals_policy": first.policy if len(rules) == 1 else None,
        "approvals_kind": first.kind,
        RULE_FIELD: "; or ".join(reason_of(rule) for rule in rules),
    }


def _needs_no_gate(cls: type[BaseOperator], task_id: str) -> bool:
    """Return whether the class itself, and not what somebody made of it, never acts or asks by itself."""
    if any(cls is _loaded(path) for path in _FREE):
        return True
    if any(base is not None and issubclass(cls, base) for base in map(_loaded, _ASKING)):
        raise PolicyError(
            f"task {task_id}: {cls.__name__} is made from an operator that asks by itself, and could act "
            "without; a rule of the platform owner gates it: use that operator itself, or a stock one"
        )
    return False


def _loaded(path: str) -> type | None:
    """Return the class at `path`; None if its module is not loaded here, so that no task can be of it."""
    module, _, name = path.rpartition(".")
    found: type | None = getattr(sys.modules.get(module), name, None)
    return found
