"""Wait for an approval that somebody has asked for through the API or the command line, and act on it.

Ask with `airflow approvals request --kind grant --destination role://reader`, where a policy covers that, and
trigger it with the id of the request: `airflow dags trigger wait_for_grant --conf '{"request_id": "..."}'`.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from airflow_approvals.core.model import Action
from airflow_approvals.hooks.approvals import ApprovalsHook
from airflow_approvals.sensors.approval import ApprovalSensor

with DAG(
    "wait_for_grant",
    schedule=None,
    tags=["approvals"],
    params={"request_id": Param("", type="string"), "role": Param("role://reader", type="string")},
    doc_md=__doc__,
) as dag:
    approved = ApprovalSensor(task_id="approved", request_id="{{ params.request_id }}", deferrable=True)

    @task
    def grant(role: str, request_id: str) -> str:
        action = Action(kind="grant", destination=role)
        with ApprovalsHook() as hook, hook.redeemed(request_id, action=action) as used:
            return f"{role} granted, receipt {used.receipt.payload_sha256}"

    approved >> grant("{{ params.role }}", "{{ ti.xcom_pull('approved') }}")
