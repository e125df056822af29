"""Airflow's cluster policy (entry point `airflow.policy`): gates the tasks that `gated_operators` names.

Airflow calls this for every task of every DAG, in the dag processor and again in the worker that runs it. It
is imported by every Airflow process: what gates a task is imported when there is one, and what reads the
rules, which needs the standard library alone, at once, so that a process forked to parse a file has it.
Code in a DAG file runs in the same process and can undo all of it there: the sealed connections are what
stops that, and `airflow approvals policy explain DAG_ID` shows it.
"""

from __future__ import annotations

from typing import Any

from airflow.policies import hookimpl

from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.enforcement.rules_file import RulesFile
from airflow_approvals.settings import read_gating

_source: RulesFile | None = None


@hookimpl
def get_dagbag_import_timeout(dag_file_path: str) -> None:
    """Settle where the rules are before the DAG file can change it; leave the timeout as it is."""
    _rules_source()


@hookimpl
def task_policy(task: Any) -> None:
    """Gate `task` if a rule says so; a DAG of which that cannot be told, or done, is not loaded."""
    try:
        if found := _rules_source().of_dag(task.dag).rules_of(task):
            from airflow_approvals.enforcement.gating import gate_by_rules

            gate_by_rules(task, found)
    except ApprovalsError as error:
        from airflow.exceptions import AirflowClusterPolicyViolation

        raise AirflowClusterPolicyViolation(str(error)) from error


def _rules_source() -> RulesFile:
    global _source  # one per process, made before any DAG file is imported
    if _source is None:
        _source = RulesFile(*read_gating())
    return _source
