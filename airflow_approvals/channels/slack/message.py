"""A request as a Slack message: every fact that a decision needs, and the buttons while it can be answered.

A pure function of the request: the prompt that was decided keeps all facts and loses the buttons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC

from airflow_approvals.channels.changes import Changes
from airflow_approvals.channels.facts import answers_of, facts_of, what_of
from airflow_approvals.channels.reach import grant_of
from airflow_approvals.channels.slack import blocks
from airflow_approvals.channels.slack.blocks import Fact, Json
from airflow_approvals.channels.slack.references import PromptRef
from airflow_approvals.channels.text import counted, cut, escaped
from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.core.progress import Progress

_CHANGES = 12
_QUESTIONS = 5
_TITLES = {
    State.PENDING: "Approval needed",
    State.APPROVED: "Approved",
    State.REDEEMED: "Approved, in progress",
    State.COMPLETED: "Approved and done",
    State.FAILED: "Approved, then failed",
}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a prompt shows beside the request itself."""

    link: str  # of the request's page
    progress: Progress | None = None
    page_only: str | None = None  # why it cannot be answered from Slack, if so
    asks_reason: bool = False  # approving needs a reason too
    is_high_risk: bool = False  # approving is asked twice
    changes: Changes | None = None  # since the last approved export


def prompt_of(request: ApprovalRequest, standing: Standing) -> Json:
    """Return `text` and `blocks` of the message."""
    title = title_of(request)
    shown = [
        blocks.header(title),
        *blocks.facts(list(facts_of(request)), block_id="facts"),
        *blocks.facts(list(_changes(standing.changes)), block_id="changes"),
        *blocks.facts(list(_standing(request, standing)), block_id="standing"),
    ]
    if request.state is State.PENDING:
        shown += answer_blocks(request, standing)
    shown.append(blocks.rich_text([blocks.link(standing.link, "Open in Airflow")], "page"))
    return {"text": _fallback(title, request, standing), "blocks": shown}


def title_of(request: ApprovalRequest) -> str:
    """Return what would happen or has happened, in one line."""
    title = _TITLES.get(request.state, request.state.capitalize())
    if request.standing is not None:
        title = f"{title} for {counted(request.standing.days, 'day')}"
    return f"{title}: {what_of(request)}"


def note_of(kind: str, request: ApprovalRequest, number: int) -> Json | None:
    """Return the thread note about question `number` being asked or answered; None when there is none."""
    question = next((each for each in request.questions if each.id == number), None)
    if question is None or (kind == "answer.given" and question.answer is None):
        return None
    asked = kind == "question.asked"
    who = question.asked_by if asked else question.answered_by or "the task"
    text = question.text if asked else question.answer or ""
    label = f"Question {number}" if asked else f"Answer to question {number}"
    rows: list[Fact] = [(f"{label}, by", who), ("Text", blocks.words(cut(text, blocks.INPUT) or "-"))]
    return {
        "text": escaped(f"{label} by {who}: {text}", blocks.FALLBACK),
        "blocks": blocks.facts(rows, block_id="note"),
    }


def summary_rows(request: ApprovalRequest) -> list[Fact]:
    """Return what a modal repeats of the prompt, so that nobody answers by heart."""
    return [
        row
        for row in facts_of(request)
        if row[0] in ("Action", "Source", "Destination", "Standing approval", "Rows", "Asked by")
    ]


def answer_blocks(request: ApprovalRequest, standing: Standing, *, suffix: str = "") -> list[Json]:
    """Return the buttons, with why there are fewer where there are; `suffix` tells several requests apart."""
    value = PromptRef.of(request).to_value()
    what = what_of(request)
    rows, found = [], []
    if standing.page_only is None:
        found += [_approve_button(request, standing, value), _deny_button(what, value)]
    else:
        rows = blocks.facts([("Answer on the page", standing.page_only)], block_id=f"page-only{suffix}")
    found += [
        blocks.button("approvals.ask", "Ask…", value, label=f"Ask about {what}"),
        blocks.button("approvals.details", "Details…", value, label=f"Details of {what}"),
    ]
    return [*rows, {"type": "actions", "block_id": f"answer{suffix}", "elements": found}]


def _approve_button(request: ApprovalRequest, standing: Standing, value: str) -> Json:
    what = what_of(request)
    # A window that asks for the reason asks twice already.
    text, confirm = "Approve", None
    if standing.asks_reason:
        text = "Approve…"
    elif request.standing is not None:
        asked = f"Approve for {counted(request.standing.days, 'day')}?"
        confirm = blocks.confirmation(asked, what, "Approve", "Not yet")
    elif standing.is_high_risk:
        confirm = blocks.confirmation("Approve exactly this?", what, "Approve", "Not yet")
    label = f"Approve {what}"
    return blocks.button("approvals.approve", text, value, style="primary", label=label, confirm=confirm)


def _deny_button(what: str, value: str) -> Json:
    return blocks.button("approvals.deny", "Deny…", value, style="danger", label=f"Deny {what}")


def _changes(changes: Changes | None) -> Iterator[Fact]:
    if changes is None:
        yield "Changed", "nothing like it was approved before"
        return
    at = changes.prior.decided_at or changes.prior.opened_at
    prior = f"request {changes.prior.id[:8]}, approved {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if changes.prior.state is State.FAILED:
        prior += ", whose task then failed"
    if not changes.differences:
        yield "Changed", f"nothing since {prior}"
        return
    yield "Changed since", prior
    for change in changes.differences[:_CHANGES]:
        yield f"• {cut(change.what, 100)}", f"{cut(change.was, 150)} → {cut(change.now, 150)}"
    if len(changes.differences) > _CHANGES:
        yield "• More", f"{len(changes.differences) - _CHANGES} more changes; the page has all"


def _standing(request: ApprovalRequest, standing: Standing) -> Iterator[Fact]:
    if request.state is State.PENDING:
        if standing.progress is not None:
            yield "Approvals", standing.progress.missing
        yield "Expires", blocks.moment(request.expires_at)
    else:
        yield from grant_of(request)
        yield (
            "Outcome",
            f"{request.state}: {request.decided_because}" if request.decided_because else request.state,
        )
        if request.decided_at is not None:
            yield "Since", blocks.moment(request.decided_at)
    yield from answers_of(request)
    for question in request.questions[-_QUESTIONS:]:
        answer = question.answer if question.answer is not None else "not answered yet"
        yield (
            f"Question {question.id}",
            f"{question.asked_by}: {cut(question.text, 180)} → {cut(answer, 180)}",
        )


def _fallback(title: str, request: ApprovalRequest, standing: Standing) -> str:
    asked = ", ".join(request.requesters) or "unknown"
    progress = f" {standing.progress.missing}." if standing.progress is not None else ""
    return escaped(f"{title}. Asked by {asked}.{progress}", blocks.FALLBACK)
