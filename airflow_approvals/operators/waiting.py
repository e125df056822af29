"""From asking to going on: open the request, free the worker slot while people think, come back, or stop.

Every operator of this package and every gated task goes through these functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import (
    DigestMismatchError,
    InvalidRequestError,
    LostWriteError,
    NoPolicyError,
    NotAllowedError,
    NotApprovedError,
    PolicyDeniesError,
    ReceiptGoneError,
    ReceiptInvalidError,
    ReceiptUsedError,
    RequestNotFoundError,
)
from airflow_approvals.lineage.remembered import remember
from airflow_approvals.operators.names import REQUEST_ID_KEY, RESUME

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_approvals.core.model import Action, ApprovalRequest, Evidence
    from airflow_approvals.hooks.approvals import ApprovalsHook

ON_DENIED = ("fail", "skip_downstream")
MOST_HELD = 500
"""Of how many redeemed requests of one task instance its own is looked for: the most that one call lists."""

FINAL = (
    DigestMismatchError,
    InvalidRequestError,
    LostWriteError,
    NoPolicyError,
    NotAllowedError,
    NotApprovedError,
    PolicyDeniesError,
    ReceiptGoneError,
    ReceiptInvalidError,
    ReceiptUsedError,
    RequestNotFoundError,
)
"""Refusals that an automatic retry would only repeat, or turn into a second prompt."""


def check_on_denied(on_denied: str) -> None:
    """Raise `ValueError` for anything but the two ways to go on after a no."""
    if on_denied not in ON_DENIED:
        raise ValueError(f"on_denied: expected one of {', '.join(ON_DENIED)}, found {on_denied!r}")


@contextmanager
def refusals_are_final() -> Iterator[None]:
    """Fail the task without retries where the service, or the receipt, says no."""
    from airflow.providers.common.compat.sdk import AirflowFailException

    try:
        yield
    except FINAL as refusal:
        raise AirflowFailException(str(refusal)) from refusal


def ask(
    operator: BaseOperator,
    context: Context,
    hook: ApprovalsHook,
    *,
    action: Action,
    evidence: Evidence,
    policy: str | None,
    on_denied: str,
) -> ApprovalRequest:
    """Open the request of this task and return it once it is approved; until then, defer."""
    request = hook.open_request(action, evidence, policy=policy)
    context["ti"].xcom_push(key=REQUEST_ID_KEY, value=request.id)
    return go_on(operator, context, request, hook=hook, on_denied=on_denied)


def use_given(
    operator: BaseOperator, context: Context, hook: ApprovalsHook, *, request_id: str, on_denied: str
) -> ApprovalRequest:
    """Return the request that a gate upstream opened once it is approved; until then, defer."""
    request = hook.get_request(request_id)
    context["ti"].xcom_push(key=REQUEST_ID_KEY, value=request.id)
    return go_on(operator, context, request, hook=hook, on_denied=on_denied)


def come_back(
    operator: BaseOperator,
    context: Context,
    hook: ApprovalsHook,
    event: dict[str, Any] | None,
    *,
    on_denied: str,
) -> ApprovalRequest:
    """Return the request that this task waited for; what the event says of it is looked up again."""
    request_id = (event or {}).get("request_id")
    if not isinstance(request_id, str):
        raise InvalidRequestError(
            f"task {operator.task_id}: it was resumed without the id of a request; clear it to ask anew"
        )
    request = hook.get_request(request_id)
    return go_on(operator, context, request, hook=hook, on_denied=on_denied)


def is_used_by_earlier_try(context: Context, hook: ApprovalsHook, event: dict[str, Any] | None) -> bool:
    """Return whether a retry is resumed with what an earlier try has used up: it has to begin anew.

    Airflow 3.1.0 resumes a retry where the try before it was resumed; later ones forget the defer.
    """
    request_id = (event or {}).get("request_id")
    if context["ti"].try_number == 1 or not isinstance(request_id, str):
        return False
    return hook.get_request(request_id).redeemed_by not in (None, hook.ti_id)


def go_on(
    operator: BaseOperator,
    context: Context,
    request: ApprovalRequest,
    *,
    hook: ApprovalsHook,
    on_denied: str,
) -> ApprovalRequest:
    """Return an approved request, defer on a pending one, stop on any other.

    A redeemed one goes on to the redeem, which knows whose it is.
    """
    from airflow_approvals.core.model import State

    remember(operator, request)
    if request.state is not State.PENDING:
        tell(operator, request)
    if request.state in (State.APPROVED, State.REDEEMED):
        return request
    if request.state is State.PENDING:
        from airflow_approvals.triggers.approval import ApprovalTrigger

        trigger = ApprovalTrigger(
            request_id=request.id,
            base_url=hook.settings.service_url,
            deferred_at=datetime.now(UTC).timestamp(),
        )
        operator.defer(trigger=trigger, method_name=RESUME)
    raise end_of(context, request, on_denied=on_denied)


def tell(operator: BaseOperator, request: ApprovalRequest) -> None:
    """Write into the task's log what was decided, by whom and why: all that its reader has to know.

    People's words stand here and in no exception: Airflow's lineage tells exceptions to others.
    """
    operator.log.info("Request %s is %s: %s", request.id, request.state, _plain(request.decided_because))
    for vote in request.votes:
        reason = f': "{_plain(vote.reason)}"' if vote.reason else ""
        operator.log.info("%s: %s, from %s%s", vote.voter, vote.verdict, vote.channel, reason)


def _plain(words: str) -> str:
    """Return somebody's words on one line without what could pass for another line, or repaint this one."""
    return "".join(char if char.isprintable() else " " for char in words)


def end_of(context: Context, request: ApprovalRequest, *, on_denied: str) -> Exception:
    """Return how the task ends: failed without retries, or skipped like everything downstream of it."""
    from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

    because = f": {request.decided_because}" if request.decided_because else ""
    message = (
        f"request {request.id} is {request.state}{because}; nothing was written. Clear the task to ask again"
    )
    if on_denied == "skip_downstream" and request.outcome is None:
        _skip_all_downstream(context)
        return AirflowSkipException(message)
    return AirflowFailException(message)


def request_id_of(context: Context) -> str | None:
    """Return the id of the request that this task instance asked with, if it did."""
    ti = context["ti"]
    found = ti.xcom_pull(task_ids=ti.task_id, key=REQUEST_ID_KEY, map_indexes=ti.map_index)
    return found if isinstance(found, str) else None


def is_held_by(request: ApprovalRequest, ti_id: str) -> bool:
    """Return whether this very task instance has redeemed the request and not yet reported."""
    from airflow_approvals.core.model import State

    return request.state is State.REDEEMED and request.redeemed_by == ti_id


def find_own_redeemed(hook: ApprovalsHook, context: Context) -> ApprovalRequest | None:
    """Return the redeemed request of this task, if any: of this try, or of one that never reported."""
    from airflow_approvals.core.model import State

    ti = context["ti"]
    found = hook.client.list_requests(
        status=[State.REDEEMED],
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        limit=MOST_HELD,
    )
    return next((request for request in found.requests if not request.gate), None)


def _skip_all_downstream(context: Context) -> None:
    """Mark every task downstream as skipped, however far: one with rule `all_done` would run otherwise.

    Teardowns are left to their rule, as Airflow's own skips do: what a setup has made has to go all the same.
    Airflow's `SkipMixin` skips what it is told and then marks this task successful, so its message is sent
    here. Of a mapped task only this index is skipped: others may have been approved, and trigger rules
    decide.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import SkipDownstreamTasks

    ti = context["ti"]
    relatives = ti.task.get_flat_relatives(upstream=False)
    downstream = sorted({task.task_id for task in relatives if not task.is_teardown})
    if downstream and (ti.map_index is None or ti.map_index < 0):
        task_runner.SUPERVISOR_COMMS.send(msg=SkipDownstreamTasks(tasks=list(downstream)))
