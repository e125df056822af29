"""`ledger export`, `ledger verify` and `verify`: the evidence, taken out and held against the public key."""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.offline import (
    VerifiedLedger,
    VerifiedReceipt,
    check_from_elsewhere,
    load_keys,
    verify_ledger_at,
    verify_paths,
)
from airflow_approvals.cli.output import head_json, head_lines, key_lines, moment, print_json, print_line
from airflow_approvals.core.model import GrantKind, to_json
from airflow_approvals.core.moments import rfc3339
from airflow_approvals.core.receipt import Receipt

if TYPE_CHECKING:
    from airflow_approvals.evidence.package import Package


def export(args: Namespace) -> int:
    """Write the server's ledger to a file, or to standard output."""
    if args.file == "-":
        fetch(args, sys.stdout.buffer)
        return Exit.OK
    draft = Path(f"{args.file}.part")
    try:
        with draft.open("wb") as stream:
            size = fetch(args, stream)
        draft.replace(args.file)  # half an export must not look like a whole one
    finally:
        draft.unlink(missing_ok=True)
    if args.output == "json":
        print_json({"file": args.file, "bytes": size})
    else:
        print_line(
            f"{args.file}: {size:,} bytes; verify it with: airflow-approvals verify {args.file} --key FILE"
        )
    return Exit.OK


def keys(args: Namespace) -> int:
    """Tell the public keys that have signed, and write them to a file that `--key` takes."""
    from airflow_approvals.cli.session import connect

    with connect(args) as client:
        found = client.keys()
    if args.file:
        Path(args.file).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if args.output == "json":
        print_json(found)
        return Exit.OK
    for key in found["keys"]:
        print_line(f"{key['keyid']}  {key['keytype']}")
    told = f"{args.file}: written; " if args.file else ""
    print_line(f"{told}keep them where whoever runs the server cannot change them, and give them as --key")
    return Exit.OK


def verify(args: Namespace) -> int:
    """Verify an export, or fetch one from the server and verify that."""
    from airflow_approvals.cli.session import server_url

    keys = load_keys([Path(key) for key in args.key])
    checkpoints = [Path(note) for note in args.checkpoint]
    if args.file:
        path = Path(args.file)
        return _told(args, [verify_ledger_at(path, keys, checkpoints=checkpoints, witness=args.witness)])
    with tempfile.NamedTemporaryFile(prefix="ledger-", suffix=".jsonl") as stream:
        fetch(args, stream)
        stream.flush()
        verified = verify_ledger_at(
            Path(stream.name), keys, checkpoints=checkpoints, witness=args.witness, name=server_url(args)
        )
    return _told(args, [verified])


def verify_offline(args: Namespace) -> int:
    """Verify receipts, exports and packages with files and public keys alone."""
    paths, keys = [Path(file) for file in args.files], [Path(key) for key in args.key]
    check_from_elsewhere(keys, paths)
    verified = verify_paths(
        paths,
        load_keys(keys),
        data=[Path(data) for data in args.data],
        checkpoints=[Path(note) for note in args.checkpoint],
    )
    return _told(args, verified)


def fetch(args: Namespace, stream: BinaryIO | Any) -> int:
    """Write the server's ledger to `stream`, and return how many bytes it is."""
    # Only the commands that ask a server need what it takes to ask one.
    from airflow_approvals.cli.session import connect

    size = 0
    with connect(args) as client:
        for chunk in client.export():
            size += stream.write(chunk)
    return size


def _told(args: Namespace, verified: Iterable[VerifiedReceipt | VerifiedLedger | Package]) -> int:
    if args.output == "json":
        print_json({"verified": [_as_json(one) for one in verified]})
        return Exit.OK
    now = datetime.now(UTC)
    for one in verified:
        for line in _lines_of(one, now):
            print_line(line.replace("\n", " "))  # a reason must not pass for lines of ours
    return Exit.OK


def _lines_of(one: VerifiedReceipt | VerifiedLedger | Package, now: datetime) -> Iterable[str]:
    if isinstance(one, VerifiedLedger):
        return _ledger_lines(one, now)
    if isinstance(one, VerifiedReceipt):
        return _receipt_lines(one, now)
    from airflow_approvals.cli.evidence import package_lines

    return (f"{one.path}: the evidence holds, and says what its ledger says", *package_lines(one))


def _as_json(one: VerifiedReceipt | VerifiedLedger | Package) -> dict[str, Any]:
    if not isinstance(one, VerifiedReceipt | VerifiedLedger):
        from airflow_approvals.cli.evidence import package_json

        return package_json(one)
    if isinstance(one, VerifiedLedger):
        report = one.report
        return {
            "kind": "ledger",
            "file": one.name,
            **head_json(report),
            "root": report.root,
            "keyids": list(report.keyids),
            "checkpoints": report.checkpoints,
            "known_checkpoints": report.known_checkpoints,
            "known_size": report.known_size,
        }
    receipt = one.receipt
    return {
        "kind": "receipt",
        "file": str(one.path),
        "request_id": receipt.request_id,
        "keyid": receipt.keyid,
        "subjects": to_json_list(receipt.subjects),
        "action": to_json(receipt.action),
        "requesters": list(receipt.requesters),
        "policy": receipt.policy,
        "votes": to_json_list(receipt.votes),
        "grant": to_json(receipt.grant) if receipt.grant else None,
        "standing": to_json(receipt.standing) if receipt.standing else None,
        "decided_at": rfc3339(receipt.decided_at),
        "not_after": rfc3339(receipt.not_after),
        "ledger_index": receipt.ledger.index if receipt.ledger else None,
        "origin": receipt.ledger.checkpoint.origin if receipt.ledger else None,
        "data": [str(path) for path in one.data],
    }


def to_json_list(nouns: Iterable[Any]) -> list[Any]:
    """Return each noun as JSON."""
    return [to_json(noun) for noun in nouns]


def _receipt_lines(one: VerifiedReceipt, now: datetime) -> Iterable[str]:
    receipt = one.receipt
    yield f"{one.path}: the receipt is genuine"
    yield f"  request     {receipt.request_id}, asked by {', '.join(receipt.requesters) or 'unknown'}"
    yield f"  action      {receipt.action.kind} to {receipt.action.destination or 'no destination'}"
    for subject in receipt.subjects:
        yield f"  sha256      {subject.sha256}  {subject.name}"
    for vote in receipt.votes:
        own = ", on their own request" if vote.self_approval else ""
        yield f"  vote        {vote.verdict} by {vote.voter} ({', '.join(vote.groups)}){own}"
    yield from _grant_lines(receipt)
    yield f"  decided     {moment(receipt.decided_at, now=now)} under policy {receipt.policy}"
    yield f"  signed by   key {receipt.keyid}"
    if receipt.ledger is not None:
        head = receipt.ledger.checkpoint
        where = f"entry {receipt.ledger.index} of {head.size} of {head.origin}"
        yield f"  ledger      {where}, proven under its signed head"
    for path in one.data:
        yield f"  data        {path}: exactly the approved bytes"


def _grant_lines(receipt: Receipt) -> Iterable[str]:
    """Yield what approved in place of votes, and what is approved in place of bytes."""
    grant, terms = receipt.grant, receipt.standing
    if grant is not None and grant.kind is GrantKind.BREAK_GLASS:
        own = ", for their own request" if set(grant.by) & set(receipt.requesters) else ""
        yield f"  BREAK GLASS granted by {', '.join(grant.by)} alone{own}, saying: {grant.reason}"
    elif grant is not None:
        yield f"  granted     by standing approval {grant.standing_id}, on the votes of {', '.join(grant.by)}"
    if terms is not None:
        days = "1 day" if terms.days == 1 else f"{terms.days} days"
        where = f"{terms.dag_id} · {terms.task_id}"
        yield f"  standing    answers later runs of {where} for {days}, and moves nothing"


def _ledger_lines(one: VerifiedLedger, now: datetime) -> Iterable[str]:
    report = one.report
    yield f"{one.name}: the ledger holds"
    yield f"  origin      {report.origin}"
    yield f"  entries     {report.entries:,}, none changed, missing or moved"
    yield f"  root        {report.root}"
    yield f"  checkpoints {report.checkpoints} in the file, {report.known_checkpoints} from elsewhere"
    yield from head_lines(report)
    yield from key_lines(report, "the ledger itself")
