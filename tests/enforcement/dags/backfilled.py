"""A DAG whose only runs are those of a backfill."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG

DAYS = {"start_date": datetime(2026, 1, 1, tzinfo=UTC), "end_date": datetime(2026, 1, 2, tzinfo=UTC)}

with DAG("backfilled", schedule="@daily", catchup=False, **DAYS):  # type: ignore[arg-type]  # two dates
    SQLExecuteQueryOperator(
        task_id="insert", conn_id="prod_db", sql="INSERT INTO written VALUES ('{{ ds }}')"
    )
