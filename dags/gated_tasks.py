"""Tasks of every kind that ask before they act: an operator, a `@task` function, and a mapped task.

Each stays the same task, with the same id and dependencies. Approvers see the operator, digests of its
rendered fields, and the fields named in `show`.

On an Airflow of your own: set the Variable `staging_folder` and put `customers.csv` into it, and let
policies cover the action `delete` to `warehouse://crm` and `write` to `sftp://partner/in/customers.csv`. The
tasks only stand for real ones: `drop_table` drops nothing, and `hand_over` copies on the worker.
"""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

from airflow_approvals.operators.gated import gated

STAGING = "{{ var.value.get('staging_folder', '/data/staging') }}"

with DAG("gated_tasks", schedule=None, tags=["approvals"], doc_md=__doc__) as dag:

    @task
    def tables_to_drop() -> list[str]:
        return ["tmp_customers_may", "tmp_customers_june"]

    @gated(kind="delete", destination="warehouse://crm", justification="staging tables of closed months")
    @task
    def drop_table(table: str) -> str:
        return f"dropped {table}"

    notify = gated(
        BashOperator(
            task_id="hand_over", bash_command=f"cp {STAGING}/customers.csv {STAGING}/handed_over.csv"
        ),
        source=f"{STAGING}/customers.csv",
        destination="sftp://partner/in/customers.csv",
        justification="monthly delivery to the partner",
        show=["bash_command"],
    )

    drop_table.expand(table=tables_to_drop()) >> notify
