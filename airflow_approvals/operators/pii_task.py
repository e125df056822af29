"""`@task.pii`: a TaskFlow function whose result is scanned, and masked or refused, before anybody gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator


def pii_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Return the decorator; Airflow knows it as `@task.pii(on_pii=...)`."""
    from airflow.sdk.bases.decorator import task_decorator_factory

    # Airflow's PythonOperator brings much along: only for DAGs that have such a task.
    from airflow_approvals.operators.pii_function import PiiTask

    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=PiiTask,
        **kwargs,
    )
