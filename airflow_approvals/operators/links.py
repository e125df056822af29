"""The button on a task instance that opens its approval request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from airflow_approvals.operators.names import REQUEST_ID_KEY

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ApprovalRequestLink(BaseOperatorLink):
    """Leads to the page of the request; empty as long as the task has not asked."""

    @property
    def name(self) -> str:
        return "Approval request"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        from airflow.sdk.execution_time.xcom import XCom

        from airflow_approvals.hooks.approvals import link_to
        from airflow_approvals.settings import read_settings

        request_id = XCom.get_value(ti_key=ti_key, key=REQUEST_ID_KEY)
        return link_to(read_settings(), request_id) if request_id else ""
