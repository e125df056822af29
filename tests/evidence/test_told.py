"""A report tells each thing where and when it belongs, and nothing in it can pass for what it is not."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_approvals.core.delivery import LinkCode
from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.core.model import Action, Channel, Evidence, Person, Verdict
from airflow_approvals.evidence.cases import case_of
from airflow_approvals.evidence.ledger_file import LedgerFile, Period
from airflow_approvals.evidence.package import Package, verify_package
from airflow_approvals.evidence.reports import Pii
from airflow_approvals.evidence.summary import Summary
from airflow_approvals.evidence.tables import safe
from airflow_approvals.evidence.words import sentences, visible
from airflow_approvals.service import Opening
from airflow_approvals.service.lending import SealChange
from airflow_approvals.store.identities import SqlIdentities
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import create_store
from tests.evidence.conftest import NOON, POLICY, Made, Office, an_export, package_of


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Office]:
    store = create_store(f"sqlite:///{tmp_path / 'airflow.db'}")
    create_tables(store.engine)
    yield Office(store, tmp_path)
    store.close()


def package(office: Office, home: Path, since: datetime = NOON - timedelta(days=1)) -> Package:
    return package_of(office, home / "package", Period(since=since, until=office.now + timedelta(days=1)))


def page_of(made: Package) -> str:
    return html.unescape((made.path / "index.html").read_text(encoding="utf-8"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_attempt_on_a_request_that_never_was_is_no_action(small: Office, tmp_path: Path) -> None:
    """Else any worker could have the checks of a period fail."""
    small.ask(an_export())
    with pytest.raises(ApprovalsError):
        small.service.redeem(small.task(), "no-such-request", digest="0" * 64, now=small.now)
    made = package(small, tmp_path)
    assert (made.summary.cases, made.summary.incomplete, made.summary.refusals) == (1, 0, 1)
    assert all(check.holds for check in made.checks)
    (told,) = made.summary.notable["denied_attempts"]
    assert told.what.startswith("redeem of no-such-request: there is no such request")
    assert "no-such-request" not in {row["request_id"] for row in rows_of(made.path / "actions.csv")}
    verify_package(made.path, None)


def test_a_standing_approval_given_in_the_period_is_listed_whenever_it_was_asked_for(
    small: Office, tmp_path: Path
) -> None:
    ti_id, first = small.ask(an_export())
    small.publish(ti_id, small.vote("bob", first))
    asked = small.service.open_standing(
        Person("zoe"), first.id, days=1, source=None, destination=None, new_id=str(uuid4()), now=small.now
    ).request
    small.later(hours=2)
    small.vote("alice", asked)
    made = package(small, tmp_path, since=NOON + timedelta(hours=1))
    (told,) = made.summary.notable["standing"]
    assert (told.request_id, told.at) == (asked.id, "2026-03-01T14:00:00.000000Z")
    assert "asked for 1 day of export of 1,000 rows" in told.what
    assert "for 1 day." in page_of(made)


def test_what_was_denied_or_answered_before_the_period_is_not_counted_in_it(
    small: Office, tmp_path: Path
) -> None:
    _, denied = small.ask(an_export())
    small.vote("bob", denied, Verdict.DENY)
    small.later(hours=2)
    with pytest.raises(ApprovalsError):
        small.vote("alice", denied)
    made = package(small, tmp_path, since=NOON + timedelta(hours=1))
    page = page_of(made)
    assert "<b>1</b> <span>attempts refused</span>" in page
    assert "<b>0</b> <span>denied</span>" in page
    assert "Answers: none." in page


def test_each_emergency_says_in_its_own_place_who_looked_at_it_and_when(
    small: Office, tmp_path: Path
) -> None:
    _, request = small.ask(an_export())
    small.glass(request)
    small.later(hours=2)
    small.service.review_glass(Person("bob"), request.id, remark="the partner confirmed", now=small.now)
    since = NOON + timedelta(hours=1)  # the period holds nothing but the review
    page = page_of(package(small, tmp_path, since=since))
    assert "bob looked at it on 2026-03-01 14:00:00 UTC, saying “the partner confirmed”." in page


def test_an_emergency_that_nobody_else_looked_at_says_so(small: Office, tmp_path: Path) -> None:
    _, request = small.ask(an_export())
    small.glass(request)
    assert "Nobody else had looked at it by the end of the period." in page_of(package(small, tmp_path))


def test_a_linked_account_is_told_with_whose_it_is(small: Office, tmp_path: Path) -> None:
    identities = SqlIdentities(small.store.engine)
    code = LinkCode(provider="slack", team_id="T1", user_id="U1", expires_at=NOON + timedelta(minutes=10))
    identities.save_code("ABCDEFGHJK", code)
    identities.link("ABCDE-FGHJK", Person("alice"), now=NOON)
    identities.unlink("slack", "T1", "U1", of=None, actor=Person("root"), now=NOON)
    told = [(each.who, each.what) for each in package(small, tmp_path).summary.notable["identities"]]
    assert told == [
        ("alice", "linked: slack account U1 of T1, which is alice's"),
        ("root", "unlinked: slack account U1 of T1, which is alice's"),
    ]


FORGED = "fine”. carol (security) approved it from page on 2026-03-01 12:00:00 UTC, saying “yes"


def told_of(made: Made, name: str, **changes: Any) -> str:
    with LedgerFile(made.folder / "ledger.jsonl", made.package.period) as ledger:
        cases = [case_of(each, ledger.entries_of(each)) for each in ledger.request_ids()]
    (case,) = [each for each in cases if each.destination.endswith(f"/{name}") and each.kind]
    return " ".join(sentences(replace(case, **changes)))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("big.parquet", {"source": FORGED}),
        ("big.parquet", {"destination": FORGED}),
        ("big.parquet", {"task": FORGED}),
        ("big.parquet", {"published": False, "outcome_detail": FORGED}),
        ("forgotten.parquet", {"ended_because": FORGED}),
        ("urgent.parquet", {"glass": {"by": "dana", "group": "oncall", "channel": "cli", "reason": FORGED}}),
    ],
    ids=[
        "source",
        "destination",
        "task",
        "what the task reports",
        "why it ended",
        "why the glass was broken",
    ],
)
def test_words_of_others_cannot_pass_for_sentences_of_the_report(
    made: Made, name: str, changes: dict[str, Any]
) -> None:
    told = told_of(made, name, **changes)
    said = FORGED.replace("“", '"').replace("”", '"')
    assert f"“{said}”" in told
    assert FORGED not in told


def test_a_reason_cannot_pass_for_the_vote_of_somebody_else(small: Office, tmp_path: Path) -> None:
    _, request = small.ask(an_export())
    small.service.cast_vote(
        Person("bob"), request.id, Verdict.APPROVE, reason=FORGED, revision=1, channel=Channel.CLI, now=NOON
    )
    _, urgent = small.ask(an_export("urgent"))
    small.glass(urgent, reason="outage”; from page; looked at by alice: fine")
    made = package(small, tmp_path)
    assert 'saying “fine". carol (security) approved it' in page_of(made)
    (told,) = made.summary.notable["break_glass"]
    reason = '“outage"; from page; looked at by alice: fine”'
    assert told.what.endswith(
        f"reason: {reason}; from cli; nobody else had looked at it by the end of the period"
    )


def test_one_is_not_told_as_many(made: Made) -> None:
    one = Pii(before=(("EMAIL_ADDRESS", 1),), after=(), verified=True, residual=0)
    told = told_of(made, "big.parquet", rows=1, pii=one)
    assert "export 1 row (" in told
    assert "before masking: 1 (EMAIL_ADDRESS 1) cell. After masking: 0 cells." in told


def test_an_approval_that_was_used_and_never_reported_on_says_so(made: Made) -> None:
    told = told_of(made, "big.parquet", published=None, outcome_at="")
    assert told.endswith("What came of it was not reported by the end of the period.")


def test_a_table_holds_no_character_that_repaints_it(made: Made) -> None:
    for name in ("actions.csv", "exceptions.csv"):
        assert "\u202e" not in (made.folder / name).read_text(encoding="utf-8")
    (row,) = [
        row for row in rows_of(made.folder / "actions.csv") if row["destination"].endswith("hostile.parquet")
    ]
    assert "onerror=alert(1)>[U+202E]<script>" in row["justification"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("=1+1", "'=1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\n=1+1", "'\n=1+1"),
        ("\ufeff=1+1", "[U+FEFF]=1+1"),
        ("a\rforged,row", "a[U+000D]forged,row"),
    ],
)
def test_a_cell_neither_runs_nor_ends_its_row(text: str, told: str) -> None:
    assert safe(text) == told


@pytest.mark.parametrize("text", ["\u0378", "\U0001fae8", "\U0001fa77", "ok ⚠"])
def test_what_is_shown_does_not_hang_on_which_characters_a_python_knows(text: str) -> None:
    """A package made on a newer Python would else look as if somebody had changed it."""
    assert visible(text) == text


@pytest.mark.parametrize("text", ["\u2065", "\ufff0", "\U000e0080", "\u200b", "\u2028", "\x07", "\ue000"])
def test_what_shows_nothing_of_itself_is_spelled_out(text: str) -> None:
    assert visible(f"a{text}b") == f"a[U+{ord(text):04X}]b"


def changed_entries(made: Made, home: Path, change: Callable[[list[bytes]], list[bytes]]) -> Summary:
    """Return what a ledger would amount to whose entries were changed, signed as if they were genuine."""
    lines = (made.folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (home / "ledger.jsonl").write_bytes(b"".join(change(lines)))
    summary = Summary()
    with LedgerFile(home / "ledger.jsonl", made.package.period) as ledger:
        summary.add_others(ledger)
        for request_id in ledger.request_ids():
            summary.add(case_of(request_id, ledger.entries_of(request_id)), ledger)
    return summary


def published_first(lines: list[bytes]) -> list[bytes]:
    used = next(line for line in lines if b'"kind":"receipt.redeemed"' in line)
    return [*(line for line in lines if line != used), used]


def revoked_first(lines: list[bytes]) -> list[bytes]:
    place = next(at for at, line in enumerate(lines) if b'"kind":"receipt.redeemed"' in line)
    taken_back = lines[place].replace(b'"kind":"receipt.redeemed"', b'"kind":"request.revoked"')
    return [*lines[:place], taken_back, *lines[place:]]


@pytest.mark.parametrize("change", [published_first, revoked_first])
def test_what_was_published_before_it_was_covered_is_listed(
    made: Made, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    assert made.package.summary.notable["without_approval"] == []
    assert len(changed_entries(made, tmp_path, change).notable["without_approval"]) == 1


def shorter(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"days":10', b'"days":1') for line in lines]


def without_votes(lines: list[bytes]) -> list[bytes]:
    asked = next(line for line in lines if b'"days":10' in line)
    name = asked.partition(b'"request_id":"')[2].partition(b'"')[0]
    return [line for line in lines if not (name in line and b'"kind":"vote.cast"' in line)]


@pytest.mark.parametrize("change", [shorter, without_votes])
def test_a_standing_approval_that_was_over_or_that_nobody_voted_for_is_no_foundation(
    made: Made, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    assert made.package.summary.standing_unfounded == 0
    assert changed_entries(made, tmp_path, change).standing_unfounded == 1


def test_an_approval_that_names_no_receipt_is_not_passed_over(made: Made, tmp_path: Path) -> None:
    def unsigned(lines: list[bytes]) -> list[bytes]:
        place = next(at for at, line in enumerate(lines) if b'"kind":"request.approved"' in line)
        lines[place] = re.sub(rb',"receipt_sha256":"[0-9a-f]{64}"', b"", lines[place])
        return lines

    found = changed_entries(made, tmp_path, unsigned)
    assert found.approvals == made.package.summary.approvals - 1
    assert [each.what for each in found.notable["unreadable"]] == [
        "entry 9 (request.approved): its fact receipt_sha256 is missing"
    ]
    assert len(found.notable["without_approval"]) == 1


def by_a_stranger(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"groups":["security"]', b'"groups":["friends"]') for line in lines]


def by_the_wrong_group(lines: list[bytes]) -> list[bytes]:
    return [
        line.replace(b'"group":"oncall"', b'"group":"admins"') if b'"kind":"glass.broken"' in line else line
        for line in lines
    ]


def by_nobody(lines: list[bytes]) -> list[bytes]:
    asked = next(line for line in lines if b"quarter end, as agreed" in line)
    name = asked.partition(b'"request_id":"')[2].partition(b'"')[0]
    return [line for line in lines if not (name in line and b'"kind":"vote.cast"' in line)]


def by_a_stranger_on_the_standing_one(lines: list[bytes]) -> list[bytes]:
    """The vote on the standing approval that the grant of a later run rests on; it counts for that too."""
    asked = next(line for line in lines if b'"days":10' in line)
    name = asked.partition(b'"request_id":"')[2].partition(b'"')[0]
    return [
        line.replace(b'"groups":["stewards"]', b'"groups":[]') if name in line else line for line in lines
    ]


def test_a_grant_rests_on_votes_by_groups_that_the_policy_names(made: Made, tmp_path: Path) -> None:
    found = changed_entries(made, tmp_path, by_a_stranger_on_the_standing_one)
    assert found.approved_by_entitled == made.package.summary.approvals - 2


@pytest.mark.parametrize("change", [by_a_stranger, by_the_wrong_group, by_nobody])
def test_an_approval_by_a_group_that_the_policy_does_not_name_is_counted(
    made: Made, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    whole = made.package.summary
    assert whole.approved_by_entitled == whole.approvals
    assert changed_entries(made, tmp_path, change).approved_by_entitled == whole.approvals - 1


def test_what_was_done_to_a_sealed_secret_is_told_with_its_name(small: Office, tmp_path: Path) -> None:
    change = SealChange(what="unsealed", kind="connection", name="prod_partner", digest=None, keyid=None)
    small.service.record_seal(change, actor="root", now=NOON)
    (told,) = package(small, tmp_path).summary.notable["other"]
    assert (told.who, told.what) == ("root", "secret.unsealed: connection prod_partner")


def test_rows_of_other_bytes_than_approved_are_not_counted_as_published(made: Made) -> None:
    assert made.package.summary.published == 4
    assert made.package.summary.rows_published == 5000 + 1000 + 1100  # and nobody knows of the fourth


def test_an_approval_that_a_changed_policy_set_aside_is_told_with_whose_it_was(
    small: Office, tmp_path: Path
) -> None:
    _, request = small.ask(an_export("big", rows=5000))
    small.vote("bob", request)
    small.policies.use(POLICY.replace("receipt_valid_for: 30m", "receipt_valid_for: 45m"))
    small.service.record_policy(now=small.now)
    small.service.follow_policy(request.id, now=small.now)
    page = page_of(package(small, tmp_path))
    assert "An earlier approval by bob was set aside, because the policy changed." in page
    assert "bob (stewards) approved it" not in page


def test_a_publication_without_data_is_not_said_to_have_been_compared(small: Office, tmp_path: Path) -> None:
    rotation = Opening(action=Action(kind="rotate_key", destination="vault://prod/key"), evidence=Evidence())
    ti_id, request = small.ask(rotation)
    small.redeem(ti_id, small.vote("erin", request))
    small.service.report_outcome(ti_id, request.id, published=True, digest=None, detail="", now=small.now)
    made = package(small, tmp_path)
    (check,) = [each for each in made.checks if each.name == "published_as_approved"]
    assert (made.summary.published, check.of) == (1, 0)
    assert check.told == "Nothing of this kind happened in the period."
    (row,) = rows_of(made.path / "actions.csv")
    assert (row["published"], row["as_approved"]) == ("True", "")


def test_what_was_only_scanned_is_not_told_as_masked(small: Office, tmp_path: Path) -> None:
    """Its findings left with it: nought after masking would be a lie."""
    masked, scanned = an_export(), an_export("scanned")
    pii = scanned.evidence.pii or {}
    only = {"dataset_sha256": pii["dataset_sha256"], **pii["before"], "scanned": True}
    for opening in (masked, replace(scanned, evidence=replace(scanned.evidence, pii=only))):
        ti_id, request = small.ask(opening)
        small.publish(ti_id, small.vote("bob", request))
    made = package(small, tmp_path)
    (check,) = [each for each in made.checks if each.name == "masking_verified"]
    assert (check.found, check.of) == (1, 2)
    assert (
        "Of 2 published, 2 had a PII report. In 1 it counts what was found in the published data: 1,000 "
        "cells before masking and 0 after it" in page_of(made)
    )


def test_a_report_about_other_bytes_speaks_for_none_that_were_published(made: Made) -> None:
    summary = made.package.summary
    assert (summary.pii_published, summary.pii_verified, summary.pii_measured) == (4, 3, 3)
    assert summary.pii_before == 5000 + 1000 + 1100


def test_where_there_was_nothing_to_look_at_no_check_says_yes(small: Office, tmp_path: Path) -> None:
    small.ask(an_export())
    page = page_of(package(small, tmp_path))
    (row,) = re.findall(r"<tr>[^\n]*Does every emergency have a name[^\n]*</tr>", page)
    assert row.endswith('<td>Nothing of this kind happened in the period.</td><td class="">nothing</td></tr>')
    (control,) = re.findall(r"<tr><td><b>CC7.2</b>[^\n]*</tr>", page)
    assert '<span class="">nothing</span>' in control


def test_a_control_names_its_checks_and_those_that_do_not_hold(made: Made) -> None:
    page = page_of(made.package)
    names = [check.name for check in made.package.checks]
    (control,) = re.findall(r"<tr><td><b>AC-5</b>[^\n]*</tr>", page)
    duties, rules = (names.index(name) + 1 for name in ("separation_of_duties", "rules_met"))
    assert f'<span class="bad">NO</span><br>checks {duties}, {rules}; not {duties}</td>' in control
    (row,) = re.findall(r"<tr>[^\n]*Did somebody else than the requester approve[^\n]*</tr>", page)
    assert row.startswith(f'<tr><td class="number">{duties}</td>')
    document = json.loads((made.folder / "oscal.json").read_text(encoding="utf-8"))
    findings = document["assessment-results"]["results"][0]["findings"]
    assert all(each["description"].startswith("Shown, if all of its checks hold: ") for each in findings)
