"""A request in words, for every channel that has no buttons: what is asked, what came of it, who still waits.

Facts are label and text, one line each; whoever sends them escapes them for the place they go to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_approvals.channels.facts import Fact, answers_of, facts_of, what_of
from airflow_approvals.channels.text import cut, span
from airflow_approvals.core.break_glass import is_emergency
from airflow_approvals.core.model import ApprovalRequest, Person, State
from airflow_approvals.core.progress import Progress
from airflow_approvals.core.reminders import Notice
from airflow_approvals.service.emergency import GLASS_BROKEN

TITLE = 200
VALUE = 1000
_TITLES = {
    State.PENDING: "Approval needed",
    State.APPROVED: "Approved",
    State.REDEEMED: "Approved",
    State.COMPLETED: "Approved and done",
    State.FAILED: "Approved, then failed",
}
_GOOD = frozenset({State.APPROVED, State.REDEEMED, State.COMPLETED})


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of one request, ready to be laid out."""

    event: str  # as the ledger names it
    request: ApprovalRequest
    title: str
    facts: tuple[Fact, ...]
    link: str  # of the request's page, where it is answered
    tone: str  # asks, good, bad, plain
    is_first: bool  # nothing of this request was told here before
    progress: Progress | None = None

    @property
    def call_to_action(self) -> str:
        """What the link is called."""
        return "Review and answer in Airflow" if self.tone == "asks" else "Open in Airflow"


def prompt_of(
    request: ApprovalRequest, progress: Progress | None, *, link: str, is_first: bool, now: datetime
) -> Message:
    """Return the message that asks, or that says what came of it."""
    pending = request.state is State.PENDING
    emergency = _emergency(request)
    title = emergency[0] if emergency else _TITLES.get(request.state, request.state.capitalize())
    facts = [*facts_of(request), *_standing(request, progress, now)]
    return Message(
        event=_event_of(request),
        request=request,
        title=cut(f"{title}: {what_of(request)}", TITLE),
        facts=_shown(facts),
        link=link,
        tone="asks" if pending else "good" if request.state in _GOOD else "bad",
        is_first=is_first,
        progress=progress,
    )


def note_of(
    kind: str,
    request: ApprovalRequest,
    number: int,
    progress: Progress | None,
    *,
    members: Sequence[Person],
    link: str,
    now: datetime,
) -> Message | None:
    """Return what is told beside the prompt; None when there is nothing of it in the request any more.

    `kind` is the ledger's: question `number` was asked or answered, the request still waits and, once
    escalated, is told to `members` of a further group, or somebody broke the glass.
    """
    if kind in set(Notice):
        told: tuple[str, list[Fact]] | None = _waiting(kind, request, members)
    else:
        told = _emergency(request) if kind == GLASS_BROKEN else _talk(kind, request, number)
    if told is None:
        return None
    title, facts = told
    return Message(
        event=kind,
        request=request,
        title=cut(f"{title}: {what_of(request)}", TITLE),
        facts=_shown([*facts, *_still_open(request, progress, now)]),
        link=link,
        tone="asks" if request.state is State.PENDING else "plain",
        is_first=False,
        progress=progress,
    )


def told_of(request: ApprovalRequest) -> str:
    """Return what tells two messages apart where each would be a new one: that it is used is no news."""
    state = State.APPROVED if request.state is State.REDEEMED else request.state
    return f"{state}.{request.revision}"


def plain_text(message: Message) -> str:
    """Return the message in lines, for whatever shows text alone."""
    lines = [message.title, "", *(f"{label}: {value}" for label, value in message.facts), ""]
    return "\n".join([*lines, f"{message.call_to_action}: {message.link}", ""])


def _event_of(request: ApprovalRequest) -> str:
    if request.state is not State.PENDING:
        return f"request.{request.state}"
    if request.votes:
        return "vote.cast"
    return "request.opened" if request.revision == 1 else "request.rebound"


def _standing(request: ApprovalRequest, progress: Progress | None, now: datetime) -> Iterator[Fact]:
    if request.state is State.PENDING:
        yield from _still_open(request, progress, now)
    else:
        emergency = _emergency(request)
        yield from emergency[1] if emergency else ()
        because = f": {request.decided_because}" if request.decided_because else ""
        yield "Outcome", f"{request.state}{because}"
    yield from answers_of(request)


def _still_open(request: ApprovalRequest, progress: Progress | None, now: datetime) -> Iterator[Fact]:
    if request.state is not State.PENDING:
        return
    if progress is not None:
        yield "Approvals", progress.missing
    yield "Expires", f"{_utc(request.expires_at)}, in {span(request.expires_at - now)}"


def _waiting(kind: str, request: ApprovalRequest, members: Sequence[Person]) -> tuple[str, list[Fact]]:
    waits = ("Waiting since", _utc(request.opened_at))
    if kind != Notice.ESCALATED:
        return "Still waiting for an answer", [waits]
    group = request.escalated_to or "nobody"
    told = f"{group}: {', '.join(members)}" if members else group
    return f"Escalated to {group}", [waits, ("Told to", told)]


def _emergency(request: ApprovalRequest) -> tuple[str, list[Fact]] | None:
    grant = request.granted
    if grant is None or not is_emergency(request):
        return None
    return "BREAK GLASS: approved by one person alone", [("By", ", ".join(grant.by)), ("Why", grant.reason)]


def _talk(kind: str, request: ApprovalRequest, number: int) -> tuple[str, list[Fact]] | None:
    question = next((each for each in request.questions if each.id == number), None)
    if question is None or (kind == "answer.given" and question.answer is None):
        return None
    asked = (f"{question.asked_by} asks", question.text)
    if kind == "question.asked":
        return f"Question {number}", [asked]
    return f"Answer to question {number}", [
        asked,
        (f"{question.answered_by or 'the task'} answers", question.answer or ""),
    ]


def _shown(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    return tuple((cut(label, 100), cut(value, VALUE)) for label, value in facts)


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
