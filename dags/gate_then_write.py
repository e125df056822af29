"""A gate of its own, checks between it and the write, and a write that uses what the gate got approved.

The gate protects nothing by itself: the write redeems the approval for exactly the bytes that it writes.
Whoever marks the gate successful gets a write that refuses.

On an Airflow of your own: set the Variable `staging_folder` and put `customers.csv` into it, make a
connection `crm` to a PostgreSQL or SQLite database with a table `customers`, and let a policy cover the
action `write` to `sql://crm/customers`.
"""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.operators.sql import ApprovedSqlWriteOperator

SOURCE = "{{ var.value.get('staging_folder', '/data/staging') }}/customers.csv"

with DAG("gate_then_write", schedule=None, tags=["approvals"], doc_md=__doc__) as dag:
    gate = ApprovalGateOperator(
        task_id="gate",
        kind="write",
        source=SOURCE,
        destination="sql://crm/customers",
        parameters={"mode": "append"},
        justification="customers of {{ ds | default('today', true) }}",
        on_denied="skip_downstream",
    )

    @task
    def announce() -> None:
        """Tell whoever reads the table that rows are coming."""

    write = ApprovedSqlWriteOperator(
        task_id="write",
        source=SOURCE,
        conn_id="crm",
        table="customers",
        request_id="{{ ti.xcom_pull('gate') }}",
    )

    gate >> announce() >> write
