"""Receipts and ledgers are verified with files and a public key alone: no Airflow, no database."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from airflow_approvals.cli import offline
from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.cli.offline import VerifiedLedger, VerifiedReceipt, verify_paths
from airflow_approvals.core import receipt as receipts
from airflow_approvals.core.canonical import digest_of, sha256_hex
from airflow_approvals.core.checkpoint import sign_checkpoint
from airflow_approvals.core.errors import (
    ConfigurationError,
    DigestMismatchError,
    LedgerTamperedError,
    ReceiptInvalidError,
    SourceMissingError,
    VerificationError,
)
from airflow_approvals.core.export import write_export
from airflow_approvals.core.ledger import entry_body
from airflow_approvals.core.merkle import Frontier, grow, inclusion_proof, leaf_hash, root_of
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    EntryDraft,
    Evidence,
    FileDigest,
    Person,
    Snapshot,
    State,
    Verdict,
    Vote,
    digest_of_action,
)
from airflow_approvals.keys import KeySigner

NOW = datetime(2026, 1, 31, 8, 15, tzinfo=UTC)
PARTS = {"part-0.csv": b"id\n1\n", "year=2026/part-1.csv": b"id\n2\n"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What an auditor was handed: a bundle, its envelope, the ledger, the key, and the published data."""

    bundle: Path
    envelope: Path
    ledger: Path
    key: Path
    data: Path  # a folder of two parts and a marker
    note: Path


def request_for(data: Path) -> ApprovalRequest:
    files = tuple(
        FileDigest(name=name, sha256=sha256_hex(content), size=len(content))
        for name, content in PARTS.items()
    )
    snapshot = Snapshot(
        uri=f"file://{data}",
        format="csv",
        sha256=digest_of("folder"),
        size=10,
        rows=2,
        columns=(),
        schema_sha256=digest_of([]),
        files=files,
    )
    action, evidence = Action(kind="export"), Evidence(datasets=(snapshot,))
    vote = Vote(
        voter=Person("alice"),
        verdict=Verdict.APPROVE,
        reason="",
        channel=Channel.PAGE,
        cast_at=NOW,
        revision=1,
        shown_digest=digest_of_action(action, evidence),
        groups=("stewards",),
    )
    return ApprovalRequest(
        id="r-1",
        revision=1,
        state=State.APPROVED,
        action=action,
        evidence=evidence,
        action_digest=digest_of_action(action, evidence),
        gate="",
        opened_by="worker",
        requesters=(),
        origin=None,
        policy="p",
        policy_digest=digest_of("p"),
        opened_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        votes=(vote,),
    )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    signer = KeySigner(CryptoSigner.generate_ed25519())
    data = tmp_path / "out"
    for name, content in PARTS.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    (data / "_SUCCESS").touch()
    envelope = receipts.sign_receipt(
        receipts.statement_of(request_for(data), decided_at=NOW, not_after=NOW + timedelta(hours=1)), signer
    )
    frontier, nodes, bodies = Frontier(), {}, []
    for index in range(3):
        draft = EntryDraft(
            kind="request.approved",
            request_id="r-1",
            actor="service",
            time=NOW,
            data={"receipt_sha256": receipts.payload_sha256(envelope)},
        )
        bodies.append(entry_body(draft, index))
        frontier, complete = grow(frontier, leaf_hash(bodies[-1]))
        nodes.update({(node.level, node.index): node.hash for node in complete})
    note = sign_checkpoint(origin="ledger", size=3, root=root_of(frontier), time=NOW, signer=signer)
    bundle = receipts.make_bundle(
        envelope,
        index=1,
        entry=bodies[1],
        inclusion=inclusion_proof(1, 3, lambda level, at: nodes[level, at]),
        checkpoint=note,
    )
    stream = io.BytesIO()
    entries = [(body, leaf_hash(body)) for body in bodies]
    write_export(stream, keys=[signer.public_key], head=note, entries=entries)
    found = Case(
        bundle=tmp_path / "bundle.json",
        envelope=tmp_path / "receipt.json",
        ledger=tmp_path / "ledger.jsonl",
        key=tmp_path / "key.json",
        data=data,
        note=tmp_path / "checkpoint.txt",
    )
    found.bundle.write_text(json.dumps(bundle, indent=1))
    found.envelope.write_text(json.dumps(envelope))
    found.ledger.write_bytes(stream.getvalue())
    found.key.write_text(json.dumps({"keys": [signer.public_key_json()]}))
    found.note.write_text(note)
    return found


def test_a_bundle_a_receipt_and_a_ledger_are_told_apart_and_verified(case: Case) -> None:
    keys = offline.load_keys([case.key])
    bundle, receipt, ledger = verify_paths([case.ledger, case.bundle, case.envelope], keys, data=[case.data])
    assert isinstance(bundle, VerifiedReceipt)
    assert isinstance(receipt, VerifiedReceipt)
    assert isinstance(ledger, VerifiedLedger)
    assert bundle.receipt.ledger is not None
    assert receipt.receipt.ledger is None
    assert bundle.data == (case.data,)
    assert (ledger.report.entries, ledger.report.known_checkpoints) == (3, 1)


def test_it_works_without_airflow_and_without_a_database(case: Case) -> None:
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocker())
from pathlib import Path
from airflow_approvals.cli import offline
key, data, *paths = map(Path, sys.argv[2:])
print(len(offline.verify_paths(paths, offline.load_keys([key]), data=[data])))
"""
    blocked = "airflow,sqlalchemy,alembic,fastapi,httpx,pyarrow,pandas"
    command = [
        sys.executable,
        "-c",
        code,
        blocked,
        *map(str, [case.key, case.data, case.bundle, case.ledger]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_a_single_file_is_one_that_was_approved(case: Case) -> None:
    keys = offline.load_keys([case.key])
    verify_paths([case.bundle], keys, data=[case.data / "part-0.csv"])
    (case.data / "part-0.csv").write_bytes(b"id\n3\n")
    with pytest.raises(DigestMismatchError, match="not the bytes that were approved"):
        verify_paths([case.bundle], keys, data=[case.data / "part-0.csv"])


def change_part(data: Path) -> None:
    (data / "part-0.csv").write_bytes(b"id\n9\n")


def drop_part(data: Path) -> None:
    (data / "year=2026" / "part-1.csv").unlink()


def add_part(data: Path) -> None:
    (data / "part-2.csv").write_bytes(PARTS["part-0.csv"])


def rename_part(data: Path) -> None:
    (data / "part-0.csv").rename(data / "part-9.csv")


def swap_parts(data: Path) -> None:
    for name, other in zip(PARTS, reversed(PARTS), strict=True):
        (data / name).write_bytes(PARTS[other])


@pytest.mark.parametrize("tamper", [change_part, drop_part, add_part, rename_part, swap_parts])
def test_a_folder_that_is_not_the_approved_one_is_refused(case: Case, tamper: object) -> None:
    assert callable(tamper)
    tamper(case.data)
    with pytest.raises(DigestMismatchError):
        verify_paths([case.bundle], offline.load_keys([case.key]), data=[case.data])


def test_an_empty_folder_is_no_approved_data(case: Case, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceMissingError):
        verify_paths([case.bundle], offline.load_keys([case.key]), data=[tmp_path / "empty"])


def test_a_receipt_is_not_verified_without_a_key(case: Case) -> None:
    with pytest.raises(ConfigurationError, match="public key"):
        verify_paths([case.bundle], None)


def test_a_ledger_without_a_key_is_verified_on_first_use_and_says_so(case: Case) -> None:
    (ledger,) = verify_paths([case.ledger], None)
    assert isinstance(ledger, VerifiedLedger)
    assert ledger.report.trust_on_first_use


def test_a_checkpoint_that_was_kept_must_agree(case: Case, tmp_path: Path) -> None:
    keys = offline.load_keys([case.key])
    (ledger,) = verify_paths([case.ledger], keys, checkpoints=[case.note])
    assert isinstance(ledger, VerifiedLedger)
    assert ledger.report.known_checkpoints == 1
    with pytest.raises(ConfigurationError, match="public key"):
        verify_paths([case.ledger], None, checkpoints=[case.note])
    case.note.write_text(case.note.read_text().replace("\n3\n", "\n4\n"))
    with pytest.raises(VerificationError) as caught:
        verify_paths([case.ledger], keys, checkpoints=[case.note])
    assert caught.value.__notes__ == [str(case.note)]


def test_a_refusal_names_the_file(case: Case) -> None:
    keys = offline.load_keys([case.key])
    case.ledger.write_bytes(case.ledger.read_bytes().replace(b'"service"', b'"mallory"', 1))
    with pytest.raises(LedgerTamperedError) as ledger:
        verify_paths([case.bundle, case.ledger], keys)
    assert (ledger.value.index, ledger.value.__notes__) == (0, [str(case.ledger)])
    case.bundle.write_text("{")
    with pytest.raises(ReceiptInvalidError) as receipt:
        verify_paths([case.bundle], keys)
    assert receipt.value.__notes__ == [str(case.bundle)]


def test_a_key_of_somebody_else_verifies_nothing(case: Case, tmp_path: Path) -> None:
    pem = tmp_path / "other.pem"
    pem.write_text(KeySigner(CryptoSigner.generate_ecdsa()).public_key.public)
    for path in (case.bundle, case.envelope, case.ledger):
        with pytest.raises(VerificationError, match="none of the 1 known keys"):
            verify_paths([path], offline.load_keys([pem]))


def test_several_key_files_are_all_trusted(case: Case, tmp_path: Path) -> None:
    pem = tmp_path / "other.pem"
    pem.write_text(KeySigner(CryptoSigner.generate_ecdsa()).public_key.public)
    keys = offline.load_keys([pem, case.key])
    assert keys is not None
    assert len(keys) == 2
    verify_paths([case.bundle], keys)


def test_a_folder_that_is_no_evidence_is_said_to_be_none(case: Case, tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match=r"without manifest\.json; expected .*`evidence`"):
        verify_paths([tmp_path], offline.load_keys([case.key]))


def test_who_has_no_key_is_told_where_it_comes_from(case: Case) -> None:
    with pytest.raises(ConfigurationError, match=r"--key .* ledger keys"):
        verify_paths([case.bundle], None)


def test_a_key_file_that_is_none_is_named(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(case.bundle), "--key", str(case.ledger)]) == Exit.ERROR
    assert f"{case.ledger}: neither PEM nor JSON" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_what_cannot_be_read_is_said(case: Case, tmp_path: Path, name: str) -> None:
    keys = offline.load_keys([case.key])
    with pytest.raises(SourceMissingError):
        verify_paths([tmp_path / name], keys)
    with pytest.raises(SourceMissingError):
        offline.load_keys([tmp_path / name])
    if name != ".":
        with pytest.raises(SourceMissingError):
            verify_paths([case.bundle], keys, data=[tmp_path / name])


def test_a_huge_file_is_not_read_into_memory(case: Case, tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(VerificationError, match="larger than"):
        verify_paths([huge], offline.load_keys([case.key]))
