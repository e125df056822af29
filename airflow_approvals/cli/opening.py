"""`request`: a person asks for an approval, and may wait for it."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.output import print_json, print_line, print_problem
from airflow_approvals.cli.session import connect
from airflow_approvals.cli.showing import print_request, request_json
from airflow_approvals.client.api import ApprovalsClient, RequestDetail
from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.model import Action, Evidence, State
from airflow_approvals.service import Opening

LONG_POLL = 25.0
"""Seconds that one call for news is held by the server."""
PATIENCE_WHILE_WAITING = 600.0
"""Seconds that the server may be away while this waits; a restart decides nothing."""
GRANTED = frozenset({State.APPROVED, State.REDEEMED, State.COMPLETED})


def open_request(args: Namespace) -> int:
    """Open a request as the user who is logged in; exit code 0 or 3 tells the decision with `--wait`."""
    opening = Opening(action=action_of(args), evidence=evidence_of(args), policy=args.policy)
    key = args.idempotency_key or str(uuid4())
    with connect(args, patience=PATIENCE_WHILE_WAITING if args.wait else 3.0) as client:
        # Before the request: what happens to it from here on is news.
        after = client.events().next if args.wait else -1
        request, created = client.open_request(opening, idempotency_key=key)
        if args.output == "table":
            print_line(f"{'opened' if created else 'found'}: request {request.id}", style="bold")
        if args.wait:
            deadline = time.monotonic() + args.timeout if args.timeout else None
            _wait(client, request.id, after, deadline)
        detail = client.get_request(request.id)
    return _told(args, detail)


def action_of(args: Namespace) -> Action:
    """Return the action that the options describe."""
    return Action(
        kind=args.kind,
        source=args.source or (uri_of(args.dataset[0]) if args.dataset else None),
        destination=args.destination,
        parameters=_parameters(args.parameter),
        justification=getattr(args, "justification", ""),
    )


def evidence_of(args: Namespace) -> Evidence:
    """Read every `--dataset` once and return what it is."""
    if not args.dataset:
        return Evidence()
    from airflow_approvals.staging.snapshot import snapshot

    return Evidence(datasets=tuple(snapshot(uri_of(path)) for path in args.dataset))


def uri_of(path: str) -> str:
    """Return a URI as it is, a path on this machine as an absolute one."""
    return path if "://" in path else os.path.abspath(path)  # noqa: PTH100  # '..' is taken out as well


def _parameters(pairs: Sequence[str]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals or name in found:
            raise InvalidRequestError(f"--parameter {name}: give NAME=VALUE, each name once")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found or None


def _wait(client: ApprovalsClient, request_id: str, after: int, deadline: float | None) -> None:
    """Return when the request is decided, or at the deadline."""
    while client.get_request(request_id).request.state is State.PENDING:
        while True:
            left = LONG_POLL if deadline is None else min(LONG_POLL, deadline - time.monotonic())
            if left <= 0:
                return
            page = client.events(after=after, wait=left)
            after = page.next
            if any(entry["request_id"] == request_id for entry in page.entries):
                break


def _told(args: Namespace, detail: RequestDetail) -> int:
    if args.output == "json":
        print_json(request_json(detail))
    elif args.wait:
        print_request(detail, now=datetime.now(UTC))
    if not args.wait or detail.request.state in GRANTED:
        return Exit.OK
    print_problem(f"request {detail.request.id} is {detail.request.state}, not approved")
    return Exit.NOT_APPROVED
