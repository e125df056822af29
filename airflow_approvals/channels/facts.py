"""The facts of a request as label and text, in the order that every channel shows them in."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_approvals.channels.findings import pii_facts
from airflow_approvals.channels.gated_facts import TASK, gated_facts
from airflow_approvals.channels.reach import reach_of
from airflow_approvals.channels.text import counted, cut, headed
from airflow_approvals.core.model import ApprovalRequest

Fact = tuple[str, str]

_ANSWERS = 10
_COLUMNS = 30
_OF_TASK = 8


def what_of(request: ApprovalRequest) -> str:
    """Return what would happen, in a few words."""
    action = request.action
    return f"{action.kind} to {action.destination}" if action.destination else action.kind


def facts_of(request: ApprovalRequest) -> Iterator[Fact]:
    """Yield what is asked for: what a decision needs, and what never changes while it waits."""
    action = request.action
    yield "Action", action.kind
    yield "Source", action.source or "none"
    yield "Destination", action.destination or "none"
    does = gated_facts((action.parameters or {}).get(TASK))
    for label, words in does[:_OF_TASK]:  # the page has all of them
        yield cut(headed(label), 70), words
    yield from reach_of(request)
    yield from _data(request)
    yield from pii_facts(request.evidence.pii)
    yield "Asked by", ", ".join(request.requesters) or "unknown"
    yield "Why", action.justification or "no reason given"
    if request.origin is not None:
        mapped = f" [{request.origin.map_index}]" if request.origin.map_index >= 0 else ""
        yield "Task", f"{request.origin.dag_id} / {request.origin.task_id} / {request.origin.run_id}{mapped}"
    yield "Policy", request.policy
    yield "Request", f"{request.id} revision {request.revision}, digest {request.action_digest[:16]}"


def outcome_of(request: ApprovalRequest) -> str:
    """Return in a word or two what came of an approval; empty as long as nothing is reported."""
    if request.outcome is None:
        return ""
    done = "published" if request.evidence.datasets else "done"
    return done if request.outcome.published else f"not {done}"


def answers_of(request: ApprovalRequest) -> Iterator[Fact]:
    """Yield what the write did, and who has voted."""
    if request.outcome is not None:
        detail = request.outcome.detail
        yield "Write", f"{outcome_of(request)}{': ' if detail else ''}{detail}"
    for vote in request.votes[-_ANSWERS:]:
        reason = f": {vote.reason}" if vote.reason else ""
        yield vote.verdict.capitalize(), f"{vote.voter} ({', '.join(vote.groups)}), by {vote.channel}{reason}"


def _data(request: ApprovalRequest) -> Iterator[Fact]:
    datasets = request.evidence.datasets
    if not datasets:
        yield "Data", "no dataset was staged"
        return
    names = [column.name for dataset in datasets for column in dataset.columns]
    first = ", ".join(cut(name, 60) for name in names[:_COLUMNS])
    yield "Rows", f"{sum(dataset.rows for dataset in datasets):,}"
    yield "Columns", f"{len(names):,}: {first}{', …' if len(names) > _COLUMNS else ''}"
    yield "Bytes", f"{sum(dataset.size for dataset in datasets):,} in {counted(len(datasets), 'dataset')}"
