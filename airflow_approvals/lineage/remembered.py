"""What a running operator keeps for the event at its end: its approval, or what it found.

The provider asks a fork of the task's process, after the operator is done: what is not on the operator by
then is not known to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_approvals.core.model import ApprovalRequest

_REQUEST = "_approvals_request"
_FACTS = "_approvals_facts"


def remember(operator: Any, request: ApprovalRequest) -> None:
    """Keep the request with the operator, in this process."""
    vars(operator)[_REQUEST] = request


def remembered(operator: Any) -> ApprovalRequest | None:
    """Return the request that this operator has last seen, if any."""
    found: ApprovalRequest | None = getattr(operator, _REQUEST, None)
    return found


def keep(operator: Any, **facts: Any) -> None:
    """Keep what the operator found, beside what is kept already."""
    vars(operator).setdefault(_FACTS, {}).update(facts)


def kept(operator: Any) -> dict[str, Any]:
    """Return what the operator found."""
    found: dict[str, Any] = getattr(operator, _FACTS, {})
    return found
