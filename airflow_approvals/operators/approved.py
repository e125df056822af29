"""One task that asks, waits, redeems, writes and reports: what export and SQL write have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_approvals.core.errors import (
    ApprovalsError,
    InvalidRequestError,
    LostWriteError,
    ReceiptUsedError,
)
from airflow_approvals.hooks.approvals import ApprovalsHook, dataset_of
from airflow_approvals.lineage.remembered import remember
from airflow_approvals.operators.links import ApprovalRequestLink
from airflow_approvals.operators.rendered import check_fields, given
from airflow_approvals.operators.reports import evidence_of
from airflow_approvals.operators.waiting import (
    ask,
    check_on_denied,
    come_back,
    find_own_redeemed,
    is_held_by,
    is_used_by_earlier_try,
    refusals_are_final,
    use_given,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_approvals.core.model import Action, ApprovalRequest, Evidence
    from airflow_approvals.hooks.approvals import Redeemed, Report


class ApprovedOperator(BaseOperator):
    """Writes one staged dataset, once, after somebody else has approved exactly its bytes and where they go.

    :param source: path or URI of the staged file or folder.
    :param justification: why; approvers see it.
    :param policy: the policy that must apply; the server picks it, another one is an error.
    :param request_id: the request of a gate upstream; without it this task asks by itself.
    :param source_conn_id: Airflow connection of an object store.
    :param format: parquet, csv or jsonl; told by the file name unless given.
    :param columns: expected names and Arrow types; others are refused before anybody is asked.
    :param pii_report: the PII report about the source: what `PiiVerifyOperator` or `PiiScanOperator` returns,
        the path or URI of the JSON file, or the report itself. One about other bytes is refused.
    :param links: addresses that approvers may want to look at.
    :param parameters: anything else that approvers should see; part of what is approved.
    :param on_denied: `fail`, or `skip_downstream`: this task and all tasks downstream are skipped, whatever
        their trigger rules say.
    """

    template_fields: Sequence[str] = (
        "source",
        "justification",
        "policy",
        "request_id",
        "source_conn_id",
        "pii_report",
        "links",
        "parameters",
    )
    operator_extra_links = (ApprovalRequestLink(),)
    ui_color = "#e3f2e1"
    own_parameters: frozenset[str] = frozenset()
    """Words that the operator itself puts into the action's parameters: nobody else may say them."""

    def __init__(
        self,
        *,
        source: str,
        justification: str = "",
        policy: str | None = None,
        request_id: str | None = None,
        source_conn_id: str | None = None,
        format: str | None = None,  # the word that users know
        columns: Mapping[str, str] | None = None,
        pii_report: dict[str, Any] | str | None = None,
        links: Sequence[str] = (),
        parameters: dict[str, Any] | None = None,
        on_denied: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if format not in (None, "parquet", "csv", "jsonl"):
            raise ValueError(f"format: expected parquet, csv or jsonl, found {format!r}")
        check_on_denied(on_denied)
        if isinstance(parameters, dict) and (taken := self.own_parameters & parameters.keys()):
            raise ValueError(f"parameters: {', '.join(sorted(taken))} is an argument of its own")
        self.source = source
        self.justification = justification
        self.policy = policy
        self.request_id = request_id
        self.source_conn_id = source_conn_id
        self.format = format
        self.columns = columns
        self.pii_report = pii_report
        self.links = links
        self.parameters = parameters
        self.on_denied = on_denied
        self.given_fields = given(request_id=request_id, pii_report=pii_report)

    # --- what subclasses say ------------------------------------------------------------------------------

    @abstractmethod
    def action(self) -> Action:
        """Return what would happen, from the rendered fields alone."""

    @abstractmethod
    def act(self, context: Context, used: Redeemed) -> dict[str, Any]:
        """Write exactly what `used` covers, or raise; returns the facts for downstream tasks."""

    @abstractmethod
    def find_written(self, request: ApprovalRequest) -> dict[str, Any] | None:
        """Return the facts of a complete write that an earlier try made for `request`, if it is there.

        Raises `LostWriteError` where that cannot be told and a second write would do harm.
        """

    @abstractmethod
    def lineage(self, *, succeeded: bool) -> Any:
        """Return what Airflow's OpenLineage provider is told at the end of a run."""

    # --- lineage ------------------------------------------------------------------------------------------

    def get_openlineage_facets_on_start(self) -> Any:
        from airflow_approvals.lineage.tasks import reading

        return reading(self.source)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        # An enumeration whose text Airflow's versions write in different ways.
        return self.lineage(succeeded=getattr(task_instance.state, "value", None) == "success")

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        return self.lineage(succeeded=False)

    # --- the way through the gate -------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        with ApprovalsHook.of(context) as hook, refusals_are_final():
            self._check_rendered()
            if context["ti"].try_number > 1:
                written = self._finish_earlier_try(context, hook)
                if written is not None:
                    return written
            if self.request_id is not None:
                request = use_given(self, context, hook, request_id=self.request_id, on_denied=self.on_denied)
            else:
                request = ask(
                    self,
                    context,
                    hook,
                    action=self.action(),
                    evidence=self._evidence(hook),
                    policy=self.policy,
                    on_denied=self.on_denied,
                )
            return self._redeem_and_act(context, hook, request)

    def approvals_resume(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after the wait: Airflow calls this with the trigger's event."""
        with ApprovalsHook.of(context) as hook, refusals_are_final():
            if is_used_by_earlier_try(context, hook, event):
                return self.execute(context)
            request = come_back(self, context, hook, event, on_denied=self.on_denied)
            return self._redeem_and_act(context, hook, request)

    def _check_rendered(self) -> None:
        check_fields(self, "source", "destination", "conn_id", "table")
        if taken := self.own_parameters & (self.parameters or {}).keys():
            raise InvalidRequestError(
                f"task {self.task_id}: parameters: {', '.join(sorted(taken))} is an argument of its own; "
                "take it out of what the task upstream hands over"
            )

    def _redeem_and_act(
        self, context: Context, hook: ApprovalsHook, request: ApprovalRequest
    ) -> dict[str, Any]:
        dataset_of(request)
        used = hook.redeem(request.id, action=self.action())
        remember(self, used.request)
        with hook.reporting(request.id) as report:
            try:
                facts = self.act(context, used)
            except ApprovalsError:
                raise  # it says itself that nothing was written
            except BaseException:
                self._report_what_stands(used.request, report)
                raise
            report.digest = facts["sha256"]
        return {"request_id": request.id, **facts}

    def _report_what_stands(self, request: ApprovalRequest, report: Report) -> None:
        """Have a write reported that was ended from outside after it appeared: it did not fail."""
        try:
            written = self.find_written(request)
        except Exception:
            self.log.exception("Request %s: its destination cannot be asked", request.id)
            return
        if written is not None:
            report.done, report.digest = True, written["sha256"]
            report.detail = "the task was ended from outside, after everything was written"

    def _evidence(self, hook: ApprovalsHook) -> Evidence:
        from airflow_approvals.core.model import Evidence

        self.log.info("Reading %s, to say what would move", self.source)
        dataset = hook.snapshot(
            self.source, conn_id=self.source_conn_id, format=self.format, columns=self.columns
        )
        pii = evidence_of(self.pii_report, dataset, conn_id=self.source_conn_id)
        return Evidence(datasets=(dataset,), pii=pii, links=tuple(self.links))

    def _finish_earlier_try(self, context: Context, hook: ApprovalsHook) -> dict[str, Any] | None:
        """Report what an earlier try could not: a worker killed after its write must not write twice."""
        request = self._find_unreported(context, hook)
        if request is None or is_held_by(request, hook.ti_id) or not self._is_for(request):
            return None
        remember(self, request)
        try:
            written = self.find_written(request)
        except LostWriteError as lost:
            hook.report_outcome(request.id, published=False, detail=str(lost))
            raise
        if written is not None:
            self.log.info("An earlier try has written everything for request %s; reporting it", request.id)
            hook.report_outcome(
                request.id, published=True, digest=written["sha256"], detail="found complete by a later try"
            )
            return {"request_id": request.id, **written}
        if self.request_id is None:
            return None  # asking anew closes it
        hook.report_outcome(request.id, published=False, detail="an earlier try redeemed it and left nothing")
        raise ReceiptUsedError(
            f"request {request.id}: an earlier try of this task used its receipt up and wrote nothing; "
            "clear the gate upstream to ask anew"
        )

    def _find_unreported(self, context: Context, hook: ApprovalsHook) -> ApprovalRequest | None:
        if self.request_id is None:
            return find_own_redeemed(hook, context)
        from airflow_approvals.core.model import State

        request = hook.get_request(self.request_id)
        return request if request.state is State.REDEEMED else None

    def _is_for(self, request: ApprovalRequest) -> bool:
        from airflow_approvals.core.model import digest_of_action

        action = replace(self.action(), justification=request.action.justification)
        return digest_of_action(action, request.evidence) == request.action_digest
