"""A package tells what the ledger tells, no more and no less, and shows when anything in it was changed."""

from __future__ import annotations

import csv
import html
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.core.errors import InvalidRequestError, ReceiptInvalidError, VerificationError
from airflow_approvals.core.export import verify_export
from airflow_approvals.core.model import Action, ApprovalRequest, Evidence, Person, State, digest_of_action
from airflow_approvals.core.receipt import verify_bundle
from airflow_approvals.core.signature import by_keyid
from airflow_approvals.evidence.cases import case_of
from airflow_approvals.evidence.ledger_file import LedgerFile, Period
from airflow_approvals.evidence.package import make_package, verify_package
from airflow_approvals.evidence.receipts import Envelopes, Receipts
from airflow_approvals.evidence.reports import pii_of
from airflow_approvals.evidence.summary import SECTIONS
from airflow_approvals.evidence.words import sentences
from airflow_approvals.service import Opening
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import create_store
from tests.evidence.conftest import NOON, POLICY, Made, Office, an_export, package_of


def test_the_report_tells_what_each_policy_that_applied_demands(made: Made) -> None:
    page = (made.folder / "index.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr class="rule">.*?</tr>', page, re.DOTALL)
    told = {cell[0]: html.unescape(cell[1]) for row in rows if (cell := re.findall(r"<td>(.*?)</td>", row))}
    actions = rows_of(made.folder / "actions.csv")
    applied = {(row["policy"], row["policy_digest"][:12]) for row in actions}
    assert set(told) >= {f"{name}<br><code>{digest}</code>" for name, digest in applied}
    words = next(words for name, words in told.items() if name.startswith("partner-export"))
    for sentence in (
        "Covers export to file:///outbox/**.",
        "Needs 1 approval by stewards, and 1 approval by security when dataset.rows > 2000, by different "
        "people.",
        "Who asks cannot approve.",
        "Expires after 4h; an approval is good for 30m.",
        "May stand for 30 days, until schema, residual_pii, rows > 1.2x has drifted.",
        "In an emergency one of oncall may grant it alone.",
    ):
        assert sentence in words
    own = next(words for name, words in told.items() if name.startswith("own"))
    assert "Who asks may approve it too." in own


def test_what_a_verified_plan_leaves_alone_is_told(made: Made) -> None:
    with LedgerFile(made.folder / "ledger.jsonl", made.package.period) as ledger:
        request_id = next(ledger.request_ids())
        case = case_of(request_id, ledger.entries_of(request_id))
    found = {"columns": [{"column": "signed_up", "entities": [{"entity_type": "DATE_TIME", "cells": 5}]}]}
    report = {"scanned": True, "verified": True, "residual": 0, "before": found, "after": found}
    told = " ".join(sentences(replace(case, pii=pii_of({**report, "left_by_plan": ["signed_up"]}))))
    assert "After masking: 5 (DATE_TIME 5) cells. Masking was verified. " in told
    assert "Its plan leaves alone what was found in signed_up." in told


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_package_verifies_and_needs_nothing_but_itself(made: Made) -> None:
    assert verify_package(made.folder, None).summary == made.package.summary
    keys = by_keyid([made.office.signer.public_key])
    assert verify_package(made.folder, keys).report.trust_on_first_use is False
    assert main(["verify", str(made.folder)]) == Exit.OK


def test_counts_equal_those_of_the_ledger(made: Made) -> None:
    entries = made.office.entries()
    kinds = Counter(entry["kind"] for entry in entries)
    summary = made.package.summary
    assert made.manifest["counts"] == dict(sorted(kinds.items()))
    assert summary.cases == kinds["request.opened"] == len(rows_of(made.folder / "actions.csv"))
    assert summary.approvals == summary.receipts == kinds["request.approved"]
    assert summary.refusals == kinds["attempt.refused"]
    assert summary.grants["break_glass"] == kinds["glass.broken"] == 1
    assert summary.published == kinds["outcome.reported"]
    assert summary.states["denied"] == kinds["request.denied"]
    assert summary.states["expired"] == kinds["request.expired"]
    page = (made.folder / "index.html").read_text(encoding="utf-8")
    assert page.count("<article ") == kinds["request.opened"]
    assert f"<b>{kinds['request.approved']:,}</b> <span>approvals</span>" in page
    for kind, count in kinds.items():
        assert f'<td>{kind}</td><td class="number">{count}</td>' in page


def test_counts_of_a_part_of_the_time_equal_those_of_the_ledger(office: Office, tmp_path: Path) -> None:
    period = Period(since=NOON + timedelta(hours=2), until=NOON + timedelta(days=1, hours=2))
    package = package_of(office, tmp_path / "part", period)
    since, until = period.bounds
    entries = [entry for entry in office.entries() if since <= entry["time"] < until]
    kinds = Counter(entry["kind"] for entry in entries)
    assert 0 < len(entries) < office.store.ledger_size()
    assert package.summary.cases == len({entry["request_id"] for entry in entries} - {None})
    assert package.summary.approvals == kinds["request.approved"]
    assert package.summary.published == kinds["outcome.reported"]
    assert package.summary.refusals == kinds["attempt.refused"]
    assert verify_package(tmp_path / "part", None).summary.cases == package.summary.cases


def test_every_list_has_what_belongs_there_or_says_that_there_is_none(made: Made) -> None:
    found = {name: len(notables) for name, notables in made.package.summary.notable.items()}
    assert found == {
        "break_glass": 1,
        "own_approvals": 1,
        "own_attempts": 2,
        "denied_attempts": 2,
        "not_as_approved": 1,
        "unreadable": 0,
        "without_approval": 0,
        "unused": 1,
        "standing": 3,
        "policy_changes": 1,
        "keys": 1,
        "identities": 0,
        "other": 0,
    }
    rows = rows_of(made.folder / "exceptions.csv")
    assert {row["list"] for row in rows} == set(SECTIONS)
    assert [row["what"] for row in rows if row["list"] == "without_approval"] == ["none"]
    page = (made.folder / "index.html").read_text(encoding="utf-8")
    assert page.count("None in this period.") == 4


def test_checks_fail_where_something_was_not_as_it_should_be(made: Made) -> None:
    holds = {check.name: check.holds for check in made.package.checks}
    assert not holds["separation_of_duties"]  # erin approved her own, as the policy allows
    assert not holds["published_as_approved"]
    assert not holds["masking_verified"]  # nobody has looked at the other bytes
    failed = ("separation_of_duties", "published_as_approved", "masking_verified")
    assert all(held for name, held in holds.items() if name not in failed)


def test_the_page_says_in_plain_english_who_did_what_under_which_policy(made: Made) -> None:
    page = (made.folder / "index.html").read_text(encoding="utf-8")
    assert "engineer, by the task export · publish · scheduled__" in page
    assert "export 5,000 rows (195.3 KiB) from file:///staged/big.parquet to file:///outbox/big.parq" in page
    assert "Personal data found before masking: 5,000 (EMAIL_ADDRESS 5,000) cells. After masking: 0" in page
    assert "alice (stewards) approved it from api on 2026-03-01 13:00:00 UTC" in page
    assert "Break glass: dana of oncall granted it alone" in page
    assert "OTHER bytes than were approved" in page


def test_what_comes_from_outside_can_neither_run_nor_repaint(made: Made) -> None:
    page = (made.folder / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "[U+202E]&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert not [row for row in rows_of(made.folder / "exceptions.csv") if row["what"].startswith("=")]


def test_every_receipt_stands_alone_with_its_proof(made: Made) -> None:
    keys = by_keyid([made.office.signer.public_key])
    lines = (made.folder / "receipts.jsonl").read_bytes().splitlines()
    receipts = [verify_bundle(json.loads(line), keys) for line in lines]
    assert len(receipts) == made.package.summary.approvals
    assert {receipt.grant.kind.value for receipt in receipts if receipt.grant} == {"standing", "break_glass"}


def in_batches(made: Made, whole: Period, envelopes_path: Path, out: Path) -> bytes:
    """Write the receipts as a large package does: verified in batches by a second process."""
    with (made.folder / "ledger.jsonl").open("rb") as stream:
        report = verify_export(stream, None)
    keys = by_keyid([made.office.signer.public_key])
    with (
        LedgerFile(made.folder / "ledger.jsonl", whole) as ledger,
        Envelopes(envelopes_path) as envelopes,
        out.open("wb") as written,
        Receipts(written, envelopes, ledger, report, keys, batch=2) as receipts,
    ):
        for request_id in ledger.request_ids():
            case = case_of(request_id, ledger.entries_of(request_id))
            if case.was_approved:
                receipts.add(case)
    return out.read_bytes()


def test_many_receipts_are_verified_by_a_second_process_and_written_alike(
    made: Made, whole: Period, tmp_path: Path
) -> None:
    expected = (made.folder / "receipts.jsonl").read_bytes()
    assert in_batches(made, whole, made.folder / "receipts.jsonl", tmp_path / "out") == expected


def test_a_wrong_receipt_among_many_is_found(made: Made, whole: Period, copied: Path, tmp_path: Path) -> None:
    receipts_swapped(copied)
    with pytest.raises(ReceiptInvalidError):
        in_batches(made, whole, copied / "receipts.jsonl", tmp_path / "out")
    first, *rest = (copied / "receipts.jsonl").read_bytes().splitlines(keepends=True)
    envelope = json.loads(first)
    envelope["envelope"]["payload"] = envelope["envelope"]["payload"].replace("A", "B", 1)
    (copied / "receipts.jsonl").write_bytes(json.dumps(envelope).encode() + b"\n" + b"".join(rest))
    with pytest.raises(ReceiptInvalidError):
        in_batches(made, whole, copied / "receipts.jsonl", tmp_path / "out")


def test_the_same_ledger_and_period_make_the_same_package(made: Made, whole: Period, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    (again / "ledger.jsonl").write_bytes((made.folder / "ledger.jsonl").read_bytes())
    make_package(again, made.folder / "receipts.jsonl", whole, keys=None, made_at=made.office.now)
    for path in made.folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def changed(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_text(encoding="utf-8")
        assert old in content
        (folder / name).write_text(content.replace(old, new, 1), encoding="utf-8")

    return change


def without_last_receipt(folder: Path) -> None:
    lines = (folder / "receipts.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "receipts.jsonl").write_bytes(b"".join(lines[:-1]))


def receipts_swapped(folder: Path) -> None:
    first, second, *rest = (
        json.loads(line) for line in (folder / "receipts.jsonl").read_bytes().splitlines()
    )
    first["envelope"], second["envelope"] = second["envelope"], first["envelope"]
    (folder / "receipts.jsonl").write_text("\n".join(map(json.dumps, [first, second, *rest])) + "\n")


def receipt_twice(folder: Path) -> None:
    content = (folder / "receipts.jsonl").read_bytes()
    (folder / "receipts.jsonl").write_bytes(content + content.splitlines(keepends=True)[0])


def ledger_cut(folder: Path) -> None:
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))


TAMPERINGS: dict[str, Callable[[Path], None]] = {
    "a name in the report": changed("index.html", "mallory", "nobody"),
    "a number in the report": changed("index.html", "5,000 rows", "5 rows"),
    "an action in the table": changed("actions.csv", "big.parquet", "small.parquet"),
    "an emergency taken out of the table": changed("exceptions.csv", "break_glass", "other"),
    "a control's state": changed("oscal.json", "not-satisfied", "satisfied"),
    "the mapping": changed("controls.yaml", "separation_of_duties", "single_use"),
    "the head": changed("checkpoint.txt", ORIGIN := "evidence.example", "evidence.exemple"),
    "the keys": changed("keys.json", '"keyid":"', '"keyid":"0'),
    "an entry of the ledger": changed("ledger.jsonl", "mallory", "malory"),
    "the ledger cut": ledger_cut,
    "the period": changed("manifest.json", '"since": "2026-02', '"since": "2026-01'),
    "a receipt left out": without_last_receipt,
    "two receipts exchanged": receipts_swapped,
    "a receipt twice": receipt_twice,
    "a file left out": lambda folder: (folder / "oscal.json").unlink(),
    "a file put in": lambda folder: (folder / "index2.html").touch(),
    "of another version": changed("manifest.json", '"version": "', '"version": "9'),
}  # fmt: skip


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_tampering_is_found_and_named(copied: Path, tamper: Callable[[Path], None]) -> None:
    tamper(copied)
    with pytest.raises(VerificationError):
        verify_package(copied, None)
    assert main(["verify", str(copied)]) == Exit.NOT_VERIFIED


FILES = [
    "actions.csv",
    "checkpoint.txt",
    "controls.yaml",
    "exceptions.csv",
    "index.html",
    "keys.json",
    "ledger.jsonl",
    "manifest.json",
    "oscal.json",
    "receipts.jsonl",
]


@pytest.mark.parametrize("name", FILES)
def test_one_bit_changed_in_any_file_names_that_file(
    copied: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(path.name for path in copied.iterdir()) == FILES
    whole = (copied / name).read_bytes()
    for place in (0, len(whole) // 3, len(whole) // 2, len(whole) - 2):
        changed = bytearray(whole)
        changed[place] ^= 1
        (copied / name).write_bytes(changed)
        assert main(["verify", str(copied)]) == Exit.NOT_VERIFIED, place
        told = capsys.readouterr().err
        assert (str(copied) in told, name in told) == (True, True), (place, told)


@pytest.mark.parametrize("start", ['"envelope"', '"payload"', '"signatures"', '"keyid"', '"sig"'])
def test_a_receipt_that_cannot_be_read_is_named_by_its_request(
    copied: Path, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    receipts = copied / "receipts.jsonl"
    whole = receipts.read_text(encoding="utf-8")
    for broken in (start[:-1], start.replace('"', "'"), f'{start[:-1]}s"'):
        receipts.write_text(whole.replace(start, broken, 1), encoding="utf-8")
        assert main(["verify", str(copied)]) == Exit.NOT_VERIFIED
        assert "receipts.jsonl: the receipt of request " in capsys.readouterr().err, broken


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "oscal.json").unlink(), "missing: oscal.json"),
        (lambda folder: (folder / ".DS_Store").touch(), "not of the package: .DS_Store; take it out"),
    ],
    ids=["a file left out", "a file that a file manager put in"],
)
def test_a_file_too_few_or_too_many_is_named(
    copied: Path, change: Callable[[Path], None], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copied)
    assert main(["verify", str(copied)]) == Exit.NOT_VERIFIED
    assert told in capsys.readouterr().err


def test_a_package_by_another_key_is_refused_when_the_key_is_known(made: Made, tmp_path: Path) -> None:
    from airflow_approvals.keys import load_signer

    other = load_signer("", home=tmp_path).public_key
    with pytest.raises(VerificationError):
        verify_package(made.folder, by_keyid([other]))


def test_who_broke_the_glass_for_their_own_request_is_no_other(tmp_path: Path) -> None:
    store = create_store(f"sqlite:///{tmp_path / 'airflow.db'}")
    create_tables(store.engine)
    office = Office(store, tmp_path)
    office.policies.use(
        POLICY.replace("self_approval: allowed", "self_approval: allowed\n    break_glass: {group: oncall}")
    )
    own = Opening(action=Action(kind="rotate_key", destination="vault://prod/key"), evidence=Evidence())
    opened = office.service.open_for_person(
        Person("dana"), own, key="k", request_id=str(uuid4()), now=office.now
    )
    office.glass(opened.request)
    period = Period(since=NOON - timedelta(days=1), until=NOON + timedelta(days=1))
    package = package_of(office, tmp_path / "package", period)
    store.close()
    (duties,) = [check for check in package.checks if check.name == "separation_of_duties"]
    assert (duties.found, duties.of) == (0, 1)
    assert [each.who for each in package.summary.notable["own_approvals"]] == ["dana"]


def of_action(request: ApprovalRequest, action: Action) -> ApprovalRequest:
    """Return the request as if `action` had been asked for, and every vote been given for it."""
    digest = digest_of_action(action, request.evidence, request.standing)
    votes = tuple(replace(vote, shown_digest=digest) for vote in request.votes)
    return replace(request, action=action, action_digest=digest, votes=votes)


FAKED_ROWS: dict[str, Callable[[ApprovalRequest], ApprovalRequest]] = {
    "a vote that nobody cast": lambda request: replace(
        request, votes=(replace(request.votes[0], voter=Person("carol"), groups=("security",)),)
    ),
    "somebody who asked is left out": lambda request: replace(request, requesters=()),
    "another destination": lambda request: of_action(
        request, replace(request.action, destination="file:///outbox/elsewhere.parquet")
    ),
}


@pytest.mark.parametrize("fake", FAKED_ROWS.values(), ids=FAKED_ROWS.keys())
def test_what_was_put_into_a_request_in_the_database_is_found_in_its_receipt(
    tmp_path: Path, fake: Callable[[ApprovalRequest], ApprovalRequest]
) -> None:
    """The service signs what the row says; the ledger was told something else."""
    store = create_store(f"sqlite:///{tmp_path / 'airflow.db'}")
    create_tables(store.engine)
    office = Office(store, tmp_path)
    _, asked = office.ask(an_export("big", rows=5000))
    voted = office.vote("bob", asked)
    with store.begin() as tx:
        tx.update_request(fake(voted))
    approved = office.vote("alice", asked)
    approved = approved if approved.state is State.APPROVED else office.vote("carol", asked)
    assert approved.state is State.APPROVED
    period = Period(since=NOON - timedelta(days=1), until=NOON + timedelta(days=1))
    with pytest.raises(ReceiptInvalidError, match=f"{approved.id}.*not those of the ledger"):
        package_of(office, tmp_path / "package", period)
    store.close()


def test_an_empty_period_is_refused_and_a_quiet_one_says_that_nothing_happened(
    office: Office, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequestError):
        package_of(office, tmp_path / "empty", Period(since=NOON, until=NOON))
    quiet = Period(since=NOON - timedelta(days=9), until=NOON - timedelta(days=8))
    package = package_of(office, tmp_path / "quiet", quiet)
    assert (package.summary.cases, package.summary.refusals) == (0, 0)
    assert all(check.holds for check in package.checks)
    page = (tmp_path / "quiet" / "index.html").read_text(encoding="utf-8")
    assert page.count("None in this period.") == len(SECTIONS) + 1
    assert verify_package(tmp_path / "quiet", None).summary.cases == 0


def test_oscal_is_what_compliance_trestle_reads(made: Made) -> None:
    from airflow_approvals.evidence.oscal import validate

    validate(made.folder / "oscal.json")
    document: dict[str, Any] = json.loads((made.folder / "oscal.json").read_text(encoding="utf-8"))
    result = document["assessment-results"]["results"][0]
    observed = {observation["uuid"] for observation in result["observations"]}
    related = {
        each["observation-uuid"] for finding in result["findings"] for each in finding["related-observations"]
    }
    assert related <= observed
    states = {f["target"]["target-id"]: f["target"]["status"]["state"] for f in result["findings"]}
    assert states["ac-5_obj"] == "not-satisfied"
    assert states["au-10_obj"] == "satisfied"
    resources = document["assessment-results"]["back-matter"]["resources"]
    assert {f"#{resource['uuid']}" for resource in resources} >= {
        evidence["href"]
        for observation in result["observations"]
        for evidence in observation["relevant-evidence"]
    }


def test_broken_oscal_is_refused(made: Made, tmp_path: Path) -> None:
    from airflow_approvals.evidence.oscal import validate

    document = json.loads((made.folder / "oscal.json").read_text(encoding="utf-8"))
    del document["assessment-results"]["import-ap"]
    (tmp_path / "broken.json").write_text(json.dumps(document))
    with pytest.raises(VerificationError, match="import-ap"):
        validate(tmp_path / "broken.json")
