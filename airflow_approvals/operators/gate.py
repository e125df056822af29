"""A gate of its own in front of the task that writes; the write still redeems what the gate got approved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_approvals.hooks.approvals import ApprovalsHook
from airflow_approvals.operators.links import ApprovalRequestLink
from airflow_approvals.operators.rendered import check_fields, given
from airflow_approvals.operators.reports import evidence_of
from airflow_approvals.operators.waiting import ask, check_on_denied, come_back, refusals_are_final

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_approvals.core.model import Action, Evidence, Snapshot


class ApprovalGateOperator(BaseOperator):
    """Asks for one action, waits without a worker slot, and returns the id of the approved request.

    The gate protects nothing by itself: hand its result to the task that acts, as `request_id="{{
    ti.xcom_pull('gate') }}"`, or as `hook.redeemed(request_id, ...)` in a task of your own. A gate that was
    marked successful returns no request, and the task that acts refuses.

    :param kind: export, write, delete, grant, rotate_key, or a word of your own.
    :param source: the staged dataset, if data moves: it is read once, and its digest is what is approved.
    :param destination: where it goes, or what is acted upon, as a URI.
    :param parameters: what else is to be approved; the task that acts names the same.

    The others are those of `ApprovedOperator`.
    """

    template_fields: Sequence[str] = (
        "kind",
        "source",
        "destination",
        "parameters",
        "justification",
        "policy",
        "source_conn_id",
        "pii_report",
        "links",
    )
    operator_extra_links = (ApprovalRequestLink(),)
    ui_color = "#fdf3d8"

    def __init__(
        self,
        *,
        kind: str,
        source: str | None = None,
        destination: str | None = None,
        parameters: dict[str, Any] | None = None,
        justification: str = "",
        policy: str | None = None,
        source_conn_id: str | None = None,
        format: str | None = None,  # the word that users know
        columns: Mapping[str, str] | None = None,
        pii_report: dict[str, Any] | str | None = None,
        links: Sequence[str] = (),
        on_denied: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not kind:
            raise ValueError("kind: expected a word for what would happen, found none")
        if source is None and (format is not None or columns is not None or source_conn_id is not None):
            raise ValueError("format, columns and source_conn_id describe a source, and there is none")
        check_on_denied(on_denied)
        self.kind = kind
        self.source = source
        self.destination = destination
        self.parameters = parameters
        self.justification = justification
        self.policy = policy
        self.source_conn_id = source_conn_id
        self.format = format
        self.columns = columns
        self.pii_report = pii_report
        self.links = links
        self.on_denied = on_denied
        self.given_fields = given(kind=kind, source=source, destination=destination, pii_report=pii_report)

    def execute(self, context: Context) -> str:
        with ApprovalsHook.of(context) as hook, refusals_are_final():
            check_fields(self)
            request = ask(
                self,
                context,
                hook,
                action=self._action(),
                evidence=self._evidence(hook),
                policy=self.policy,
                on_denied=self.on_denied,
            )
        return request.id

    def approvals_resume(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Go on after the wait: Airflow calls this with the trigger's event."""
        with ApprovalsHook.of(context) as hook, refusals_are_final():
            return come_back(self, context, hook, event, on_denied=self.on_denied).id

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        from airflow_approvals.lineage.tasks import asked

        return asked(self)

    def _action(self) -> Action:
        from airflow_approvals.core.model import Action

        return Action(
            kind=self.kind,
            source=self.source,
            destination=self.destination,
            parameters=self.parameters or None,
            justification=self.justification,
        )

    def _evidence(self, hook: ApprovalsHook) -> Evidence:
        from airflow_approvals.core.model import Evidence

        datasets: tuple[Snapshot, ...] = ()
        if self.source is not None:
            datasets = (
                hook.snapshot(
                    self.source, conn_id=self.source_conn_id, format=self.format, columns=self.columns
                ),
            )
        dataset = datasets[0] if datasets else None
        pii = evidence_of(self.pii_report, dataset, conn_id=self.source_conn_id)
        return Evidence(datasets=datasets, pii=pii, links=tuple(self.links))
