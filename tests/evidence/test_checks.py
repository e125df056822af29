"""Each check of a report can be answered with no: for each there is a ledger of which it does not hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_approvals.core.canonical import canonical_json, digest_of
from airflow_approvals.core.export import keys_brought_by
from airflow_approvals.core.model import State
from airflow_approvals.core.policy import parse_policy_file
from airflow_approvals.evidence.cases import case_of
from airflow_approvals.evidence.checks import Checked, check_names, checked
from airflow_approvals.evidence.controls import mapping
from airflow_approvals.evidence.ledger_file import LedgerFile
from airflow_approvals.evidence.summary import Summary
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import create_store
from tests.evidence.conftest import POLICY, Made, Office, an_export, package_of, whole_period

Lines = list[bytes]


def first_of(lines: Lines, *parts: bytes) -> int:
    """Return where the first entry stands that has all these words in it."""
    return next(place for place, line in enumerate(lines) if all(part in line for part in parts))


def changed_in(kind: str, old: bytes, new: bytes, *parts: bytes) -> Callable[[Lines], Lines]:
    """Return a change to the first entry of a kind; `old` is a pattern."""

    def change(lines: Lines) -> Lines:
        place = first_of(lines, b'"kind":"%b"' % kind.encode(), *parts)
        line, changes = re.subn(old, new, lines[place], count=1)
        assert changes == 1
        return [*lines[:place], line, *lines[place + 1 :]]

    return change


def without(kind: str) -> Callable[[Lines], Lines]:
    def change(lines: Lines) -> Lines:
        place = first_of(lines, b'"kind":"%b"' % kind.encode())
        return [*lines[:place], *lines[place + 1 :]]

    return change


def used_again(lines: Lines) -> Lines:
    place = first_of(lines, b'"kind":"receipt.redeemed"')
    return [*lines[: place + 1], lines[place], *lines[place + 1 :]]


FOREIGN_KEY = {
    "keyid": "74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916",
    "keytype": "ed25519",
    "scheme": "ed25519",
    "keyval": {"public": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"},
}
"""The first public key of RFC 8032, 7.1."""


def a_key_put_beside(lines: Lines) -> Lines:
    header = json.loads(lines[0])
    header["keys"].append(FOREIGN_KEY)
    return [canonical_json(header) + b"\n", *lines[1:]]


SPOILED: dict[str, Callable[[Lines], Lines]] = {
    "times_in_order": changed_in("vote.cast", rb'"time":"2026-03-0[0-9]', b'"time":"2026-02-01'),
    "keys_on_record": a_key_put_beside,
    "entries_readable": changed_in("vote.cast", rb'"verdict":"approve"', b'"verdict":"perhaps"'),
    "entries_complete": without("request.opened"),
    "approved_before_publish": without("receipt.redeemed"),
    "published_as_approved": changed_in(
        "outcome.reported", rb'"digest":"[0-9a-f]{64}"', b'"digest":"%b"' % (b"e" * 64)
    ),
    "single_use": used_again,
    "separation_of_duties": changed_in("vote.cast", rb'"voter":"carol"', b'"voter":"engineer"', b'"carol"'),
    "approvers_entitled": changed_in(
        "vote.cast", rb'"groups":\["security"\]', b'"groups":["friends"]', b'"carol"'
    ),
    "rules_met": changed_in("vote.cast", rb'"groups":\["security"\]', b'"groups":["stewards"]', b'"carol"'),
    "emergencies_explained": without("glass.broken"),
    "refusals_recorded": changed_in("attempt.refused", rb'"because":"[^"]+"', b'"because":""'),
    "standing_founded": changed_in("request.opened", rb'"days":10', b'"days":1', b'"days":10'),
    "policy_on_record": without("policy.loaded"),
    "masking_verified": changed_in("request.opened", rb'"verified":true', b'"verified":false'),
}


def checks_of(made: Made, home: Path, change: Callable[[Lines], Lines]) -> dict[str, Checked]:
    """Return what would be told of a ledger that was changed, and signed as if it were genuine."""
    lines = change((made.folder / "ledger.jsonl").read_bytes().splitlines(keepends=True))
    (home / "ledger.jsonl").write_bytes(b"".join(lines))
    summary = Summary()
    with LedgerFile(home / "ledger.jsonl", made.package.period) as ledger:
        summary.add_keys(keys_brought_by(lines[0]).keys(), ledger)
        summary.add_others(ledger)
        for request_id in ledger.request_ids():
            summary.add(case_of(request_id, ledger.entries_of(request_id)), ledger)
    return {check.name: check for check in checked(summary)}


def missing(check: Checked) -> int:
    return check.of - check.found


def test_there_is_a_way_to_fail_for_every_check() -> None:
    assert SPOILED.keys() == check_names()
    assert {name for control in mapping().controls for name in control.checks} == check_names()


@pytest.mark.parametrize(("name", "spoil"), SPOILED.items(), ids=SPOILED.keys())
def test_a_check_fails_where_the_ledger_tells_of_what_it_asks_for(
    made: Made, tmp_path: Path, name: str, spoil: Callable[[Lines], Lines]
) -> None:
    whole = {check.name: check for check in made.package.checks}[name]
    spoiled = checks_of(made, tmp_path, spoil)[name]
    assert missing(spoiled) > missing(whole)
    assert not spoiled.holds


def twice_the_same(lines: Lines) -> Lines:
    place = first_of(lines, b'"kind":"vote.cast"', b'"voter":"carol"')
    line = lines[place].replace(b'"voter":"carol"', b'"voter":"alice"')
    return [*lines[:place], line, *lines[place + 1 :]]


def with_rules(old: bytes, new: bytes) -> Callable[[Lines], Lines]:
    """Return a change to the rules on record, by whose new digest all requests go then."""

    def change(lines: Lines) -> Lines:
        place = first_of(lines, b'"kind":"policy.loaded"', old)
        changed = lines[place].replace(old, new, 1)
        was, now = (
            digest_of(json.loads(line)[1]["data"]["rules"][0]).encode() for line in (lines[place], changed)
        )
        return [line.replace(was, now) for line in (*lines[:place], changed, *lines[place + 1 :])]

    return change


UNMET: dict[str, Callable[[Lines], Lines]] = {
    "one person for two rules": twice_the_same,
    "by somebody who asked": changed_in("vote.cast", rb'"voter":"carol"', b'"voter":"engineer"', b'"carol"'),
    "a vote too few": without("vote.cast"),
    "rows for which another rule applies": changed_in(
        "request.opened", rb'"rows":1000', b'"rows":2001', b'"rows":1000'
    ),
    "facts that cannot be read": changed_in(
        "request.opened", rb'"nullable":true', b'"nullable":"dream"', b'"rows":1000'
    ),
    "a vote that cannot be read": changed_in("vote.cast", rb'"verdict":"approve"', b'"verdict":"perhaps"'),
    "a standing approval on nobody's votes": changed_in(
        "request.approved", rb'"by":\["alice"\]', b'"by":[]', b'"kind":"standing"'
    ),
    "a standing approval that is not there": changed_in(
        "request.approved", rb'"standing_id":"[^"]+"', b'"standing_id":"none"', b'"kind":"standing"'
    ),
    "rules that ask for more": with_rules(b'"approvals":1', b'"approvals":2'),
    "rules that cannot be read": with_rules(b'"approvals":1', b'"approvals":0'),
    "rules that are not on record": without("policy.loaded"),
}


@pytest.mark.parametrize("change", UNMET.values(), ids=UNMET.keys())
def test_an_approval_that_does_not_meet_its_rules_is_counted(
    made: Made, tmp_path: Path, change: Callable[[Lines], Lines]
) -> None:
    whole = {check.name: check for check in made.package.checks}["rules_met"]
    assert (whole.found, whole.of) == (5, 5)  # the sixth is an emergency
    assert missing(checks_of(made, tmp_path, change)["rules_met"]) > 0


@pytest.mark.parametrize("votes_after", [1, 2], ids=["the decision", "a run that it stands for"])
def test_who_changes_groups_after_voting_counts_for_those_of_the_decision(
    tmp_path: Path, votes_after: int
) -> None:
    """The gate counts membership when it decides; so does the check, by what the decision has on record."""
    store = create_store(f"sqlite:///{tmp_path / 'airflow.db'}")
    create_tables(store.engine)
    office = Office(store, tmp_path)
    _, big = office.ask(an_export("big", rows=5000))
    office.vote("alice", big)
    if votes_after == 2:
        big = office.stands(office.vote("carol", big))
        office.vote("carol", big)
    groups = {"stewards: {users: [alice, bob]}": "stewards: {users: [bob, carol]}"}
    groups["security: {users: [carol]}"] = "security: {users: [alice]}"
    text = POLICY
    for old, new in groups.items():
        text = text.replace(old, new)
    office.policies.file = parse_policy_file(text, name="policy.yaml")
    if votes_after == 2:
        _, granted = office.ask(an_export("big", rows=5000))
        assert granted.granted is not None
    else:
        assert office.vote("bob", big).state is State.APPROVED
    package = package_of(office, tmp_path / "package", whole_period(office))
    checks = {check.name: check for check in package.checks}
    assert checks["rules_met"].holds
    assert checks["approvers_entitled"].holds
    assert checks["rules_met"].of == votes_after + (votes_after == 2)
    decided = [
        line for line in (package.path / "ledger.jsonl").read_text().splitlines() if '"regrouped"' in line
    ]
    assert len(decided) == 1
    store.close()


def test_servers_whose_clocks_differ_by_seconds_put_nothing_out_of_order(made: Made, tmp_path: Path) -> None:
    sooner = changed_in("vote.cast", rb'"time":"2026-03-01T13:00:00', b'"time":"2026-03-01T12:55:00')
    assert checks_of(made, tmp_path, sooner)["times_in_order"].holds


def test_a_time_that_cannot_be_read_is_out_of_order(made: Made, tmp_path: Path) -> None:
    unread = changed_in("vote.cast", rb'"time":"2026-03-01T13:00:00.000000Z"', b'"time":"1"')
    assert not checks_of(made, tmp_path, unread)["times_in_order"].holds
