"""Masks a customer list, proves that the masking holds, and exports it once somebody else has approved it.

`make demo` runs it. On an Airflow of your own, set the Variable `customer_folder` to the `file://` URI of a
folder that all workers see, put `source/customers.csv` into it, and make a connection `masking_keys` of any
type whose password is a key (`openssl rand -base64 32`). In the policy file, allow the folder's `outbox`, and
refuse what is not verified: `deny_if: ["pii.verified == false"]`.
"""

from __future__ import annotations

from airflow.sdk import DAG, ObjectStoragePath, Param, task

# [START pii]
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.pii import PiiMaskOperator, PiiScanOperator, PiiVerifyOperator

STAGED = "{{ var.value.customer_folder }}/staged/{{ params.batch }}.parquet"
MASKED = "{{ var.value.customer_folder }}/masked/{{ params.batch }}.parquet"

with DAG("customer_export", schedule=None, params={"batch": Param("customers", pattern="^[a-z0-9-]+$")}):
    scan = PiiScanOperator(task_id="scan", source=STAGED)
    mask = PiiMaskOperator(
        task_id="mask", source=STAGED, masked=MASKED, otherwise="pseudonym", keys_conn_id="masking_keys"
    )
    verify = PiiVerifyOperator(
        task_id="verify",
        source=STAGED,
        masked=MASKED,
        plan="{{ ti.xcom_pull('mask')['plan'] }}",
        keys_conn_id="masking_keys",
        scan_report=scan.output,
    )
    export = ApprovedExportOperator(
        task_id="export",
        source=MASKED,
        destination="{{ var.value.customer_folder }}/outbox/customers/{{ params.batch }}.parquet",
        pii_report=verify.output,
        justification="Monthly customer list for the mailing partner",
    )
    scan >> mask >> verify >> export
    # [END pii]

    @task
    def stage(source: str, staged: str) -> int:
        """Write the customer list as Parquet, and return the number of rows."""
        from pyarrow import csv, parquet

        customers = csv.read_csv(source.removeprefix("file://"))
        target = ObjectStoragePath(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Airflow tells lineage of what is written in this way.
        with target.open("wb") as file:  # type: ignore[no-untyped-call]  # Airflow's
            parquet.write_table(customers, file)
        return int(customers.num_rows)

    stage("{{ var.value.customer_folder }}/source/customers.csv", scan.source) >> scan
