"""`reconcile`: what lineage says has moved, held against the approvals of the ledger."""

from __future__ import annotations

import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from airflow_approvals.cli.evidence import moment_of
from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.ledgers import fetch
from airflow_approvals.cli.offline import load_keys, verify_ledger_at
from airflow_approvals.cli.output import (
    head_json,
    head_lines,
    key_lines,
    print_json,
    print_line,
    stdout,
    visible,
)
from airflow_approvals.core.export import LedgerReport
from airflow_approvals.core.policy import parse_policy_file
from airflow_approvals.evidence.cases import case_of
from airflow_approvals.evidence.ledger_file import LedgerFile, Period
from airflow_approvals.lineage.movements import Marquez, Movement, movements
from airflow_approvals.lineage.reconcile import Approval, Finding, Reconciliation, reconcile

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def run(args: Namespace) -> int:
    """Reconcile, tell, and return `NOT_VERIFIED` where something moved that no approval covers."""
    period = Period(
        since=moment_of(args.since) if args.since else _BEGINNING,
        until=moment_of(args.until) if args.until else datetime.now(UTC),
    )
    globs = args.destination or _gated_by(args)
    keys = load_keys([Path(key) for key in args.key])
    with tempfile.TemporaryDirectory(prefix="approvals-reconcile-") as scratch:
        ledger = Path(args.ledger or Path(scratch) / "ledger.jsonl")
        if not args.ledger:
            with ledger.open("wb") as stream:
                fetch(args, stream)
        report = verify_ledger_at(ledger, keys, checkpoints=[]).report
        approvals = {each.id: each for each in _approvals(ledger, period)}
    found = reconcile(movements(_marquez(args).events(period.since, period.until)), approvals, globs)
    if args.output == "json":
        print_json({**_as_json(found, globs), "ledger": head_json(report)})
    else:
        _show(found, globs)
        _show_ledger(report)
    return Exit.NOT_VERIFIED if found.broken else Exit.OK


def utc_of(at: str) -> str:
    """Return the time of an event in UTC, or as it stands there where it has no zone."""
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return at
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment.tzinfo else at


def _marquez(args: Namespace) -> Marquez:
    user = os.environ.get("MARQUEZ_USER")
    auth = (user, os.environ.get("MARQUEZ_PASSWORD", "")) if user else None
    return Marquez(args.marquez or os.environ.get("MARQUEZ_URL") or "http://localhost:5000", auth)


def _gated_by(args: Namespace) -> list[str]:
    """Return the destinations that the policy file names."""
    configured = getattr(args, "configured_policy", None)
    path = args.policy or (configured if configured and Path(configured).exists() else None)
    if path is None:
        return []
    policies = parse_policy_file(Path(path).read_text(encoding="utf-8"), name=str(path)).policies
    return sorted({glob for policy in policies for glob in policy.match.destination or ()})


def _approvals(ledger: Path, period: Period) -> Iterator[Approval]:
    """Yield all requests up to the end of the period: a movement may use an older approval."""
    since, until = period.bounds
    with LedgerFile(ledger, Period(since=_BEGINNING, until=period.until)) as entries:
        for request_id in entries.request_ids():
            case = case_of(request_id, entries.entries_of(request_id))
            yield Approval(
                id=case.id,
                state=case.state,
                job=case.job,
                destination=case.destination,
                digests=case.digests,
                published_digest=case.published_digest,
                was_approved=case.was_approved,
                in_period=since <= case.decided_at < until,
            )


def _as_json(found: Reconciliation, globs: list[str]) -> dict[str, Any]:
    return {
        "gated_destinations": globs,
        "movements": found.movements,
        "gated": found.gated,
        "covered": found.covered,
        "findings": [_finding_as_json(finding) for finding in found.findings],
    }


def _finding_as_json(finding: Finding) -> dict[str, Any]:
    moved = finding.movement
    dataset = moved.dataset if isinstance(moved, Movement) else None
    return {
        "fault": str(finding.fault),
        "told": finding.told,
        "request_id": finding.request_id,
        "dataset": {"namespace": dataset.namespace, "name": dataset.name} if dataset else None,
        "run_id": moved.run_id if moved else None,
        "job": moved.job if moved else None,
        "at": moved.at if moved else None,
    }


def _show(found: Reconciliation, globs: list[str]) -> None:
    places = ", ".join(globs) if globs else "only what an approval was ever for (give --policy for more)"
    print_line(f"gated places: {places}")
    print_line(
        f"{found.movements} movements in lineage, {found.gated} into gated places, "
        f"{found.covered} covered by an approval of exactly that"
    )
    if not found.findings:
        print_line("nothing to look at", style="green")
        return
    table = Table(box=None, pad_edge=False, show_edge=False)
    for name in ("WHAT", "WHEN", "REQUEST", "TOLD"):
        table.add_column(name, overflow="fold")
    for finding in found.findings:
        style = "red" if finding in found.broken else "yellow"
        table.add_row(
            Text(str(finding.fault), style=style),
            Text(visible(utc_of(finding.movement.at) if finding.movement else "")),
            Text(visible((finding.request_id or "")[:8])),
            Text(visible(finding.told)),
        )
    stdout().print(table)


def _show_ledger(report: LedgerReport) -> None:
    print_line(f"held against the ledger of {report.origin}, {report.entries:,} entries")
    for line in (*head_lines(report), *key_lines(report, "the ledger itself")):
        print_line(line)
