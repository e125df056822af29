"""The SQL write: exactly the approved rows arrive in the table in one transaction, or none do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import DestinationError, LostWriteError, ReceiptUsedError
from airflow_approvals.operators.approved import ApprovedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_approvals.core.model import Action, ApprovalRequest, Evidence
    from airflow_approvals.hooks.approvals import ApprovalsHook, Redeemed
    from airflow_approvals.staging.sql import Written

MODES = ("append", "replace")


class ApprovedSqlWriteOperator(ApprovedOperator):
    """Request, wait, redeem and write in one task: loads a staged dataset into a table (PostgreSQL, SQLite).

    The destination that policies match is `sql://<conn_id>/<table>`. Returns `request_id`, `destination`,
    `sha256`, `size` and `rows`. One row for each request goes into the table `approvals_write` beside the
    target, in the same transaction: a later try knows from it whether a worker was lost before or after
    its COMMIT. It is created where it is missing; the connection needs SELECT and INSERT on it. Another
    database is refused before anybody is asked; a protected connection can be looked at only afterwards.

    :param conn_id: Airflow connection of the database.
    :param table: `name` or `schema.name`; it is there already.
    :param mode: `append`, or `replace`: the rows that are there go, in the same transaction.
    :param column_names: names of the table by names of the source, where they differ.

    The others (`source`, `justification`, `policy`, `pii_report`, `on_denied`, ...) are those of
    `ApprovedOperator`.
    """

    template_fields: Sequence[str] = (*ApprovedOperator.template_fields, "conn_id", "table")
    own_parameters = frozenset({"mode", "column_names"})

    def __init__(
        self,
        *,
        conn_id: str,
        table: str,
        mode: str = "append",
        column_names: Mapping[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(parameters=parameters, **kwargs)
        if mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, found {mode!r}")
        self.conn_id = conn_id
        self.table = table
        self.mode = mode
        self.column_names = column_names

    @property
    def destination(self) -> str:
        return f"sql://{self.conn_id}/{self.table}"

    def action(self) -> Action:
        from airflow_approvals.core.model import Action

        parameters = {**(self.parameters or {}), "mode": self.mode}
        if self.column_names:
            parameters["column_names"] = dict(self.column_names)
        return Action(
            kind="write",
            source=self.source,
            destination=self.destination,
            parameters=parameters,
            justification=self.justification,
        )

    def _evidence(self, hook: ApprovalsHook) -> Evidence:
        self._check_database(hook)
        return super()._evidence(hook)

    def act(self, context: Context, used: Redeemed) -> dict[str, Any]:
        from airflow.sdk import BaseHook

        from airflow_approvals.staging.sql import write_table

        try:
            written = write_table(
                self.source,
                expected=used.snapshot,
                hook=BaseHook.get_hook(self.conn_id),
                table=self.table,
                mode="replace" if self.mode == "replace" else "append",
                columns=self.column_names,
                source_conn_id=self.source_conn_id,
                request_id=used.request.id,
            )
        except (LostWriteError, ReceiptUsedError) as unsure:
            written = self._look_again(used.request, unsure)
        self.log.info("Wrote %d rows to %s (sha256 %s)", written.rows, self.destination, written.sha256)
        return self._facts(used.request, written)

    def lineage(self, *, succeeded: bool) -> Any:
        from airflow_approvals.lineage.tasks import table_of, written

        return written(
            self,
            table_of(self.conn_id, self.table),
            succeeded=succeeded,
            change="OVERWRITE" if self.mode == "replace" else None,
            renamed=self.column_names,
        )

    def find_written(self, request: ApprovalRequest) -> dict[str, Any] | None:
        written = self._settle(request)
        return self._facts(request, written) if written else None

    def _look_again(self, request: ApprovalRequest, unsure: Exception) -> Written:
        """Return what was written all the same: failed must not be reported of rows that are there."""
        try:
            written = self._settle(request)
        except Exception:
            self.log.exception("%s cannot be asked either", self.conn_id)
            raise unsure from None
        if written is not None:
            return written
        if isinstance(unsure, ReceiptUsedError):
            raise unsure
        raise DestinationError(
            f"request {request.id}: the connection to {self.conn_id} broke at COMMIT, and nothing was "
            "written; run this task again"
        ) from unsure

    def _check_database(self, hook: ApprovalsHook) -> None:
        """Refuse another database before anybody is asked, where its connection may be read by then."""
        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowRuntimeError

        from airflow_approvals.staging.sql import check_hook

        if hook.client.is_protected(self.conn_id):
            return
        try:
            database = BaseHook.get_hook(self.conn_id)
        except (PermissionError, AirflowRuntimeError) as sealed:  # Airflow 3.3, 3.1; the policy says not
            self.log.info("%s is not read before the approval: %s", self.conn_id, type(sealed).__name__)
            return
        check_hook(database)

    def _settle(self, request: ApprovalRequest) -> Written | None:
        from airflow.sdk import BaseHook

        from airflow_approvals.staging.sql import settle_write

        return settle_write(hook=BaseHook.get_hook(self.conn_id), table=self.table, request_id=request.id)

    def _facts(self, request: ApprovalRequest, written: Written) -> dict[str, Any]:
        return {
            "destination": self.destination,
            "sha256": written.sha256,
            "size": request.evidence.datasets[0].size,
            "rows": written.rows,
        }
