"""What an approved action may be lent: the connections and variables that approvers saw it name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from airflow_approvals.core.model import Action, ApprovalRequest, State

Kind = Literal["connection", "variable"]
"""What can be sealed."""


def names_in(action: Action, kind: Kind) -> frozenset[str]:
    """Return the connections (variables) that `action` names, in every way that operators have for it.

    A task gated by `gated` or by a rule lists them under `parameters.task`; other actions by parameters whose
    name ends in `conn_id`, as `sql://CONN_ID/table`, or as `scheme://CONN_ID@bucket/key`.
    """
    parameters = action.parameters or {}
    task = parameters.get("task")
    named = set(_texts(task.get(f"{kind}s") if isinstance(task, Mapping) else None))
    named.update(_texts(parameters.get(f"{kind}s")))
    if kind == "connection":
        named.update(
            value
            for name, value in parameters.items()
            if name.endswith("conn_id") and isinstance(value, str) and value
        )
        named.update(filter(None, (_connection_in(uri) for uri in (action.source, action.destination))))
    return frozenset(named)


def is_lent(request: ApprovalRequest, kind: Kind, name: str, *, ti_id: str) -> bool:
    """Return whether this task instance has redeemed `request`, not yet reported, and it names the thing."""
    return (
        request.state is State.REDEEMED
        and request.redeemed_by == ti_id
        and name in names_in(request.action, kind)
    )


def _connection_in(uri: str | None) -> str | None:
    scheme, mark, rest = (uri or "").partition("://")
    if not mark:
        return None
    authority = rest.partition("/")[0]
    user, at, _ = authority.rpartition("@")
    if at:
        return user or None
    return authority if scheme.lower() == "sql" else None


def _texts(value: object) -> Iterable[str]:
    return (each for each in value if isinstance(each, str)) if isinstance(value, list | tuple) else ()
