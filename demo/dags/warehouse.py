"""DAGs without a word of approvals, before a warehouse whose connection is sealed: one asks all the same."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG, BaseHook, task

CONNECTION = "prod_warehouse"

with DAG("stock_insert", schedule=None):
    SQLExecuteQueryOperator(
        task_id="insert", conn_id=CONNECTION, sql="INSERT INTO written VALUES ('approved')"
    )

with DAG("attack_protected_connection", schedule=None):

    @task
    def read() -> str:
        """Read the connection without an approval; return the word of the refusal."""
        try:
            BaseHook.get_connection(CONNECTION)
        except Exception as refusal:  # noqa: BLE001  # whatever stops it is told
            return type(refusal).__name__
        return "read"

    read()

with DAG("attack_execute_by_hand", schedule=None):

    @task
    def by_hand(**context: Any) -> None:
        """Call the gated operator's `execute` from a task that is not gated."""
        sql = "INSERT INTO written VALUES ('by hand')"
        operator = SQLExecuteQueryOperator(task_id="inner", conn_id=CONNECTION, sql=sql)
        operator.execute(context)  # type: ignore[no-untyped-call]  # Airflow's

    by_hand()
