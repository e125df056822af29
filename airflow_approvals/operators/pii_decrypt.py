"""The way back from masking: tokens are opened only after somebody else has approved exactly that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_approvals.operators.approved import ApprovedOperator
from airflow_approvals.operators.pii_keys import key_ring

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_approvals.core.model import Action, ApprovalRequest
    from airflow_approvals.hooks.approvals import Redeemed


class PiiDecryptOperator(ApprovedOperator):
    """Request, wait, redeem and decrypt in one task: opens the tokens that masking by `encrypt` has left.

    The action's kind is `decrypt`, so that a policy can say who may approve it. Columns and domain are part
    of what is approved. Returns `request_id`, `destination`, `sha256` (of the source), and of what it made
    `opened_sha256`, `size` and `rows`.

    :param destination: local path or `file://` URI of the dataset with the values, in the source's format.
    :param token_columns: the columns whose tokens are opened.
    :param domain: whose key they were made under.
    :param keys_conn_id: Airflow connection with the keys, see `PiiMaskOperator`.
    :param key_file: or the file with them.
    :param overwrite: replace what is there; otherwise it is kept, and the task fails.

    The others (`source`, `justification`, `policy`, `on_denied`, ...) are those of `ApprovedOperator`.
    """

    template_fields: Sequence[str] = (
        *ApprovedOperator.template_fields,
        "destination",
        "token_columns",
        "domain",
        "keys_conn_id",
        "key_file",
    )
    own_parameters = frozenset({"columns", "domain", "overwrite"})

    def __init__(
        self,
        *,
        destination: str,
        token_columns: Sequence[str],
        domain: str = "default",
        keys_conn_id: str | None = None,
        key_file: str | None = None,
        overwrite: bool = False,
        parameters: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(parameters=parameters, **kwargs)
        self.destination = destination
        self.token_columns = token_columns
        self.domain = domain
        self.keys_conn_id = keys_conn_id
        self.key_file = key_file
        self.overwrite = overwrite

    def action(self) -> Action:
        from airflow_approvals.core.model import Action

        own = {"columns": list(self.token_columns), "domain": self.domain}
        return Action(
            kind="decrypt",
            source=self.source,
            destination=self.destination,
            parameters={
                **(self.parameters or {}),
                **own,
                **({"overwrite": True} if self.overwrite else {}),
            },
            justification=self.justification,
        )

    def act(self, context: Context, used: Redeemed) -> dict[str, Any]:
        from airflow_approvals.pii.masking.decrypting import decrypt_dataset

        made = decrypt_dataset(
            self.source,
            self.destination,
            key_ring(conn_id=self.keys_conn_id, key_file=self.key_file),
            columns=list(self.token_columns),
            domain=self.domain,
            expected=used.snapshot,
            source_conn_id=self.source_conn_id,
            format=self.format,
            overwrite=self.overwrite,
        )
        self.log.info("Opened the tokens of %d columns into %s", len(self.token_columns), self.destination)
        return {
            "destination": self.destination,
            # The outcome on the record is about what was approved: the dataset with the tokens in it.
            "sha256": used.snapshot.sha256,
            "opened_sha256": made.sha256,
            "size": made.size,
            "rows": made.rows,
        }

    def lineage(self, *, succeeded: bool) -> Any:
        """Return what was read and written, and the approval; written are other bytes than were approved."""
        from airflow_approvals.lineage.names import dataset_of
        from airflow_approvals.lineage.tasks import decrypted

        return decrypted(
            self,
            dataset_of(self.destination),
            columns=self.token_columns,
            overwrite=self.overwrite,
            succeeded=succeeded,
        )

    def find_written(self, request: ApprovalRequest) -> dict[str, Any] | None:
        """Return None: what another try wrote cannot be told from its tokens; a new one asks anew."""
        return None
