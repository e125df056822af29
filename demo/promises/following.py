"""Runs followed from the outside: until they wait, until they are over, and what they left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_approvals.cli.exits import Exit
from airflow_approvals.core.errors import VoteRefusedError
from airflow_approvals.core.model import ApprovalRequest
from demo.calls import Stage
from demo.embedded import DemoError

COUNTS = "customer_counts"
"""The DAG that most attacks are on: nothing personal is in what it exports, so it asks at once."""
SETTLING = timedelta(seconds=20)
OVER = ("success", "failed", "upstream_failed", "skipped")


def waiting(stage: Stage, dag_id: str, run_id: str, task_id: str = "export") -> ApprovalRequest:
    """Return the request of a task once its task instance really waits."""
    request = stage.wait_for(lambda: stage.request_of(run_id, task_id), f"the request of {dag_id} {run_id}")
    stage.wait_for(
        lambda: stage.task_state(dag_id, run_id, task_id) == "deferred", f"{dag_id} {run_id} to wait"
    )
    return request


def settled(stage: Stage, request: ApprovalRequest) -> ApprovalRequest:
    """Return a request whose wait the scheduler must have noticed by now.

    Airflow 3.3.2 fails a task that is resumed before that (see `triggers.approval`), and on a busy machine it
    can take longer than the trigger's hold-back; nothing is published then, but nothing is shown either.
    """
    noticed = request.opened_at + SETTLING
    stage.wait_for(lambda: datetime.now(UTC) > noticed, f"request {request.id} to settle")
    return request


def answer(stage: Stage, verdict: str, request: ApprovalRequest) -> None:
    """Approve or deny as alice, through the command line."""
    reason = ("--reason", "the partner's contract has ended") if verdict == "deny" else ()
    told = stage.command(verdict, request.id, "--yes", *reason, user="alice")
    if told.returncode != Exit.OK:
        raise VoteRefusedError(f"alice could not {verdict} {request.id}: {told.stderr.strip()}")


def over(stage: Stage, dag_id: str, run_id: str, task_id: str) -> str:
    """Return the state that a task ends in."""

    def state() -> str | None:
        found = stage.task_state(dag_id, run_id, task_id)
        return found if found in OVER else None

    return stage.wait_for(state, f"{dag_id} {run_id} {task_id} to end")


def ended(stage: Stage, run_id: str) -> ApprovalRequest:
    """Return the request of a run's export."""
    return stage.wait_for(lambda: stage.request_of(run_id), f"the request of {run_id}")


def outcome(stage: Stage, dag_id: str, run_id: str) -> ApprovalRequest:
    """Return the request of an export that has ended, and that must have an outcome."""
    state = over(stage, dag_id, run_id, "export")
    request = ended(stage, run_id)
    if request.outcome is None:
        raise DemoError(f"{dag_id} {run_id} is {state} without an outcome; see {stage.places.logs}")
    return request


def fresh(stage: Stage, request: ApprovalRequest) -> ApprovalRequest:
    """Return the request as it is now."""
    with stage.client("alice") as client:
        return client.get_request(request.id).request


def leftovers(published: Path) -> list[Path]:
    """Return what is at a destination, or next to it under a temporary name."""
    return [path for path in published.parent.iterdir() if published.stem in path.name]
