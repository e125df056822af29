"""Evidence through the command line: fetched from a server, verified without one."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from uuid import uuid4

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_the_packages_that_the_docs_name_are_enough_to_verify_without_airflow(
    say: Say, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evidence.md").read_text(encoding="utf-8")
    found = re.search(r"^\$ pip install (cryptography .*)$", page, re.MULTILINE)
    assert found
    enough, waiting = {"airflow-approvals"}, shlex.split(found[1])
    while waiting:
        wanted = Requirement(waiting.pop())
        extras = wanted.extras or {""}
        enough.add(canonicalize_name(wanted.name))
        for line in metadata.requires(wanted.name) or ():
            needed = Requirement(line)
            marker = needed.marker
            if canonicalize_name(needed.name) not in enough and (
                marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
            ):
                waiting.append(line)
    names = metadata.packages_distributions()
    others = {name for name, owners in names.items() if not {canonicalize_name(o) for o in owners} & enough}
    assert {"airflow", "httpx", "sqlalchemy"} <= others
    assert say("evidence", "--since", "2020-01-01", "--out", "package", user="root").code == Exit.OK
    code = """
import sys
blocked = set(sys.argv.pop(1).split(","))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(name + " is blocked", name=name)
sys.meta_path.insert(0, Blocker())
from airflow_approvals.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, ",".join(others), "verify", str(tmp_path / "package")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (Exit.OK, "")
