"""What an approval reaches beyond one run, and what stood in for votes: nobody says yes to it unknowingly."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_approvals.channels.text import counted
from airflow_approvals.core.break_glass import is_emergency
from airflow_approvals.core.model import ApprovalRequest


def reach_of(request: ApprovalRequest) -> Iterator[tuple[str, str]]:
    """Yield label and words: for how long a yes would stand and for what, and what this run drifted from."""
    terms = request.standing
    if terms is not None:
        yield (
            "Standing approval",
            f"a yes answers every later run of {terms.dag_id} / {terms.task_id} for "
            f"{counted(terms.days, 'day')}, without a prompt, until what the policy watches has drifted",
        )
        for label, glob in (("Later sources", terms.source), ("Later destinations", terms.destination)):
            if glob is not None:
                yield label, glob
    if request.voided is not None:
        drifted = "; ".join(f"{each.watched}: {each.was}, now {each.now}" for each in request.drift)
        yield "Drifted", f"this run ended standing approval {request.voided[:8]}: {drifted}"


def grant_of(request: ApprovalRequest) -> Iterator[tuple[str, str]]:
    """Yield what approved the request in place of votes on it, if something did."""
    grant = request.granted
    if grant is None:
        return
    people = ", ".join(grant.by)
    if is_emergency(request):
        yield "BREAK GLASS", f"{people} alone, in an emergency: {grant.reason}"
        yield "Looked at since by", review_of(request)
    else:
        yield "Granted", f"by standing approval {(grant.standing_id or '')[:8]}, on the votes of {people}"


def review_of(request: ApprovalRequest) -> str:
    """Return who has looked at an emergency grant afterwards, and what they say to it."""
    if request.review is None:
        return "nobody yet"
    return f"{request.review.by}{': ' if request.review.remark else ''}{request.review.remark}"
