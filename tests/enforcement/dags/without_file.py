"""A DAG file that points the policy elsewhere before its tasks are looked at."""

from __future__ import annotations

import os

os.environ["AIRFLOW__APPROVALS__GATED_OPERATORS"] = "off"
os.environ["AIRFLOW__APPROVALS__POLICY_FILE"] = "/nonexistent"

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG

with DAG("without_file"):
    SQLExecuteQueryOperator(task_id="insert", conn_id="dev_db", sql="INSERT INTO written VALUES ('no file')")
