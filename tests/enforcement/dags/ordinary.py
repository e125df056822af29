"""DAGs that know nothing of approvals: the platform owner's rules gate some of their tasks."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, Variable, task

LEFT = Path(os.environ["LEFT"])


class Send(BaseOperator):
    """Sends to a bucket, and waits for the answer without a worker slot."""

    template_fields = ("bucket", "key")

    def __init__(self, *, bucket: str, key: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bucket = bucket
        self.key = key

    def execute(self, context: Any) -> None:
        (LEFT / f"began_{self.task_id}").write_text(self.key)
        # Not at once: Airflow can fail a task whose trigger fires while its defer is still news.
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=8)), method_name="finish")

    def finish(self, context: Any, event: Any = None) -> None:
        (LEFT / f"finished_{self.task_id}").write_text(self.key)


class SendMore(Send):
    """Made from an operator that is gated."""


with DAG("stock"):
    SQLExecuteQueryOperator(
        task_id="insert", conn_id="prod_db", sql="INSERT INTO written VALUES ('{{ dag.dag_id }}')"
    )

with DAG("deferring"):
    Send(task_id="to_partner", bucket="partner-a", key="{{ run_id }}.csv")
    SendMore(task_id="more", bucket="partner-b", key="more.csv")
    Send(task_id="to_us", bucket="our-own", key="ours.csv")

with DAG("plain", tags=["plain"]):

    @task
    def gated_one(number: int) -> int:
        (LEFT / f"number_{number}").write_text(Variable.get("prod_token"))
        return number

    gated_one.expand(number=[1, 2])

with DAG("untouched"):

    @task
    def gated_by_nobody() -> str:
        return "this DAG has no tag"

    gated_by_nobody()

with DAG("wrong_policy"):
    SQLExecuteQueryOperator(
        task_id="insert", conn_id="vault_db", sql="INSERT INTO written VALUES ('{{ dag.dag_id }}')"
    )
