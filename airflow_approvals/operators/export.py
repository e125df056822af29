"""The export: exactly the approved bytes appear at the destination, or nothing does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_approvals.operators.approved import ApprovedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_approvals.core.model import Action, ApprovalRequest, Evidence
    from airflow_approvals.hooks.approvals import ApprovalsHook, Redeemed


class ApprovedExportOperator(ApprovedOperator):
    """Request, wait, redeem and publish in one task: copies a staged file or folder to `destination`.

    The bytes are hashed while they are copied and appear at once, complete. Returns `request_id`,
    `destination`, `sha256`, `size` and `rows`. A gate upstream whose request is to be used (`request_id`)
    names the same source, destination and parameters, `overwrite` and `destination_conn_id` included where
    they are set here.

    A retry goes on with the approval that is there. Once a try has used it up and failed (a destination that
    cannot be written), the next one asks anew: an approval is for one use.

    :param destination: path or URI that appears.
    :param destination_conn_id: Airflow connection of an object store.
    :param overwrite: replace what is there; otherwise it is kept, and the export fails.

    The others (`source`, `justification`, `policy`, `pii_report`, `on_denied`, ...) are those of
    `ApprovedOperator`.
    """

    template_fields: Sequence[str] = (*ApprovedOperator.template_fields, "destination", "destination_conn_id")
    own_parameters = frozenset({"overwrite", "destination_conn_id"})

    def __init__(
        self,
        *,
        destination: str,
        destination_conn_id: str | None = None,
        overwrite: bool = False,
        parameters: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(parameters=parameters, **kwargs)
        self.destination = destination
        self.destination_conn_id = destination_conn_id
        self.overwrite = overwrite

    def action(self) -> Action:
        from airflow_approvals.core.model import Action

        parameters = dict(self.parameters or {})
        if self.overwrite:
            parameters["overwrite"] = True
        if self.destination_conn_id is not None:
            parameters["destination_conn_id"] = self.destination_conn_id
        return Action(
            kind="export",
            source=self.source,
            destination=self.destination,
            parameters=parameters or None,
            justification=self.justification,
        )

    def _evidence(self, hook: ApprovalsHook) -> Evidence:
        from airflow_approvals.staging.publish import check_destination

        check_destination(self.destination)
        return super()._evidence(hook)

    def act(self, context: Context, used: Redeemed) -> dict[str, Any]:
        from airflow_approvals.staging.publish import publish

        published = publish(
            self.source,
            self.destination,
            expected=used.snapshot,
            source_conn_id=self.source_conn_id,
            destination_conn_id=self.destination_conn_id,
            overwrite=self.overwrite,
        )
        self.log.info(
            "Published %s (%d bytes, sha256 %s)", self.destination, published.size, published.sha256
        )
        return self._facts(used.request)

    def lineage(self, *, succeeded: bool) -> Any:
        from airflow_approvals.lineage.names import dataset_of
        from airflow_approvals.lineage.tasks import written

        change = "OVERWRITE" if self.overwrite else "CREATE"
        return written(self, dataset_of(self.destination), succeeded=succeeded, change=change)

    def find_written(self, request: ApprovalRequest) -> dict[str, Any] | None:
        from airflow_approvals.staging.publish import verify_published

        if len(request.evidence.datasets) != 1:
            return None
        approved = request.evidence.datasets[0]
        if not verify_published(self.destination, approved, conn_id=self.destination_conn_id):
            return None
        return self._facts(request)

    def _facts(self, request: ApprovalRequest) -> dict[str, Any]:
        approved = request.evidence.datasets[0]
        return {
            "destination": self.destination,
            "sha256": approved.sha256,
            "size": approved.size,
            "rows": approved.rows,
        }
