"""How fast a ledger export is verified on one core: leaves, indexes, tree and checkpoints."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from uuid import UUID

from airflow_approvals.core.canonical import sha256_hex
from airflow_approvals.core.checkpoint import sign_checkpoint
from airflow_approvals.core.export import CHECKPOINT_SPACING, verify_export, write_export
from airflow_approvals.core.ledger import entry_body
from airflow_approvals.core.merkle import Frontier, grow, leaf_hash, root_of
from airflow_approvals.core.model import EntryDraft
from airflow_approvals.core.signature import by_keyid
from airflow_approvals.keys import KeySigner, load_signer

ENTRIES = 300_000
REPEATS = 3
ORIGIN = "bench.example/approvals"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = [
    ("request.opened", "worker:customer_export/publish"),
    ("vote.cast", "alice"),
    ("vote.cast", "bob"),
    ("request.approved", "service"),
    ("receipt.redeemed", "worker:customer_export/publish"),
]


def figures(entries: int = ENTRIES) -> dict[str, float]:
    """Return the median rate of verifying a freshly made export of `entries` entries."""
    with tempfile.TemporaryDirectory(prefix="airflow-approvals-bench-") as folder:
        signer = load_signer("", home=Path(folder))
        path = Path(folder) / "ledger.jsonl"
        _write(path, entries, signer)
        keys = by_keyid([signer.public_key])
        seconds = []
        for _ in range(REPEATS):
            began = perf_counter()
            with path.open("rb", buffering=1 << 20) as stream:
                report = verify_export(stream, keys)
            seconds.append(perf_counter() - began)
        if report.entries != entries:
            raise AssertionError(f"expected {entries} entries, verified {report.entries}")
        return {
            "verify_entries_per_s": round(entries / median(seconds)),
            "verify_bytes_per_entry": round(path.stat().st_size / entries),
            "verify_checkpoints": report.checkpoints,
        }


def _write(path: Path, entries: int, signer: KeySigner) -> None:
    """Write an export with as many checkpoints as an export ever holds."""
    leaves, notes, frontier = [], [], Frontier()
    for index, body in enumerate(_bodies(entries), start=1):
        leaves.append(leaf_hash(body))
        frontier, _ = grow(frontier, leaves[-1])
        if index % CHECKPOINT_SPACING == 0 or index == entries:
            notes.append(
                sign_checkpoint(origin=ORIGIN, size=index, root=root_of(frontier), time=BEGIN, signer=signer)
            )
    with path.open("wb") as stream:
        write_export(
            stream,
            keys=[signer.public_key],
            head=notes[-1],
            entries=zip(_bodies(entries), leaves, strict=True),
            checkpoints=notes,
        )


def _bodies(entries: int) -> Iterator[bytes]:
    for index in range(entries):
        yield entry_body(_draft(index), index)


def _draft(index: int) -> EntryDraft:
    """Return one of the five facts of an ordinary request: opened, two votes, approved, redeemed."""
    number, step = divmod(index, 5)
    kind, actor = FACTS[step]
    digest, request_id = sha256_hex(b"%d" % number), str(UUID(int=number))
    vote = {"verdict": "approve", "channel": "page", "revision": 1, "groups": ["data-stewards"]}
    facts: dict[str, dict[str, Any]] = {
        "request.opened": {
            "origin": {"dag_id": "customer_export", "run_id": f"scheduled__{number}", "task_id": "publish"},
            "policy": "partner-export",
            "policy_digest": digest,
            "requesters": ["engineer"],
        },
        "vote.cast": vote | {"shown_digest": digest, "reason": "counts agree with the contract"},
        "request.approved": {"receipt_sha256": digest, "because": "every rule is met"},
        "receipt.redeemed": {"ti_id": request_id},
    }
    return EntryDraft(
        kind=kind,
        request_id=request_id,
        actor=actor,
        time=BEGIN + timedelta(seconds=index),
        data=facts[kind] | {"action_digest": digest},
    )


if __name__ == "__main__":
    print(figures())
