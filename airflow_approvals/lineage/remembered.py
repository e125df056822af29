"""Which approval a running operator asked for or acts by, for the event at its end.

The provider asks a fork of the task's process, after the operator is done: what is not on the operator by
then is not known to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_approvals.core.model import ApprovalRequest

_NAME = "_approvals_request"


def remember(operator: Any, request: ApprovalRequest) -> None:
    """Keep the request with the operator, in this process."""
    vars(operator)[_NAME] = request


def remembered(operator: Any) -> ApprovalRequest | None:
    """Return the request that this operator has last seen, if any."""
    found: ApprovalRequest | None = getattr(operator, _NAME, None)
    return found
