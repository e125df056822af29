"""`evidence`: fetch the ledger and the receipts of a period, and make a package that stands on its own."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.offline import load_keys
from airflow_approvals.cli.output import head_json, head_lines, key_lines, print_json, print_line
from airflow_approvals.cli.session import connect
from airflow_approvals.core.errors import InvalidRequestError, MissingExtraError
from airflow_approvals.core.moments import rfc3339

if TYPE_CHECKING:
    from airflow_approvals.client.api import ApprovalsClient
    from airflow_approvals.evidence.ledger_file import Period
    from airflow_approvals.evidence.package import Package


def make(args: Namespace) -> int:
    """Write the package to a folder that is not there yet, or empty."""
    from airflow_approvals.evidence.ledger_file import Period
    from airflow_approvals.evidence.oscal import validate
    from airflow_approvals.evidence.package import LEDGER, OSCAL, make_package

    made_at = datetime.now(UTC)
    period = Period(since=moment_of(args.since), until=moment_of(args.until) if args.until else made_at)
    _check_begun(period, made_at)
    keys = load_keys([Path(key) for key in args.key])
    out = Path(args.out)
    _check_empty(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, so that it appears whole or not at all.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder, envelopes = Path(scratch) / "package", Path(scratch) / "receipts"
        folder.mkdir()
        with connect(args) as client:
            _save(folder / LEDGER, client.export())
            _save(envelopes, _receipts(client))
        package = make_package(folder, envelopes, period, keys=keys, made_at=made_at)
        note = ""
        try:
            validate(folder / OSCAL)
        except MissingExtraError as missing:
            note = str(missing)
        if out.exists():
            out.rmdir()
        folder.replace(out)
    return _told(args, out, package, note)


def moment_of(text: str) -> datetime:
    """Return the moment that a date, or a date and time, stands for; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(
            f"{text!r} is no date; give 2026-01-31, 2026-01-31T08:00 or 2026-01-31T08:00+02:00"
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise InvalidRequestError(f"{text!r} is before or after all times in UTC; give another") from None


def package_json(package: Package) -> dict[str, Any]:
    """Return what programs are told about a package."""
    since, until = package.period.bounds
    summary = package.summary
    return {
        "kind": "evidence",
        "file": str(package.path),
        "since": since,
        "until": until,
        **head_json(package.report),
        "root": package.report.root,
        "keyids": list(package.report.keyids),
        "known_checkpoints": package.report.known_checkpoints,
        "actions": summary.cases,
        "approvals": summary.approvals,
        "receipts": summary.receipts,
        "published": summary.published,
        "refused": summary.refusals,
        "lists": {name: len(found) for name, found in summary.notable.items()},
        "checks": {check.name: check.holds for check in package.checks},
    }


def package_lines(package: Package) -> Iterator[str]:
    """Yield what people are told about a package."""
    summary, period = package.summary, package.period
    last = period.until - timedelta(microseconds=1)
    yield f"  period      {period.since:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    yield f"  origin      {package.report.origin}"
    yield f"  ledger      {package.report.entries:,} entries, none changed, missing or moved"
    yield f"  actions     {summary.cases:,}, of them {summary.published:,} published"
    yield f"  approvals   {summary.approvals:,}, each with a genuine receipt and its proof"
    for check in package.checks:
        if not check.holds:
            yield f"  look at     {check.title} {check.told}"
    yield from head_lines(package.report)
    yield from key_lines(package.report, "the evidence")


def _check_begun(period: Period, now: datetime) -> None:
    # An empty report over days to come would say that all checks hold.
    if period.since >= min(period.until, now):
        raise InvalidRequestError(
            "there is nothing to report on: --since must be in the past, and before --until"
        )


def _check_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidRequestError(f"{out}: there is something already; give a folder that is new or empty")


def _receipts(client: ApprovalsClient) -> Iterator[bytes]:
    # All that there are: which of them the period needs is known once the ledger was read.
    return client.receipts(first=0, last=1 << 62)


def _save(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("wb") as stream:
        for chunk in chunks:
            stream.write(chunk)


def _told(args: Namespace, out: Path, package: Package, note: str) -> int:
    if args.output == "json":
        print_json({**package_json(package), "file": str(out), "made_at": rfc3339(datetime.now(UTC))})
        return Exit.OK
    print_line(f"{out}: evidence, to be opened at {out / 'index.html'}", style="bold")
    for line in package_lines(package):
        print_line(line)
    print_line(f"  verify      airflow-approvals verify {out} --key FILE")
    if note:
        print_line(f"  note        {note}", style="yellow")
    return Exit.OK
