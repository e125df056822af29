"""What somebody who has only a package, receipts and keys is told, and what they are warned of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.core.canonical import canonical_json
from airflow_approvals.core.model import ApprovalRequest
from airflow_approvals.evidence.ledger_file import Period
from airflow_approvals.evidence.package import make_package
from airflow_approvals.keys import load_signer
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import create_store
from airflow_approvals.web.ledger import bundle_of, ensure_checkpoint
from tests.evidence.conftest import NOON, ORIGIN, Made, Office, an_export, package_of

Told = pytest.CaptureFixture[str]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Office]:
    """Return an office of its own, with one request published."""
    store = create_store(f"sqlite:///{tmp_path / 'airflow.db'}")
    create_tables(store.engine)
    found = Office(store, tmp_path)
    ti_id, request = found.ask(an_export())
    found.publish(ti_id, found.vote("bob", request))
    yield found
    store.close()


def the_day(office: Office) -> Period:
    return Period(since=NOON - timedelta(days=1), until=office.now + timedelta(days=1))


def saved(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def key_of(office: Office, folder: Path) -> str:
    return saved(folder / "known-keys.json", {"keys": [office.signer.public_key_json()]})


def receipt_of(office: Office, request: ApprovalRequest, folder: Path, *, origin: str = ORIGIN) -> str:
    found = office.store.get_request(request.id)
    return saved(folder / f"{request.id}.json", bundle_of(office.service, found, origin, now=office.now))


def test_a_package_of_a_ledger_that_was_cut_is_found_by_what_was_kept_elsewhere(
    small: Office, tmp_path: Path, capsys: Told
) -> None:
    """A ledger that ends at an older signed head holds by itself: only what was signed later shows it."""
    package_of(small, tmp_path / "package", the_day(small))
    small.later(hours=1)
    _, request = small.ask(an_export("later"))
    small.vote("bob", request)
    _, note = ensure_checkpoint(small.service, ORIGIN, now=small.now)
    package, key = str(tmp_path / "package"), key_of(small, tmp_path)
    assert main(["verify", package, "--key", key]) == Exit.OK
    assert (
        "as of       2026-03-01 12:00:00 UTC; what was written later is not in it" in capsys.readouterr().out
    )
    for more in (["--checkpoint", saved(tmp_path / "note", note)], [receipt_of(small, request, tmp_path)]):
        assert main(["verify", "--key", key, package, *more]) == Exit.NOT_VERIFIED
        assert "missing: a checkpoint from elsewhere states" in capsys.readouterr().err


def test_a_kept_checkpoint_that_agrees_with_a_package_is_counted(
    small: Office, tmp_path: Path, capsys: Told
) -> None:
    package = package_of(small, tmp_path / "package", the_day(small))
    note = saved(tmp_path / "note", package.report.head.note)
    command = ["verify", str(package.path), "--checkpoint", note]
    assert main(command) == Exit.ERROR
    assert "a checkpoint is verified with a public key" in capsys.readouterr().err
    assert main([*command, "--key", key_of(small, tmp_path)]) == Exit.OK
    entries = package.report.entries
    assert f"witnessed   up to entry {entries} of {entries}" in capsys.readouterr().out


def test_what_is_given_to_hold_against_is_never_left_aside(
    small: Office, tmp_path: Path, capsys: Told
) -> None:
    package = package_of(small, tmp_path / "package", the_day(small))
    key, data = key_of(small, tmp_path), saved(tmp_path / "data.csv", "other,bytes")
    for path in (package.path, package.path / "ledger.jsonl"):
        assert main(["verify", str(path), "--key", key, "--file", data]) == Exit.USAGE
        assert "--file is held against a receipt, and none is given" in capsys.readouterr().err
    _, request = small.ask(an_export("more"))
    receipt = receipt_of(small, small.vote("bob", request), tmp_path)
    note = saved(tmp_path / "note", package.report.head.note)
    assert main(["verify", receipt, "--key", key, "--checkpoint", note]) == Exit.USAGE
    assert "--checkpoint is held against a ledger, and none is given" in capsys.readouterr().err


def test_the_receipt_of_an_emergency_says_who_granted_it_alone(
    small: Office, tmp_path: Path, capsys: Told
) -> None:
    _, request = small.ask(an_export("urgent"))
    small.glass(request, reason="outage\n  vote        approve by carol (security)")
    receipt, key = receipt_of(small, request, tmp_path), key_of(small, tmp_path)
    assert main(["verify", receipt, "--key", key]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    (told,) = [line for line in lines if "BREAK GLASS" in line]
    assert told.startswith("  BREAK GLASS granted by dana alone, saying: outage   vote")
    assert not [line for line in lines if line.startswith("  vote")]
    assert main(["verify", receipt, "--key", key, "-o", "json"]) == Exit.OK
    grant = json.loads(capsys.readouterr().out)["verified"][0]["grant"]
    assert (grant["kind"], grant["by"]) == ("break_glass", ["dana"])


def test_the_receipt_of_a_standing_approval_says_so_and_covers_no_bytes(
    small: Office, tmp_path: Path, capsys: Told
) -> None:
    _, first = small.ask(an_export("nightly"))
    small.redeem(first.origin.ti_id if first.origin else "", small.vote("bob", first))
    standing = small.stands(first)
    _, covered = small.ask(an_export("nightly"))
    key = key_of(small, tmp_path)
    assert main(["verify", receipt_of(small, covered, tmp_path), "--key", key]) == Exit.OK
    assert f"granted     by standing approval {standing.id}, on the votes of alice" in capsys.readouterr().out
    receipt = receipt_of(small, standing, tmp_path)
    assert main(["verify", receipt, "--key", key]) == Exit.OK
    assert "answers later runs of export · publish for 10 days, and moves nothing" in capsys.readouterr().out
    (tmp_path / "nightly.parquet").write_bytes(b"nightly 1000")  # what the dataset's digest is of
    command = ["--key", key, "--file", str(tmp_path / "nightly.parquet")]
    assert main(["verify", receipt_of(small, covered, tmp_path), *command]) == Exit.OK
    assert main(["verify", receipt, *command]) == Exit.NOT_VERIFIED
    assert "a standing approval's, which covers no bytes itself" in capsys.readouterr().err


def a_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("put", [a_link, a_folder], ids=["a link", "a folder"])
@pytest.mark.parametrize("name", ["index.html", "ledger.jsonl", "receipts.jsonl"])
def test_what_is_no_file_of_the_package_itself_is_named(
    copied: Path, put: Callable[[Path], None], name: str, capsys: Told
) -> None:
    put(copied / name)
    assert main(["verify", str(copied)]) == Exit.NOT_VERIFIED
    assert f"no file of its own: {name}" in capsys.readouterr().err


def test_a_line_without_end_is_not_read_into_memory(copied: Path, capsys: Told) -> None:
    with (copied / "receipts.jsonl").open("ab") as stream:
        stream.truncate(1 << 30)
    assert main(["verify", str(copied)]) == Exit.NOT_VERIFIED
    assert "receipts.jsonl: line " in capsys.readouterr().err


def test_converted_line_ends_are_called_what_they_are(copied: Path, capsys: Told) -> None:
    ledger = copied / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"\n", b"\r\n"))
    for path in (copied, ledger):
        assert main(["verify", str(path)]) == Exit.NOT_VERIFIED
        assert "line ends were converted (CRLF)" in capsys.readouterr().err


def test_a_key_that_was_put_beside_a_genuine_ledger_is_not_passed_on(
    made: Made, copied: Path, tmp_path: Path, capsys: Told
) -> None:
    """Who verified a package with a known key would trust all keys in it from then on."""
    forger = load_signer("", home=tmp_path).public_key_json()
    header, *entries = (copied / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    found = json.loads(header)
    for name, keys in {"added": [*found["keys"], forger], "in place of ours": [forger]}.items():
        forged = tmp_path / name
        forged.mkdir()
        brought = canonical_json({**found, "keys": keys}) + b"\n"
        (forged / "ledger.jsonl").write_bytes(brought + b"".join(entries))
        if name == "added":
            make_package(forged, copied / "receipts.jsonl", made.package.period, keys=None, made_at=NOON)
        else:
            shutil.copytree(copied, forged, ignore=lambda *_: ["ledger.jsonl"], dirs_exist_ok=True)
        capsys.readouterr()
        assert main(["verify", str(forged), "--key", key_of(made.office, tmp_path)]) == Exit.NOT_VERIFIED
        assert f"its first line brings key {forger['keyid']}" in capsys.readouterr().err


def test_a_report_says_up_to_when_it_can_tell(small: Office, tmp_path: Path) -> None:
    package_of(small, tmp_path / "early", the_day(small))
    page = (tmp_path / "early" / "index.html").read_text(encoding="utf-8")
    assert "which was <b>not over</b> when this was made" in page
    assert "signed 2026-03-01 12:00:00 UTC with the root" in page
    small.later(days=2)
    package_of(
        small, tmp_path / "late", Period(since=NOON - timedelta(days=1), until=NOON + timedelta(days=1))
    )
    assert "not over" not in (tmp_path / "late" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ["--since", "9990-01-01"],
        ["--since", "9990-01-01", "--until", "9991-01-01"],
        ["--since", "2026-02-01", "--until", "2026-01-01"],
        ["--since", "2026-02-01", "--until", "2026-02-01"],
        ["--since", "0001-01-01T00:00+14:00"],
    ],
    ids=["to come", "a period to come", "the wrong way round", "of no length", "before all times"],
)
def test_a_period_of_which_nothing_can_be_told_is_refused_before_anything_is_fetched(
    words: list[str], tmp_path: Path, capsys: Told
) -> None:
    out = tmp_path / "package"
    assert main(["evidence", *words, "--out", str(out), "--url", "http://localhost:9"]) == Exit.USAGE
    assert "--since" in (told := capsys.readouterr().err) or "before or after all times" in told
    assert not out.exists()


def key_name(office: Office) -> str:
    return f"{office.signer.keyid}.key.json"


BROKEN_WITNESSES: dict[str, tuple[bytes, str]] = {
    "a key cut off": (b"{", "neither PEM nor JSON"),
    "a key that is no text": (b"\xff", "neither PEM nor JSON"),
    "a key nested without end": (b"[" * 100_000, "neither PEM nor JSON"),
    "a key of no Unicode": (
        b'{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"\\ud800"}}',
        "a public key is not valid Unicode",
    ),
}


@pytest.mark.parametrize(("content", "told"), BROKEN_WITNESSES.values(), ids=BROKEN_WITNESSES.keys())
def test_a_witness_with_a_broken_key_is_refused_in_one_sentence_that_names_the_file(
    made: Made, tmp_path: Path, capsys: Told, content: bytes, told: str
) -> None:
    shutil.copyfile(
        made.folder / "checkpoint.txt", tmp_path / f"{made.package.report.entries:012d}.checkpoint"
    )
    command = ["ledger", "verify", str(made.folder / "ledger.jsonl"), "--witness", str(tmp_path)]
    assert main(command) == Exit.NOT_VERIFIED
    assert "keeps no public key beside its heads" in capsys.readouterr().err
    (tmp_path / key_name(made.office)).write_bytes(content)
    assert main(command) == Exit.ERROR
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"the witness's file {key_name(made.office)}: {told}" in said


def test_a_witnessed_head_that_is_no_text_is_refused_by_its_name(
    made: Made, tmp_path: Path, capsys: Told
) -> None:
    (tmp_path / "000000000001.checkpoint").write_bytes(b"\xff")
    command = ["ledger", "verify", str(made.folder / "ledger.jsonl"), "--witness", str(tmp_path)]
    assert main([*command, "--key", key_of(made.office, tmp_path)]) == Exit.NOT_VERIFIED
    assert (
        "the witness's file 000000000001.checkpoint: the checkpoint is no signed note"
        in capsys.readouterr().err
    )


def test_who_gives_a_package_where_its_ledger_is_wanted_is_told_what_to_give(
    made: Made, capsys: Told
) -> None:
    assert main(["ledger", "verify", str(made.folder)]) == Exit.ERROR
    assert "an evidence package; give its ledger.jsonl here" in capsys.readouterr().err


def test_a_key_does_not_vouch_for_the_folder_that_it_came_in(
    made: Made, tmp_path: Path, capsys: Told
) -> None:
    assert main(["verify", str(made.folder), "--key", str(made.folder / "keys.json")]) == Exit.USAGE
    assert "cannot vouch for it; give the key that you got elsewhere" in capsys.readouterr().err
    assert main(["verify", str(made.folder)]) == Exit.OK
    assert "the key came with the evidence" in capsys.readouterr().out
    assert main(["verify", str(made.folder), "--key", key_of(made.office, tmp_path)]) == Exit.OK
    assert "the key came with the evidence" not in capsys.readouterr().out


def test_a_receipt_of_another_installation_says_whose_it_is_and_fits_no_ledger_of_this_one(
    small: Office, made: Made, tmp_path: Path, capsys: Told
) -> None:
    """Both hold a key that is known, or even the same one."""
    _, request = small.ask(an_export("elsewhere"))
    receipt = receipt_of(small, small.vote("bob", request), tmp_path, origin="other.example/approvals")
    keys = [office.signer.public_key_json() for office in (small, made.office)]
    key = saved(tmp_path / "both.json", {"keys": keys})
    assert main(["verify", receipt, "--key", key]) == Exit.OK
    assert "of other.example/approvals, proven under its signed head" in capsys.readouterr().out
    assert main(["verify", str(made.folder), receipt, "--key", key]) == Exit.NOT_VERIFIED
    told = f"{made.folder}: ledger.jsonl: a checkpoint given from outside is of another ledger"
    assert f"{told}: expected {ORIGIN}, found other.example/approvals" in capsys.readouterr().err


def test_a_terminal_that_knows_few_characters_is_told_all_the_same(small: Office, tmp_path: Path) -> None:
    _, first = small.ask(an_export("nightly"))
    small.redeem(first.origin.ti_id if first.origin else "", small.vote("bob", first))
    receipt = receipt_of(small, small.stands(first), tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "airflow_approvals.cli.main",
            "verify",
            receipt,
            "--key",
            key_of(small, tmp_path),
        ],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert "later runs of export \\xb7 publish" in done.stdout
