"""Stages a customer list, and exports it once somebody else has approved exactly those bytes.

`make demo` runs it. On an Airflow of your own, set the Variable `customer_folder` to the `file://` URI of a
folder that all workers see, put `source/customers.csv` into it, and allow its `outbox` in the policy file.
"""

from __future__ import annotations

from pathlib import Path

# [START smallest]
from airflow.sdk import DAG, Param, task

from airflow_approvals.operators.export import ApprovedExportOperator

with DAG("customer_export", schedule=None, params={"batch": Param("customers", pattern="^[a-z0-9-]+$")}):
    export = ApprovedExportOperator(
        task_id="export",
        source="{{ var.value.customer_folder }}/staged/{{ params.batch }}.parquet",
        destination="{{ var.value.customer_folder }}/outbox/{{ params.batch }}.parquet",
        justification="Monthly customer list for the mailing partner",
    )
    # [END smallest]

    # [START stage]
    @task
    def stage(source: str, staged: str) -> int:
        """Keep the columns that the partner needs, as Parquet, and return the number of rows."""
        from pyarrow import csv, parquet

        customers = csv.read_csv(source.removeprefix("file://"))
        wanted = customers.select(["customer_id", "name", "email", "city", "country", "signed_up"])
        target = Path(staged.removeprefix("file://"))
        target.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(wanted, target)
        return int(wanted.num_rows)

    stage("{{ var.value.customer_folder }}/source/customers.csv", export.source) >> export
    # [END stage]
