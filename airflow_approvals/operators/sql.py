"""The SQL write: exactly the approved rows arrive in the table in one transaction, or none do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import LostWriteError
from airflow_approvals.operators.approved import ApprovedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_approvals.core.model import Action, ApprovalRequest
    from airflow_approvals.hooks.approvals import Redeemed

MODES = ("append", "replace")


class ApprovedSqlWriteOperator(ApprovedOperator):
    """Request, wait, redeem and write in one task: loads a staged dataset into a table (PostgreSQL, SQLite).

    The destination that policies match is `sql://<conn_id>/<table>`. Returns `request_id`, `destination`,
    `sha256`, `size` and `rows`.

    :param conn_id: Airflow connection of the database.
    :param table: `name` or `schema.name`; it is there already.
    :param mode: `append`, or `replace`: the rows that are there go, in the same transaction.
    :param column_names: names of the table by names of the source, where they differ.
    """

    template_fields: Sequence[str] = (*ApprovedOperator.template_fields, "conn_id", "table")

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
        if isinstance(parameters, dict) and (taken := {"mode", "column_names"} & parameters.keys()):
            raise ValueError(f"parameters: {', '.join(sorted(taken))} is an argument of its own")
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

    def act(self, context: Context, used: Redeemed) -> dict[str, Any]:
        from airflow.sdk import BaseHook

        from airflow_approvals.staging.sql import write_table

        written = write_table(
            self.source,
            expected=used.snapshot,
            hook=BaseHook.get_hook(self.conn_id),
            table=self.table,
            mode="replace" if self.mode == "replace" else "append",
            columns=self.column_names,
            source_conn_id=self.source_conn_id,
        )
        self.log.info("Wrote %d rows to %s (sha256 %s)", written.rows, self.destination, written.sha256)
        return {
            "destination": self.destination,
            "sha256": written.sha256,
            "size": used.snapshot.size,
            "rows": written.rows,
        }

    def find_written(self, request: ApprovalRequest) -> dict[str, Any] | None:
        if self.mode == "replace":
            return None  # writing the same rows again changes nothing, and is asked for again
        raise LostWriteError(
            f"request {request.id}: an earlier try redeemed it and was lost before it reported, so nobody "
            f"knows whether its {request.evidence.datasets[0].rows} rows are in {self.destination}; look "
            "there, then clear this task to ask for what is missing"
        )
