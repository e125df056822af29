"""What people say about a request, from `approve` and `deny` to `standing`, `break-glass` and `review`."""

from __future__ import annotations

import sys
from argparse import Namespace
from datetime import UTC, datetime

from rich.text import Text

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.output import print_json, print_line, stdout
from airflow_approvals.cli.requests import find_request_id
from airflow_approvals.cli.session import connect
from airflow_approvals.cli.showing import print_request
from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.model import ApprovalRequest, Channel, State, Verdict, to_json


def approve(args: Namespace) -> int:
    """Show the request and approve exactly what was shown."""
    return _vote(args, Verdict.APPROVE)


def deny(args: Namespace) -> int:
    """Show the request and deny it."""
    return _vote(args, Verdict.DENY)


def ask(args: Namespace) -> int:
    """Put a question on the record."""
    with connect(args) as client:
        asked = client.ask(find_request_id(client, args.request), args.text)
    said = f"asked: question {asked.questions[-1].id} of request {asked.id}; whoever asked for it answers by"
    return _told(args, asked, f"{said} `airflow-approvals answer {asked.id} TEXT`, or on its page")


def answer(args: Namespace) -> int:
    """Answer the oldest open question, or the one that is named."""
    with connect(args) as client:
        request_id = find_request_id(client, args.request)
        number = args.question
        if number is None:
            questions = client.get_request(request_id).request.questions
            number = next((question.id for question in questions if question.answer is None), None)
        if number is None:
            raise InvalidRequestError(f"request {request_id} has no open question")
        answered = client.answer(request_id, question_id=number, text=args.text)
    return _told(args, answered, f"answered: question {number} of request {request_id}")


def cancel(args: Namespace) -> int:
    """Withdraw a pending request."""
    with connect(args) as client:
        cancelled = client.cancel(find_request_id(client, args.request), reason=args.reason)
    return _told(args, cancelled, f"cancelled: request {cancelled.id}")


def revoke(args: Namespace) -> int:
    """Take an approval back."""
    with connect(args) as client:
        revoked = client.revoke(find_request_id(client, args.request), reason=args.reason)
    return _told(args, revoked, f"revoked: request {revoked.id}; nothing can be published with it any more")


def standing(args: Namespace) -> int:
    """Ask that the approval of a request shall answer later runs too."""
    with connect(args) as client:
        opened, created = client.open_standing(
            find_request_id(client, args.request),
            days=args.days,
            source=args.source,
            destination=args.destination,
        )
    said = "asked" if created else "asked before"
    return _told(args, opened, f"{said}: request {opened.id}, for {args.days} days; others must approve it")


def break_glass(args: Namespace) -> int:
    """Show the request and grant it alone."""
    with connect(args) as client:
        detail = client.get_request(find_request_id(client, args.request))
        if args.output == "table":
            print_request(detail, now=datetime.now(UTC))
        if not (args.yes or _is_meant("break the glass for")):
            print_line("nothing was sent")
            return Exit.USAGE
        granted = client.break_glass(
            detail.request.id,
            reason=args.reason,
            revision=detail.request.revision,
            channel=Channel.CLI.value,
        )
    return _told(args, granted, f"the glass is broken: {_allowed(granted)}; all are told")


def review(args: Namespace) -> int:
    """Put on record that somebody else has looked at an emergency grant."""
    with connect(args) as client:
        reviewed = client.review(find_request_id(client, args.request), remark=args.reason)
    return _told(args, reviewed, f"reviewed: the emergency grant of request {reviewed.id}")


def _vote(args: Namespace, verdict: Verdict) -> int:
    with connect(args) as client:
        detail = client.get_request(find_request_id(client, args.request))
        if args.output == "table":
            print_request(detail, now=datetime.now(UTC))
        # The vote carries the revision that was shown: if the request changes meanwhile, it is refused.
        if not (args.yes or _is_meant(verdict.value)):
            print_line("nothing was sent")
            return Exit.USAGE
        voted = client.vote(
            detail.request.id,
            verdict,
            revision=detail.request.revision,
            reason=args.reason,
            channel=Channel.CLI.value,
        )
    return _told(args, voted, _said(verdict, voted))


def _is_meant(what: str) -> bool:
    if not sys.stdin.isatty():
        raise InvalidRequestError(f"to {what} without a terminal to ask in, add --yes")
    # As `Text`: in a string, rich would take [y/N] for markup.
    reply = stdout().input(Text(f"\n{what.capitalize()} exactly this? [y/N] "))
    return reply.strip().lower() in ("y", "yes")


def _said(verdict: Verdict, voted: ApprovalRequest) -> str:
    if verdict is Verdict.DENY:
        return "denied: nothing will be done"
    if voted.state is State.APPROVED:
        return f"approved: {_allowed(voted)}"
    return "your approval is recorded; others must still answer"


def _allowed(approved: ApprovalRequest) -> str:
    if approved.standing is not None:
        return f"it stands for {approved.standing.days} days, or until what its policy names has drifted"
    datasets = approved.evidence.datasets
    return "exactly these bytes may be published now" if datasets else "exactly this may be done now, once"


def _told(args: Namespace, request: ApprovalRequest, sentence: str) -> int:
    if args.output == "json":
        print_json(to_json(request))
    else:
        print_line(sentence, style="bold")
    return Exit.OK
