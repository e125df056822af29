"""The ledger entries of one request as a story, newest last."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_approvals.core.model import Entry, GrantKind

MAX_ENTRIES = 500


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One entry: who did what, what they said, and where it stands in the ledger."""

    index: int
    at: datetime
    who: str
    what: str
    said: str
    tone: str  # plain, good, bad, warn


_TONES = {
    "request.approved": "good",
    "request.denied": "bad",
    "request.revoked": "bad",
    "request.expired": "bad",
    "request.lapsed": "bad",
    "attempt.refused": "warn",
    "glass.broken": "bad",
    "glass.reviewed": "good",
}
_WHAT = {
    "request.opened": "asked for approval",
    "glass.broken": "broke the glass: granted this alone, in an emergency",
    "glass.reviewed": "looked at the emergency grant",
    "request.approved": "gave the last approval that was needed: the request is approved",
    "request.denied": "closed the request as denied",
    "request.expired": "closed the request",
    "request.cancelled": "withdrew the request",
    "request.superseded": "closed the request, and asked anew",
    "request.revoked": "took the approval back",
    "request.lapsed": "closed the approval",
    "request.reminded": "reminded everybody who was asked",
    "request.rebound": "bound the request to the changed policy; votes given before do not count",
    "receipt.redeemed": "used the receipt, to write exactly what was approved",
}
_CHANNELS = {
    "api": "through the API",
    "cli": "from the command line",
    "page": "on the page",
    "slack": "in Slack",
}
_ATTEMPTS = {"open": "to ask", "redeem": "to use the receipt", "outcome": "to report the outcome"}


def timeline_of(entries: Iterable[Entry], *, own_task: Collection[str]) -> tuple[Happening, ...]:
    """Return the story that `entries` tell; `own_task` are the ledger's names of the task that asked."""
    return tuple(_happening(entry, own_task) for entry in sorted(entries, key=lambda entry: entry.index))


def who_is(actor: str, own_task: Collection[str]) -> str:
    """Return an actor of the ledger for people."""
    if actor in own_task:
        return "The task"
    if actor.startswith("worker:"):
        return f"Task {actor.removeprefix('worker:')}"
    return "The approvals service" if actor == "service" else actor


def _happening(entry: Entry, own_task: Collection[str]) -> Happening:
    body = json.loads(entry.body)
    kind, data = body["kind"], body["data"]
    what, said, tone = _told(kind, data)
    return Happening(
        index=entry.index,
        at=datetime.fromisoformat(body["time"]),
        who=who_is(body["actor"], own_task),
        what=what,
        said=said,
        tone=tone,
    )


def _told(kind: str, data: dict[str, Any]) -> tuple[str, str, str]:
    match kind:
        case "vote.cast":
            vote = data["vote"]
            groups = ", ".join(vote["groups"])
            word = "approved" if vote["verdict"] == "approve" else "denied"
            tone = "good" if vote["verdict"] == "approve" else "bad"
            where = _CHANNELS.get(vote["channel"], f"in {vote['channel']}")
            return f"{word} for {groups}, {where}", vote["reason"], tone
        case "question.asked":
            return "asked", data["question"]["text"], "plain"
        case "answer.given":
            return "answered", data["question"]["answer"], "plain"
        case "attempt.refused":
            attempt = _ATTEMPTS.get(data["attempt"], f"to {data['attempt']}")
            return f"tried {attempt}, and was refused", data["because"], "warn"
        case "outcome.reported":
            outcome = data["outcome"]
            if outcome["published"]:
                digest = f"SHA-256 {outcome['digest']}" if outcome["digest"] else ""
                return "published it" if digest else "is done", outcome["detail"] or digest, "good"
            return "could not publish it", outcome["detail"], "bad"
        case "request.escalated":
            return f"told {data['to']} too that this waits", "", "warn"
        case "request.opened":
            return _WHAT[kind], data["action"]["justification"], "plain"
        case _:
            said = str(data.get("because") or data.get("reason") or data.get("remark") or "")
            return _granted(data) or _WHAT.get(kind, kind), said, _TONES.get(kind, "plain")


def _granted(data: dict[str, Any]) -> str:
    """Return what stood in for votes; empty where there were some."""
    grant = data.get("granted")
    if not grant:
        return ""
    emergency = grant["kind"] == GrantKind.BREAK_GLASS
    return "approved it alone, in an emergency" if emergency else "approved it without a prompt"
