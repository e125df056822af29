"""The sensor: waits until a request that another DAG, or a person through the API, has opened is approved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from airflow_approvals.operators.links import ApprovalRequestLink
from airflow_approvals.operators.names import REQUEST_ID_KEY, RESUME
from airflow_approvals.operators.rendered import check_fields, given
from airflow_approvals.operators.waiting import refusals_are_final

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_approvals.core.model import ApprovalRequest
    from airflow_approvals.hooks.approvals import ApprovalsHook
    from airflow_approvals.triggers.approval import ApprovalTrigger


class ApprovalSensor(BaseSensorOperator):
    """Succeeds with the id of the request once it is approved (or used by whoever asked), fails on any no.

    Name the request by `request_id`, or the task that opens it by `external_dag_id`, `external_task_id` and
    `external_run_id`; then its newest request counts, and until there is one the sensor waits.

    :param external_map_index: the index of a mapped task; -1 for one that is not mapped.
    :param deferrable: wait in the triggerer; as long as there is no request, in reschedule mode.
    """

    template_fields: Sequence[str] = (
        "request_id",
        "external_dag_id",
        "external_task_id",
        "external_run_id",
    )
    operator_extra_links = (ApprovalRequestLink(),)
    ui_color = "#e6eef9"

    def __init__(
        self,
        *,
        request_id: str | None = None,
        external_dag_id: str | None = None,
        external_task_id: str | None = None,
        external_run_id: str | None = None,
        external_map_index: int = -1,
        deferrable: bool = False,
        **kwargs: Any,
    ) -> None:
        external = (external_dag_id, external_task_id, external_run_id)
        if (request_id is None) == (external == (None, None, None)) or (
            request_id is None and None in external
        ):
            raise ValueError(
                "ApprovalSensor: give either request_id, or all of external_dag_id, external_task_id and "
                "external_run_id"
            )
        if not isinstance(external_map_index, int):  # without one, any index would do
            raise TypeError(
                f"external_map_index: expected a whole number, found a {type(external_map_index).__name__}"
            )
        if deferrable:
            kwargs["mode"] = "reschedule"  # for as long as there is no request to wait for
        super().__init__(**kwargs)
        self.request_id = request_id
        self.external_dag_id = external_dag_id
        self.external_task_id = external_task_id
        self.external_run_id = external_run_id
        self.external_map_index = external_map_index
        self.deferrable = deferrable
        self.given_fields = given(
            request_id=request_id,
            external_dag_id=external_dag_id,
            external_task_id=external_task_id,
            external_run_id=external_run_id,
        )

    def poke(self, context: Context) -> Any:
        from airflow.sdk import PokeReturnValue

        request = self._find_request(context)
        if request is None:
            self.log.info("No request has been opened yet")
            return False
        context["ti"].xcom_push(key=REQUEST_ID_KEY, value=request.id)
        if self._check_decided(request):
            return PokeReturnValue(is_done=True, xcom_value=request.id)
        if self.deferrable:
            self.defer(trigger=self._trigger(request), method_name=RESUME, timeout=self.timeout)
        return False

    def approvals_resume(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Go on after the wait: Airflow calls this with the trigger's event."""
        request_id = (event or {}).get("request_id")
        with self._hook(context) as hook:
            request = hook.get_request(str(request_id))
        if "request_id" not in self.given_fields:  # its newest counts: that task may have asked anew
            request = self._find_request(context) or request
            context["ti"].xcom_push(key=REQUEST_ID_KEY, value=request.id)
        if not self._check_decided(request):
            self.defer(trigger=self._trigger(request), method_name=RESUME, timeout=self.timeout)
        return request.id

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        from airflow_approvals.lineage.tasks import asked

        return asked(self)

    def _find_request(self, context: Context) -> ApprovalRequest | None:
        from airflow_approvals.core.errors import ServiceUnavailableError

        with refusals_are_final():  # without a name any request would do
            check_fields(self)
        try:
            with self._hook(context) as hook:
                if self.request_id is not None:
                    return hook.get_request(self.request_id)
                found = hook.client.list_requests(
                    dag_id=self.external_dag_id,
                    run_id=self.external_run_id,
                    task_id=self.external_task_id,
                    map_index=self.external_map_index,
                    limit=1,
                )
                return next(iter(found.requests), None)
        except ServiceUnavailableError as trouble:
            self.log.warning("%s; looking again later", trouble)
            return None

    def _check_decided(self, request: ApprovalRequest) -> bool:
        """Return whether the request is approved; raise where the answer was, or became, no."""
        from airflow.providers.common.compat.sdk import AirflowFailException

        from airflow_approvals.core.model import State
        from airflow_approvals.lineage.remembered import remember

        remember(self, request)
        if request.state is State.PENDING:
            return False
        if request.state in (State.APPROVED, State.REDEEMED, State.COMPLETED):
            return True
        because = f": {request.decided_because}" if request.decided_because else ""
        raise AirflowFailException(f"request {request.id} is {request.state}{because}")

    def _trigger(self, request: ApprovalRequest) -> ApprovalTrigger:
        from airflow_approvals.settings import read_settings
        from airflow_approvals.triggers.approval import ApprovalTrigger

        return ApprovalTrigger(
            request_id=request.id,
            base_url=read_settings().service_url,
            deferred_at=datetime.now(UTC).timestamp(),
        )

    def _hook(self, context: Context) -> ApprovalsHook:
        from airflow_approvals.hooks.approvals import ApprovalsHook

        return ApprovalsHook.of(context)
