"""DAGs that write approved rows through a sealed connection: one is approved, one denied."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG

from airflow_approvals.operators.sql import ApprovedSqlWriteOperator

STAGED = str(Path(os.environ["LEFT"]).parent / "staged.csv")

for dag_id in ("approved_write", "denied_write"):
    with DAG(dag_id):
        ApprovedSqlWriteOperator(task_id="write", source=STAGED, conn_id="prod_db", table="written")
