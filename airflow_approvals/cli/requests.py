"""`list` and `show`: what is waiting, and all there is to know about one request."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.output import (
    duration_words,
    print_json,
    print_line,
    short_ids,
    stdout,
    visible,
)
from airflow_approvals.cli.session import connect
from airflow_approvals.cli.showing import STATE_STYLES, print_request, request_json
from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.core.errors import InvalidRequestError, NotApprovedError, RequestNotFoundError
from airflow_approvals.core.model import ApprovalRequest, State, to_json

PAGE = 500
SHORTEST_BEGINNING = 4
SHORT_URI = 44
KEPT_NAMES = 2

_FULL_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def list_requests(args: Namespace) -> int:
    """Show one line per request, newest first."""
    states = _states(args.status)
    with connect(args) as client:
        page = client.list_requests(
            status=states,
            dag_id=args.dag_id,
            run_id=args.run_id,
            task_id=args.task_id,
            map_index=args.map_index,
            policy=args.policy,
            requester=args.requester,
            standing=True if args.standing else None,
            limit=args.limit,
        )
    if args.output == "json":
        print_json({"requests": [to_json(request) for request in page.requests], "total": page.total})
        return Exit.OK
    if not page.requests:
        print_line("nothing is waiting" if states == (State.PENDING,) else "no request fits")
        return Exit.OK
    stdout().print(_table(page.requests, now=datetime.now(UTC)))
    if page.total > len(page.requests):
        print_line(f"{len(page.requests)} of {page.total}; --limit shows more", style="dim")
    return Exit.OK


def show_request(args: Namespace) -> int:
    """Show one request; `--receipt` writes its receipt bundle to a file."""
    with connect(args) as client:
        detail = client.get_request(find_request_id(client, args.request))
    if args.receipt:
        if detail.receipt is None:
            raise NotApprovedError(
                f"request {detail.request.id} is {detail.request.state}: it has no receipt"
            )
        Path(args.receipt).write_text(json.dumps(detail.receipt, indent=2) + "\n")
    if args.output == "json":
        print_json(request_json(detail))
    else:
        print_request(detail, now=datetime.now(UTC))
    return Exit.OK


def find_request_id(client: ApprovalsClient, beginning: str) -> str:
    """Return the id that starts with `beginning`; raise unless exactly one request has it."""
    beginning = beginning.strip().lower()
    if _FULL_ID.fullmatch(beginning):
        return beginning
    if len(beginning) < SHORTEST_BEGINNING:
        raise InvalidRequestError(
            f"request {beginning!r}: give at least {SHORTEST_BEGINNING} characters of its id"
        )
    found = [request.id for request in _all_requests(client) if request.id.startswith(beginning)]
    if not found:
        raise RequestNotFoundError(
            f"no request begins with {beginning!r}; `list --status all` shows those you may see"
        )
    if len(found) > 1:
        candidates = ", ".join(sorted(short_ids(found).values())[:5])
        raise InvalidRequestError(
            f"{len(found)} requests begin with {beginning!r}: {candidates}; give more of it"
        )
    return found[0]


def _all_requests(client: ApprovalsClient) -> list[ApprovalRequest]:
    found: dict[str, ApprovalRequest] = {}
    offset = 0
    while True:
        page = client.list_requests(limit=PAGE, offset=offset)
        found.update((request.id, request) for request in page.requests)
        offset += PAGE
        if offset >= page.total or not page.requests:
            return list(found.values())


def _states(words: Sequence[str]) -> tuple[State, ...]:
    if "all" in words:
        return ()
    try:
        return tuple(State(word.lower()) for word in words) or (State.PENDING,)
    except ValueError:
        known = ", ".join(state.value for state in State)
        raise InvalidRequestError(f"--status {' '.join(words)}: give all, or some of {known}") from None


def _table(requests: Sequence[ApprovalRequest], *, now: datetime) -> Table:
    ids = short_ids([request.id for request in requests])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("request", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("asked by", overflow="fold")
    table.add_column("answers", overflow="fold")
    for request in requests:
        table.add_row(
            Text(ids[request.id], style="bold").append(
                f"\n{request.state.value}", style=STATE_STYLES[request.state]
            ),
            Text(visible(_what(request))),
            Text(visible(", ".join(request.requesters) or "unknown")).append(
                f"\n{duration_words(now - request.opened_at)} ago", style="dim"
            ),
            Text(visible(_answers(request))).append(_left(request, now), style="dim"),
        )
    return table


def _what(request: ApprovalRequest) -> str:
    action = request.action
    rows = sum(dataset.rows for dataset in request.evidence.datasets)
    moved = f"{action.kind} {rows:,} rows" if request.evidence.datasets else action.kind
    where = _short(action.destination) if action.destination else ""
    return "\n".join(line for line in (moved, where, _gate_of(request)) if line)


def _gate_of(request: ApprovalRequest) -> str:
    origin, standing = request.origin, request.standing
    if origin is not None:
        mapped = f" [{origin.map_index}]" if origin.map_index >= 0 else ""
        return f"{origin.dag_id} · {origin.task_id}{mapped}"
    if standing is not None:
        return f"{standing.dag_id} · {standing.task_id}, for {standing.days} days"
    return "by hand"


def _short(uri: str) -> str:
    """Return scheme, host and the last two names of a long URI; `show` has all of it."""
    scheme, found, rest = uri.partition("://")
    host, *names = rest.split("/")
    if len(uri) <= SHORT_URI or not found or len(names) <= KEPT_NAMES:
        return uri
    return f"{scheme}://{host}/…/{'/'.join(names[-KEPT_NAMES:])}"


def _left(request: ApprovalRequest, now: datetime) -> str:
    until = {State.PENDING: request.expires_at, State.APPROVED: request.receipt_expires_at}.get(request.state)
    if until is None:
        return ""
    return f"\n{duration_words(until - now)} left" if until > now else "\ntime is up"


def _answers(request: ApprovalRequest) -> str:
    votes = [f"{vote.voter}: {vote.verdict}" for vote in request.votes]
    open_questions = sum(question.answer is None for question in request.questions)
    if open_questions:
        votes.append(f"{open_questions} open question{'s' if open_questions > 1 else ''}")
    return "\n".join(votes) or "none yet"
