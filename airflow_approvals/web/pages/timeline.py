"""The ledger entries of one request as a story, newest last."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_approvals.core.model import Entry

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
}
_WHAT = {
    "request.opened": "asked for approval",
    "request.approved": "the request is approved",
    "request.denied": "the request is denied",
    "request.expired": "the request expired",
    "request.cancelled": "withdrew the request",
    "request.superseded": "the request was superseded",
    "request.revoked": "took the approval back",
    "request.lapsed": "the approval was not used in time",
    "request.rebound": "the policy changed: votes given before do not count",
    "question.asked": "asked",
    "answer.given": "answered",
    "receipt.redeemed": "used the receipt, to write exactly what was approved",
}
_ATTEMPTS = {"open": "to ask", "redeem": "to use the receipt", "outcome": "to report the outcome"}


def timeline_of(entries: Iterable[Entry]) -> tuple[Happening, ...]:
    """Return the story that `entries`, newest first, tell."""
    return tuple(_happening(entry) for entry in sorted(entries, key=lambda entry: entry.index))


def who_is(actor: str) -> str:
    """Return an actor of the ledger for people."""
    if actor.startswith("worker:"):
        return f"task {actor.removeprefix('worker:')}"
    return "the approvals service" if actor == "service" else actor


def _happening(entry: Entry) -> Happening:
    body = json.loads(entry.body)
    kind, data = body["kind"], body["data"]
    what, said, tone = _told(kind, data)
    return Happening(
        index=entry.index,
        at=datetime.fromisoformat(body["time"]),
        who=who_is(body["actor"]),
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
            return f"{word}, for {groups}, by {vote['channel']}", vote["reason"], tone
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
                return "published it", outcome["detail"] or f"SHA-256 {outcome['digest']}", "good"
            return "could not publish it", outcome["detail"], "bad"
        case "request.opened":
            return _WHAT[kind], data["action"]["justification"], "plain"
        case _:
            return _WHAT.get(kind, kind), str(data.get("because") or ""), _TONES.get(kind, "plain")
