"""DAGs that want a protected secret, or a gated task, without anybody's approval."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, BaseOperator, task
from peeking import Peeking, note_all  # type: ignore[import-not-found]  # on the path of these tests' Airflow alone

# While the file is parsed: in the dag processor, which asks Airflow in its own process.
note_all("parse")


class Defer(BaseOperator):
    """Goes to the triggerer, and comes back."""

    def execute(self, context: Any) -> None:
        self.defer(trigger=Peeking(), method_name="back")

    def back(self, context: Any, event: Any = None) -> None:
        note_all("after_trigger")


with DAG("reads"):

    @task
    def in_a_task() -> None:
        note_all("task")

    @task
    def by_raw_client() -> None:
        from airflow.sdk import BaseHook

        with closing(sqlite3.connect(BaseHook.get_connection("prod_db").host or "")) as database:
            database.execute("INSERT INTO written VALUES ('raw client')")
            database.commit()

    in_a_task()
    by_raw_client()

with DAG("from_a_trigger"):
    Defer(task_id="defer")

with DAG("calls_execute"):

    @task
    def by_hand(**context: Any) -> None:
        sql = "INSERT INTO written VALUES ('by hand')"
        SQLExecuteQueryOperator(task_id="inner", conn_id="prod_db", sql=sql).execute(context)  # type: ignore[no-untyped-call]  # Airflow's

    by_hand()

with DAG("overwrites"):

    @task
    def overwrite() -> None:
        from airflow.sdk import Variable

        Variable.set("prod_token", "mine")

    overwrite()

with DAG("in_a_template"):
    BashOperator(task_id="echo", bash_command="echo {{ conn.prod_api.password }} > $LEFT/template")

with DAG("marked"):
    SQLExecuteQueryOperator(task_id="insert", conn_id="prod_db", sql="INSERT INTO written VALUES ('marked')")
