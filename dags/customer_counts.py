"""Counts customers by country, and exports the counts once somebody else has approved exactly those bytes.

`make demo AUTO=1` attacks it. On an Airflow of your own, set the Variable `customer_folder` to the `file://`
URI of a folder that all workers see, put `source/customers.csv` into it, and allow its `outbox` in the policy
file.
"""

from __future__ import annotations

from pathlib import Path

# [START smallest]
from airflow.sdk import DAG, Param, task

from airflow_approvals.operators.export import ApprovedExportOperator

with DAG("customer_counts", schedule=None, params={"batch": Param("customers", pattern="^[a-z0-9-]+$")}):
    export = ApprovedExportOperator(
        task_id="export",
        source="{{ var.value.customer_folder }}/staged/{{ params.batch }}.parquet",
        destination="{{ var.value.customer_folder }}/outbox/{{ params.batch }}.parquet",
        justification="Customers by country, for the mailing partner",
    )
    # [END smallest]

    @task
    def stage(source: str, staged: str) -> int:
        """Write the number of customers of each country as Parquet, and return how many countries."""
        from pyarrow import csv, parquet

        customers = csv.read_csv(source.removeprefix("file://"))
        counts = customers.group_by("country").aggregate([("customer_id", "count")]).sort_by("country")
        target = Path(staged.removeprefix("file://"))
        target.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(counts, target)
        return int(counts.num_rows)

    stage("{{ var.value.customer_folder }}/source/customers.csv", export.source) >> export
