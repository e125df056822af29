"""Evidence through the command line: fetched from a server, verified without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_approvals.cli.exits import Exit
from tests.cli.conftest import Say
from tests.web.site import Site, an_opening

ALONE = """
import sys
def refuse(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError("no network is needed")
sys.addaudithook(refuse)
from airflow_approvals.cli.main import main
code = main(sys.argv[1:])
sys.exit(99 if {"airflow", "sqlalchemy", "fastapi", "httpx"} & set(sys.modules) else code)
"""


@pytest.fixture
def evidence(site: Site, say: Say, tmp_path: Path) -> Path:
    """Approve one request; return the folder with its receipt, the ledger and the public keys."""
    with site.worker(site.add_task(run_id=f"manual__{uuid4()}")) as worker:
        request = worker.open_request(an_opening())[0]
    say("approve", request.id, "--yes", user="alice")
    assert say("show", request.id, "--receipt", "receipt.json", user="alice").code == Exit.OK
    assert say("ledger", "export", "ledger.jsonl", user="audrey").code == Exit.OK
    with site.person("alice") as alice:
        (tmp_path / "keys.json").write_text(json.dumps(alice.keys()))
    return tmp_path


def test_receipt_and_ledger_verify_without_airflow_database_or_network(evidence: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "verify", "receipt.json", "ledger.jsonl", "--key", "keys.json"],
        cwd=evidence,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.OK, done.stderr
    assert "the receipt is genuine" in done.stdout
    assert "none changed, missing or moved" in done.stdout


def test_verification_for_programs_names_what_was_approved(evidence: Path, say: Say) -> None:
    told = say("verify", "receipt.json", "ledger.jsonl", "--key", "keys.json", "-o", "json")
    receipt, ledger = told.json["verified"]
    assert (receipt["kind"], receipt["policy"], receipt["votes"][0]["voter"]) == (
        "receipt",
        "partner-export",
        "alice",
    )
    assert ledger["entries"] > receipt["ledger_index"]


@pytest.mark.parametrize("name", ["receipt.json", "ledger.jsonl"])
def test_a_changed_byte_fails_verification(evidence: Path, say: Say, name: str) -> None:
    content = bytearray((evidence / name).read_bytes())
    place = content.index(b'"payload"') + 40 if name == "receipt.json" else len(content) - 100
    content[place] ^= 1
    (evidence / name).write_bytes(content)
    told = say("verify", name, "--key", "keys.json")
    assert told.code == Exit.NOT_VERIFIED
    assert told.err.startswith(name)


def test_data_that_was_not_approved_fails_verification(evidence: Path, say: Say) -> None:
    (evidence / "other.csv").write_text("other,bytes\n")
    told = say("verify", "receipt.json", "--key", "keys.json", "--file", "other.csv")
    assert told.code == Exit.NOT_VERIFIED


def test_the_servers_ledger_is_verified_where_it_is(site: Site, evidence: Path, say: Say) -> None:
    told = say("ledger", "verify", "--key", "keys.json", user="audrey")
    assert told.code == Exit.OK, told.err
    assert "the ledger holds" in told.out


def test_a_ledger_that_brings_its_own_key_is_said_to(evidence: Path, say: Say) -> None:
    assert "came with the ledger itself" in say("ledger", "verify", "ledger.jsonl").out


def test_only_auditors_export_the_ledger_and_nothing_is_left_behind(say: Say, tmp_path: Path) -> None:
    assert say("ledger", "export", "ledger.jsonl", user="alice").code == Exit.NOT_ALLOWED
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_an_error_in_one_sentence(say: Say) -> None:
    told = say("verify", "nothing.json", "--key", "nothing.json")
    assert told.code == Exit.ERROR
    assert len(told.err.strip().splitlines()) == 1
