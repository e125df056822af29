"""A DAG file that takes the platform owner's hooks away, wherever it is parsed."""

from __future__ import annotations

import os

import airflow.settings
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG

from airflow_approvals.enforcement import cluster_policy, facts, gating, rules_file
from airflow_approvals.operators import gated_task

os.environ["AIRFLOW__APPROVALS__GATED_OPERATORS"] = "off"
made = vars(airflow.settings).get("get_policy_plugin_manager")  # Airflow 3.1 has it as a name of its own
manager = made() if made else vars(airflow.settings)["POLICY_PLUGIN_MANAGER"]
for plugin in list(manager.get_plugins()):
    if "airflow_approvals" in repr(plugin):
        manager.unregister(plugin)
cluster_policy.task_policy = lambda task: None
rules_file.RulesFile.current = lambda self: facts.RuleBook(())  # type: ignore[method-assign]  # the attack
gating.gate_by_rules = lambda task, rules: None
gated_task.execute = lambda task, context, act: act(context)

with DAG("without_hooks"):
    SQLExecuteQueryOperator(
        task_id="insert", conn_id="prod_db", sql="INSERT INTO written VALUES ('without hooks')"
    )
    # It names nothing that is sealed: the gate alone stood before it.
    SQLExecuteQueryOperator(
        task_id="harmless", conn_id="dev_db", sql="INSERT INTO written VALUES ('without a gate')"
    )
