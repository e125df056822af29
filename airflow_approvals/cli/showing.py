"""One request, laid out for the person who decides on it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from airflow_approvals.channels.facts import outcome_of
from airflow_approvals.channels.findings import pii_facts
from airflow_approvals.channels.gated_facts import TASK, gated_facts, in_words
from airflow_approvals.channels.reach import review_of
from airflow_approvals.cli.output import moment, size_words, stdout, visible
from airflow_approvals.client.api import RequestDetail
from airflow_approvals.core.break_glass import is_emergency
from airflow_approvals.core.model import ApprovalRequest, Snapshot, State, to_json

STATE_STYLES: dict[State, str] = {
    State.PENDING: "yellow",
    State.APPROVED: "green",
    State.REDEEMED: "green",
    State.COMPLETED: "green",
    State.DENIED: "red",
    State.FAILED: "red",
    State.EXPIRED: "magenta",
    State.CANCELLED: "magenta",
    State.SUPERSEDED: "magenta",
    State.REVOKED: "magenta",
    State.LAPSED: "magenta",
}

MAX_COLUMNS = 12
"""Columns of a dataset that are named; wider ones say how many more there are."""

Line = tuple[str, str]


def request_json(detail: RequestDetail) -> dict[str, Any]:
    """Return what `--output json` prints: the request, its progress, its receipt bundle."""
    body: dict[str, Any] = to_json(detail.request)
    return {**body, "progress": detail.progress, "receipt": detail.receipt}


def print_request(detail: RequestDetail, *, now: datetime) -> None:
    """Write everything an approver needs: what, where to, which data, who asks, how far it is."""
    request = detail.request
    console = stdout()
    heading = Text(f"Request {request.id}", style="bold")
    console.print(heading.append("  ").append(request.state.value, style=STATE_STYLES[request.state]))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in _lines(detail, now):
        # A label may name a parameter: on one line, or it could pass for another row.
        grid.add_row(Text(visible(" ".join(label.split()))), Text(visible(text)))
    console.print(grid)


def _lines(detail: RequestDetail, now: datetime) -> Iterator[Line]:
    request = detail.request
    yield from _action_lines(request)
    for dataset in request.evidence.datasets:
        yield from _dataset_lines(dataset)
    yield from _evidence_lines(request)
    yield from _standing_lines(request)
    yield from _asker_lines(request, now)
    yield from _progress_lines(detail)
    yield from _answer_lines(request, now)
    yield from _end_lines(detail, now)


def _action_lines(request: ApprovalRequest) -> Iterator[Line]:
    action = request.action
    yield "what", action.kind
    if action.source:
        yield "from", action.source
    if action.destination:
        yield "to", action.destination
    for name, value in (action.parameters or {}).items():
        does = gated_facts(value) if name == TASK else ()
        for label, words in does or ((name, in_words(value)),):
            yield f"· {label}", words
    yield "why", action.justification or "no reason was given"


def _dataset_lines(dataset: Snapshot) -> Iterator[Line]:
    packed = f", {dataset.compression}" if dataset.compression else ""
    files = f", {len(dataset.files)} files" if len(dataset.files) > 1 else ""
    yield "data", f"{dataset.rows:,} rows, {size_words(dataset.size)}, {dataset.format}{packed}{files}"
    named = ", ".join(f"{column.name} ({column.type})" for column in dataset.columns[:MAX_COLUMNS])
    more = len(dataset.columns) - MAX_COLUMNS
    yield "columns", named + (f" and {more} more" if more > 0 else "")
    yield "sha256", dataset.sha256


def _evidence_lines(request: ApprovalRequest) -> Iterator[Line]:
    if request.evidence.datasets or request.evidence.pii is not None:
        for label, words in pii_facts(request.evidence.pii):
            yield "pii", words if label == "PII" else f"{label.removeprefix('PII ')}: {words}"
    for link in request.evidence.links:
        yield "link", link


def _standing_lines(request: ApprovalRequest) -> Iterator[Line]:
    terms = request.standing
    if terms is not None:
        yield (
            "standing",
            f"once approved it stands for {terms.days} days, for {terms.dag_id} · {terms.task_id}",
        )
        for what, glob in (("from", terms.source), ("to", terms.destination)):
            if glob is not None:
                yield f"· {what}", f"{glob} instead of the one above"
    if request.voided is not None:
        yield "drifted", f"standing approval {request.voided} was voided by this run"
        for drift in request.drift:
            yield f"· {drift.watched}", f"{drift.was}, now {drift.now}"


def _asker_lines(request: ApprovalRequest, now: datetime) -> Iterator[Line]:
    yield "asked by", ", ".join(request.requesters) or "unknown: only answers with an Airflow login count"
    origin = request.origin
    if origin is not None:
        mapped = f" [{origin.map_index}]" if origin.map_index >= 0 else ""
        yield (
            "where",
            f"{origin.dag_id} · {origin.task_id}{mapped} · {origin.run_id} · try {origin.try_number}",
        )
    yield "asked", moment(request.opened_at, now=now)
    if request.state is State.PENDING:
        yield "expires", moment(request.expires_at, now=now)
    yield "policy", f"{request.policy}, revision {request.revision} of the request"


def _progress_lines(detail: RequestDetail) -> Iterator[Line]:
    if not detail.progress:
        return
    missing = detail.progress.get("missing")
    if isinstance(missing, str):
        yield "needs", missing
    for rule in detail.progress.get("rules", []):
        if rule.get("applies"):
            met = f"{len(rule['met_by'])} of {rule['needed']} by {rule['group']}"
            yield "·", met if rule["because"] == "always" else f"{met} ({rule['because']})"


def _answer_lines(request: ApprovalRequest, now: datetime) -> Iterator[Line]:
    for vote in request.votes:
        reason = f": {vote.reason}" if vote.reason else ""
        said = f"{vote.voter} ({', '.join(vote.groups)}): {vote.verdict}{reason}"
        yield "vote", f"{said} · {vote.channel} · {moment(vote.cast_at, now=now)}"
    for question in request.questions:
        yield f"question {question.id}", f"{question.asked_by}: {question.text}"
        yield "answer", f"{question.answered_by}: {question.answer}" if question.answer else "none yet"


def _end_lines(detail: RequestDetail, now: datetime) -> Iterator[Line]:
    request = detail.request
    if request.decided_at is not None:
        yield "decided", f"{request.decided_because} · {moment(request.decided_at, now=now)}"
    if is_emergency(request):
        yield "reviewed", review_of(request)
    if request.state is State.APPROVED and request.receipt_expires_at is not None:
        yield "good until", moment(request.receipt_expires_at, now=now)
    if detail.receipt is not None:
        yield "receipt", f"signed; ledger entry {request.decision_index}"
    if request.redeemed_at is not None:
        yield "used", moment(request.redeemed_at, now=now)
    if request.outcome is not None:
        digest = request.outcome.digest if request.outcome.published else None
        published = f"{outcome_of(request)} {digest or ''}".strip()
        yield "outcome", published + (f": {request.outcome.detail}" if request.outcome.detail else "")
