"""The gate at the write: whatever is tried around it, nothing appears that was not approved."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from airflow_approvals.cli.exits import Exit
from airflow_approvals.core.errors import ApprovalsError, NotAuthenticatedError
from airflow_approvals.core.model import ApprovalRequest, State
from demo.calls import Stage
from demo.promises.board import Promises, Subject
from demo.promises.following import COUNTS, answer, ended, fresh, leftovers, outcome, over, settled, waiting
from demo.screen import console, show

MARK_SUCCESS, SECOND_REDEEM = "attack_mark_success", "attack_second_redeem"


def start(stage: Stage) -> None:
    """Start the runs that are attacked."""
    for batch in ("changed", "approved", "denied", "marked"):
        stage.trigger(COUNTS, batch, {"batch": batch})
    stage.trigger(MARK_SUCCESS, "around")
    stage.trigger(SECOND_REDEEM, "twice")


def attack(stage: Stage, promises: Promises) -> None:
    """Try to vote without the right to, and to publish what was not approved."""
    changed_at = _approve_and_change(stage, "changed")
    approved = waiting(stage, COUNTS, "approved")
    show(stage.command("list", user="alice").stdout)
    console.print()
    _self_approval(stage, promises, approved)
    _unknown_voter(stage, promises, approved)
    answer(stage, "approve", settled(stage, approved))
    answer(stage, "approve", settled(stage, waiting(stage, SECOND_REDEEM, "twice")))
    answer(stage, "deny", settled(stage, waiting(stage, COUNTS, "denied")))
    _changed_after_approval(stage, promises, changed_at)
    _mark_success(stage, promises)
    _denied(stage, promises)
    _second_redeem(stage, promises)
    outcome(stage, COUNTS, "approved")


SUBJECT = Subject(
    promises=(
        "self_approval_refused",
        "unknown_voter_refused",
        "changed_after_approval_blocked",
        "mark_success_bypass_blocked",
        "second_redeem_refused",
        "denied_export_absent",
    ),
    start=start,
    attack=attack,
)


# --- votes --------------------------------------------------------------------------------------------------


def _self_approval(stage: Stage, promises: Promises, request: ApprovalRequest) -> None:
    told = stage.command("approve", request.id, "--yes", user="engineer")
    still = fresh(stage, request)
    promises.observe(
        "self_approval_refused",
        told.returncode == Exit.NOT_ALLOWED and still.state is State.PENDING and not still.votes,
        told.stderr.strip(),
    )


def _unknown_voter(stage: Stage, promises: Promises, request: ApprovalRequest) -> None:
    """Somebody whom Airflow knows and the policy does not, and somebody whom nobody knows."""
    told = stage.command("approve", request.id, "--yes", user="mallory")
    forged = _refusal(lambda: _vote_with(stage, "a.forged.token", request))
    outsider = _refusal(lambda: _vote_with(stage, stage.token("mallory"), request))
    still = fresh(stage, request)
    promises.observe(
        "unknown_voter_refused",
        told.returncode != Exit.OK
        and isinstance(outsider, ApprovalsError)
        and isinstance(forged, NotAuthenticatedError)
        and still.state is State.PENDING
        and not still.votes,
        f"{outsider}; a forged token: {forged}",
    )


def _vote_with(stage: Stage, token: str, request: ApprovalRequest) -> None:
    from airflow_approvals.client.api import ApprovalsClient
    from airflow_approvals.client.tokens import login_token

    with ApprovalsClient(stage.airflow.url, login_token(token)) as client:
        client.vote(request.id, "approve", revision=request.revision)


def _refusal(attempt: Callable[[], None]) -> ApprovalsError | None:
    try:
        attempt()
    except ApprovalsError as refusal:
        return refusal
    return None


# --- writes -------------------------------------------------------------------------------------------------


def _changed_after_approval(stage: Stage, promises: Promises, changed_at: datetime) -> None:
    """See what came of a file that was changed after its approval, before the export redeemed it.

    Only a change that came before the redeem is an attack: where a busy machine was too late for that, or
    lost the wait, another file is tried, up to three.
    """
    batch = "changed"
    for again in ("changed-2", "changed-3", None):
        state = over(stage, COUNTS, batch, "export")
        request = ended(stage, batch)
        in_time = request.redeemed_at is not None and changed_at < request.redeemed_at
        if in_time or again is None:
            break
        batch = again
        stage.trigger(COUNTS, batch, {"batch": batch})
        changed_at = _approve_and_change(stage, batch)
    published = stage.places.published(batch)
    promises.forbid("changed_after_approval_blocked", published)
    promises.observe(
        "changed_after_approval_blocked",
        in_time and state == "failed" and request.state is State.FAILED and not leftovers(published),
        f"task {state}, request {request.state}: "
        f"{request.outcome.detail if request.outcome else 'no outcome'}"
        if in_time
        else "never tried: each change came after the export had redeemed its receipt",
    )


def _approve_and_change(stage: Stage, batch: str) -> datetime:
    """Approve, then swap a value in the staged file; return when that was done.

    The trigger holds a decision back until the wait is 5 seconds old, and only then is the export started.
    The vote goes straight to the API: a command would take as long to end.
    """
    request = waiting(stage, COUNTS, batch)
    staged = stage.places.staged(batch)
    content = bytearray(staged.read_bytes())
    content[len(content) // 2] ^= 1
    with stage.client("alice") as client:
        client.vote(request.id, "approve", revision=request.revision)
    staged.write_bytes(content)
    return datetime.now(UTC)


def _mark_success(stage: Stage, promises: Promises) -> None:
    """Mark the waiting export successful, and mark a gate successful in front of writes."""
    marked = waiting(stage, COUNTS, "marked")
    waiting(stage, MARK_SUCCESS, "around", "gate")
    stage.mark_success(COUNTS, "marked", "export")
    stage.mark_success(MARK_SUCCESS, "around", "gate")
    write = over(stage, MARK_SUCCESS, "around", "write")
    anyway = over(stage, MARK_SUCCESS, "around", "redeem_anyway")
    refusal = stage.returned(MARK_SUCCESS, "around", "redeem_anyway") if anyway == "success" else anyway
    # Even a yes that comes now must not publish anything: the task is gone.
    late = stage.command("approve", marked.id, "--yes", user="bob")
    state = stage.task_state(COUNTS, "marked", "export")
    destinations = (stage.places.published("marked"), stage.places.outbox / "around-the-gate.csv")
    absent = not any(map(leftovers, destinations))
    promises.forbid("mark_success_bypass_blocked", *destinations)
    promises.observe(
        "mark_success_bypass_blocked",
        state == "success" and write == "failed" and refusal == "not-approved" and absent,
        f"export marked {state} and approved afterwards (exit {late.returncode}): nothing published; "
        f"behind a gate marked success: write {write}, its own redeem refused as {refusal}",
    )


def _denied(stage: Stage, promises: Promises) -> None:
    state = over(stage, COUNTS, "denied", "export")
    request = stage.request_of("denied")
    published = stage.places.published("denied")
    promises.forbid("denied_export_absent", published)
    promises.observe(
        "denied_export_absent",
        state == "failed"
        and request is not None
        and request.state is State.DENIED
        and not leftovers(published),
        f"task {state}, nothing at the destination",
    )


def _second_redeem(stage: Stage, promises: Promises) -> None:
    first = over(stage, SECOND_REDEEM, "twice", "export")
    again = over(stage, SECOND_REDEEM, "twice", "redeem_again")
    refusal = stage.returned(SECOND_REDEEM, "twice", "redeem_again") if again == "success" else again
    once, twice = stage.places.outbox / "once.csv", stage.places.outbox / "twice.csv"
    promises.forbid("second_redeem_refused", twice)
    promises.observe(
        "second_redeem_refused",
        first == "success" and once.exists() and refusal == "receipt-used" and not leftovers(twice),
        f"the first use published, the second was refused as {refusal}",
    )
