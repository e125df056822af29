"""How long an evidence package takes, and how much memory: from the database to the finished folder.

The ledger is one that the service would have written: each decision has an opening with a PII report, two
votes, a signed receipt, a redemption and an outcome. What is timed runs in a process of its own: reading
everything out of the database as the server does, verifying ledger and receipts, and writing.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from airflow_approvals.core import merkle
from airflow_approvals.core.checkpoint import sign_checkpoint
from airflow_approvals.core.ledger import entry_body
from airflow_approvals.core.model import (
    ApprovalRequest,
    EntryDraft,
    Outcome,
    Person,
    State,
    digest_of_action,
    to_json,
)
from airflow_approvals.core.policy import digest_of_policy, parse_policy_file
from airflow_approvals.core.receipt import payload_sha256, sign_receipt, statement_of
from airflow_approvals.keys import KeySigner, load_signer
from airflow_approvals.service.cases import draft_entry
from airflow_approvals.store.requests import columns_of
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from airflow_approvals.store.tables import checkpoints, ledger_entries, ledger_head, ledger_nodes, requests
from tests.evidence.conftest import POLICY, an_export
from tests.store.samples import a_request, decided

ORIGIN = "bench.example/approvals"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DECISIONS = 100_000
POLICIES = parse_policy_file(POLICY, name="policy.yaml")
_BATCH = 2_000


def figures(decisions: int = DECISIONS) -> dict[str, float]:
    """Return seconds and peak memory of a package over so many decisions."""
    with tempfile.TemporaryDirectory(prefix="airflow-approvals-bench-") as folder:
        home = Path(folder)
        store = create_store(f"sqlite:///{home / 'airflow.db'}")
        create_tables(store.engine)
        entries = fill(store, load_signer("", home=home), decisions)
        store.close()
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.evidence", folder], capture_output=True, text=True, check=True
        )
        measured = json.loads(done.stdout.splitlines()[-1])
    if (measured.pop("approvals"), measured.pop("rules_met")) != (decisions, decisions):
        raise AssertionError(f"expected {decisions} approvals in the report, all by their rules")
    seconds = measured.pop("seconds")
    return {
        "evidence_s_100000": round(seconds * DECISIONS / decisions, 1),
        "evidence_s": round(seconds, 1),
        "evidence_entries": entries,
        **measured,
    }


def fill(store: SqlStore, signer: KeySigner, decisions: int) -> int:
    """Write so many decisions and a signed head, in large batches; return the number of entries."""
    frontier = merkle.Frontier()
    for start in range(0, decisions, _BATCH):
        rows: list[dict[str, Any]] = []
        entries: list[dict[str, Any]] = []
        nodes: list[dict[str, Any]] = []
        for number in range(start, min(start + _BATCH, decisions)):
            loaded = [] if number else [_policy_loaded()]
            request, drafts = _decision(number, frontier.size + len(loaded), signer)
            for draft in (*loaded, *drafts):
                body = entry_body(draft, frontier.size)
                entries.append(
                    {"idx": frontier.size, "kind": draft.kind, "request_id": draft.request_id, "body": body}
                )
                frontier, grown = merkle.grow(frontier, merkle.leaf_hash(body))
                nodes += [{"level": node.level, "idx": node.index, "hash": node.hash} for node in grown]
            rows.append({"id": request.id, **columns_of(request)})
        with store.engine.connect() as plain:
            connection = plain.execution_options(approvals_writes=True)
            with connection.begin():
                connection.execute(insert(requests), rows)
                connection.execute(insert(ledger_entries), entries)
                connection.execute(insert(ledger_nodes), nodes)
                connection.execute(ledger_head.delete())
                peaks = b"".join(frontier.peaks)
                connection.execute(insert(ledger_head), {"id": 1, "size": frontier.size, "peaks": peaks})
    root = merkle.root_of(frontier)
    note = sign_checkpoint(origin=ORIGIN, size=frontier.size, root=root, time=BEGIN, signer=signer)
    with store.engine.connect() as plain:
        connection = plain.execution_options(approvals_writes=True)
        with connection.begin():
            connection.execute(insert(checkpoints).values(size=frontier.size, note=note))
    return frontier.size


def _policy_loaded() -> EntryDraft:
    rules = [policy.model_dump(mode="json") for policy in POLICIES.policies]
    facts = {"digest": POLICIES.digest, "policies": [rule["name"] for rule in rules], "rules": rules}
    return EntryDraft(kind="policy.loaded", request_id=None, actor="service", time=BEGIN, data=facts)


def _decision(number: int, size: int, signer: KeySigner) -> tuple[ApprovalRequest, Iterator[EntryDraft]]:
    at = BEGIN + timedelta(seconds=number)
    opening = an_export(f"customers-{number % 50}", rows=1000 + number % 7)
    request = a_request(
        id=str(UUID(int=number + 1)),
        action=opening.action,
        evidence=opening.evidence,
        action_digest=digest_of_action(opening.action, opening.evidence),
        policy=POLICIES.policies[0].name,
        policy_digest=digest_of_policy(POLICIES.policies[0]),
        opened_at=at,
        expires_at=at + timedelta(hours=4),
    )
    voted = decided(request)
    votes = tuple(
        replace(voted.votes[0], voter=Person(name), cast_at=at, groups=(group,))
        for name, group in (("alice", "stewards"), ("carol", "security"))
    )
    until = at + timedelta(minutes=30)
    approved = replace(
        voted, votes=votes, questions=(), decided_at=at, receipt_expires_at=until, decision_index=size + 3
    )
    envelope = sign_receipt(statement_of(approved, decided_at=at, not_after=until), signer)
    outcome = Outcome(published=True, digest=a_dataset_digest(approved), reported_at=at)
    done = replace(approved, state=State.COMPLETED, receipt=envelope, redeemed_at=at, outcome=outcome)
    return done, _facts(done, at)


def a_dataset_digest(request: ApprovalRequest) -> str:
    return request.evidence.datasets[0].sha256


def _facts(request: ApprovalRequest, at: datetime) -> Iterator[EntryDraft]:
    worker = "worker:export/manual__1/publish"
    yield draft_entry(
        "request.opened",
        request,
        actor=worker,
        now=at,
        action=to_json(request.action),
        evidence=to_json(request.evidence),
        origin=to_json(request.origin),
        requesters=list(request.requesters),
        gate="",
        expires_at=to_json(request)["expires_at"],
    )
    for vote in request.votes:
        yield draft_entry("vote.cast", request, actor=vote.voter, now=at, vote=to_json(vote))
    receipt = payload_sha256(request.receipt or {})
    yield draft_entry(
        "request.approved", request, actor="carol", now=at, because="approved", receipt_sha256=receipt
    )
    yield draft_entry("receipt.redeemed", request, actor=worker, now=at, ti_id="ti")
    yield draft_entry("outcome.reported", request, actor=worker, now=at, outcome=to_json(request.outcome))


def measure(home: Path) -> dict[str, float]:
    """Make the package of everything in the database under `home`."""
    from airflow_approvals.evidence.ledger_file import Period
    from airflow_approvals.evidence.package import LEDGER, make_package
    from airflow_approvals.service import Service
    from airflow_approvals.web.export import export_chunks, receipt_lines
    from tests.test_service import Policies, Tasks

    store = create_store(f"sqlite:///{home / 'airflow.db'}")
    signer = load_signer("", home=home)
    service = Service(store=store, origins=Tasks(), policies=Policies(), signer=signer)
    service.record_key(now=BEGIN)
    folder = home / "package"
    folder.mkdir()
    began, busy = time.perf_counter(), time.process_time()
    head = store.last_checkpoint()
    with (folder / LEDGER).open("wb") as stream:
        stream.writelines(export_chunks(service, head[1] if head else ""))
    with (home / "receipts").open("wb") as stream:
        stream.writelines(receipt_lines(service, first=0, last=1 << 62))
    period = Period(since=BEGIN, until=BEGIN + timedelta(days=3650))
    package = make_package(folder, home / "receipts", period, keys=None, made_at=BEGIN)
    seconds, worked = time.perf_counter() - began, time.process_time() - busy
    store.close()
    beside = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "evidence_cpu_s": round(worked, 1),
        "approvals": package.summary.approvals,
        "rules_met": package.summary.rules_met,
        "evidence_rss_mb": round((_peak_kb() + beside.ru_maxrss) / 1024),
        "evidence_mb": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6),
    }


def _peak_kb() -> int:
    """Return the most that this process has held; its `ru_maxrss` begins with that of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
