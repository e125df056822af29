"""The command line against a real server: what people and programs see, and what each refusal ends with."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_approvals.cli.answers import _allowed
from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.requests import _what
from airflow_approvals.core.model import Evidence, StandingTerms
from tests.cli.conftest import Say
from tests.web.site import LOADED, Site, an_opening


def ask_for(site: Site, name: str = "customers", *, folder: str = "") -> str:
    """Open a request as a task of a run of its own, and return its id."""
    ti_id = site.add_task(run_id=f"manual__{uuid4()}")
    with site.worker(ti_id) as worker:
        return worker.open_request(an_opening(name, folder=folder))[0].id


def test_the_list_shows_what_waits_where_it_goes_and_who_asks(site: Site, say: Say) -> None:
    request_id = ask_for(site, "listed")
    told = say("list", user="alice")
    assert told.code == Exit.OK
    for word in (request_id[:8], "pending", "export 5,000 rows", "file:///outbox/listed.csv", "engineer"):
        assert word in told.out


def test_the_list_keeps_where_a_long_destination_begins_and_ends(site: Site, say: Say) -> None:
    ask_for(site, "far", folder="partners/of/the/north/and/the/south/2026/")
    told = say("list", user="alice")
    assert "file:///…/2026/far.csv" in told.out
    assert "and/the/south" not in told.out


def test_the_list_is_read_at_eighty_columns_without_a_break_in_a_name(
    site: Site, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = ask_for(site, "narrow", folder="partners/south/2026/")
    monkeypatch.setenv("COLUMNS", "80")
    told = say("list", user="alice")
    where = ("export 5,000 rows", "file:///…/2026/narrow.csv", "export · publish")
    for word in (request_id[:8], "pending", *where, "engineer", "s ago", "3h 59m left"):
        assert word in told.out
    assert max(map(len, told.out.splitlines())) <= 80


def test_the_list_can_be_of_one_index_of_a_mapped_task(site: Site, say: Say) -> None:
    run_id = f"manual__{uuid4()}"
    asked = {}
    for task_id, index in (("load", 0), ("load", 1), ("publish", -1)):
        ti_id = site.add_task(dag_id="mapped", run_id=run_id, task_id=task_id, map_index=index)
        with site.worker(ti_id) as worker:
            asked[task_id, index] = worker.open_request(an_opening(f"{task_id}{index}"))[0].id

    def listed(*options: str) -> set[str]:
        told = say("list", "--run-id", run_id, *options, "-o", "json", user="alice")
        return {request["id"] for request in json.loads(told.out)["requests"]}

    assert listed("--task-id", "load") == {asked["load", 0], asked["load", 1]}
    assert listed("--task-id", "load", "--map-index", "1") == {asked["load", 1]}
    assert listed("--map-index", "0") == {asked["load", 0]}
    assert listed("--map-index", "-1") == {asked["publish", -1]}
    assert listed("--map-index", "2") == set()
    assert say("list", "--map-index", "-2", user="alice").code == Exit.USAGE


def test_show_keeps_digests_whole_and_tells_personal_data_in_words(
    site: Site, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = an_opening("masked")
    dataset = opening.evidence.datasets[0]
    column = {"column": "name", "cells_with_findings": 7, "entities": [{"entity_type": "PERSON", "cells": 7}]}
    report = {
        "dataset_sha256": dataset.sha256,
        "scanned": True,
        "verified": True,
        "residual": 0,
        "before": {"columns": [column]},
        "after": {"columns": [{**column, "cells_with_findings": 0, "entities": []}]},
    }
    evidence = replace(opening.evidence, pii=report)
    with site.worker(site.add_task(run_id=f"manual__{uuid4()}")) as worker:
        request, _ = worker.open_request(replace(opening, evidence=evidence))
    monkeypatch.setenv("COLUMNS", "80")
    told = say("show", request.id, user="alice").out
    assert dataset.sha256 in told
    assert "7 cells in 1 column (PERSON 7)" in told
    assert "yes, 0 left over" in told
    assert "scanned: True" not in told


@pytest.mark.parametrize("name", ["a" * 36, "../../secrets"])
def test_what_is_no_id_is_said_to_be_unknown(say: Say, name: str) -> None:
    told = say("show", name, user="alice")
    assert told.code == Exit.USAGE
    assert "no request begins with" in told.err


def test_a_file_beside_the_person_is_a_dataset(say: Say, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("id,name\n1,Ann\n")
    told = say(
        *("request", "--dataset", "people.csv", "--destination", "file:///outbox/people.csv", "-o", "json"),
        user="engineer",
    )
    assert told.code == Exit.OK
    assert told.json["evidence"]["datasets"][0]["uri"] == f"{tmp_path}/people.csv"
    assert told.json["action"]["source"] == f"{tmp_path}/people.csv"


def test_an_export_for_programs_is_told_as_json(say: Say) -> None:
    told = say("ledger", "export", "ledger.jsonl", "-o", "json", user="root")
    assert (told.code, told.json["file"]) == (Exit.OK, "ledger.jsonl")
    assert told.json["bytes"] > 0


def test_the_servers_ledger_is_named_by_its_server(site: Site, say: Say) -> None:
    ask_for(site, "named")
    told = say("ledger", "verify", user="root")
    assert told.code == Exit.OK
    assert told.out.startswith(f"{site.base_url}: the ledger holds")
    told = say("ledger", "verify", "-o", "json", user="root")
    assert told.json["verified"][0]["file"] == site.base_url


def test_the_public_keys_are_written_to_a_file_that_verifies(site: Site, say: Say, tmp_path: Path) -> None:
    ask_for(site, "keyed")
    told = say("ledger", "keys", "keys.json", user="alice")
    assert told.code == Exit.OK
    (key,) = json.loads((tmp_path / "keys.json").read_text())["keys"]
    assert key["keyid"] == site.service.signer.keyid
    assert key["keyid"] in told.out
    say("ledger", "export", "ledger.jsonl", user="root")
    assert say("verify", "ledger.jsonl", "--key", "keys.json").code == Exit.OK
    assert say("ledger", "keys", "-o", "json", user="alice").json == {"keys": [key]}


def test_a_server_that_is_away_is_said_with_how_to_name_another(say: Say) -> None:
    told = say("list", "--url", "http://127.0.0.1:9", user="alice")
    assert told.code == Exit.UNAVAILABLE
    assert "--url" in told.err


def test_the_list_for_programs_has_whole_requests_and_a_total(site: Site, say: Say) -> None:
    request_id = ask_for(site)
    told = say("list", "--status", "all", "-o", "json", user="alice")
    assert request_id in [request["id"] for request in told.json["requests"]]
    assert told.json["total"] >= len(told.json["requests"])


def test_show_has_everything_an_approver_decides_on(site: Site, say: Say) -> None:
    request_id = ask_for(site, "shown")
    told = say("show", request_id[:8], user="alice")
    assert told.code == Exit.OK
    for word in (
        request_id,
        "file:///staged/shown.csv",
        "file:///outbox/shown.csv",
        "monthly feed",
        "5,000 rows",
        "id (int64)",
        "engineer",
        "partner-export",
        "0 of 1: data-stewards missing",
    ):
        assert word in told.out


def test_an_approval_with_the_beginning_of_an_id_is_recorded_as_from_the_command_line(
    site: Site, say: Say
) -> None:
    request_id = ask_for(site)
    told = say("approve", request_id[:13], "--yes", "--reason", "checked", user="alice")
    assert told.code == Exit.OK, told.err
    assert "exactly these bytes" in told.out
    shown = say("show", request_id, "-o", "json", user="alice").json
    assert shown["state"] == "approved"
    assert [(vote["voter"], vote["channel"], vote["reason"]) for vote in shown["votes"]] == [
        ("alice", "cli", "checked")
    ]
    assert shown["receipt"]["mediaType"]


def test_a_denial_needs_a_reason_where_the_policy_says_so(site: Site, say: Say) -> None:
    request_id = ask_for(site)
    assert say("deny", request_id, "--yes", user="alice").code == Exit.USAGE
    assert say("deny", request_id, "--yes", "-r", "contract over", user="alice").code == Exit.OK
    assert say("show", request_id, "-o", "json", user="alice").json["state"] == "denied"


def test_a_requester_cannot_approve_their_own_export(site: Site, say: Say) -> None:
    request_id = ask_for(site)
    told = say("approve", request_id, "--yes", user="engineer")
    assert told.code == Exit.NOT_ALLOWED
    assert "requesters cannot approve" in told.err
    assert "Traceback" not in told.err


def test_a_vote_on_what_is_decided_has_an_exit_code_of_its_own(site: Site, say: Say) -> None:
    request_id = ask_for(site)
    say("approve", request_id, "--yes", user="alice")
    assert say("approve", request_id, "--yes", user="bob").code == Exit.MOVED_ON


def test_a_first_approval_of_two_says_that_others_must_still_answer(site: Site, say: Say) -> None:
    request_id = ask_for(site, "both", folder="secret/")
    told = say("approve", request_id, "--yes", user="alice")
    assert "others must still answer" in told.out
    assert "1 of 2" in say("show", request_id, user="carol").out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "exactly these bytes may be published now"),
        ({"evidence": Evidence()}, "exactly this may be done now, once"),
        (
            {"standing": StandingTerms(approved_id="", days=10, dag_id="d", task_id="t", gate="")},
            "it stands for 10 days, or until",
        ),
    ],
)
def test_who_has_approved_is_told_what_may_happen_now(
    site: Site, say: Say, changes: dict[str, Any], words: str
) -> None:
    request = site.service.store.get_request(ask_for(site))
    assert words in _allowed(replace(request, **changes))


def test_a_standing_approval_is_listed_with_the_task_that_it_is_for(site: Site) -> None:
    request = site.service.store.get_request(ask_for(site))
    terms = StandingTerms(approved_id="", days=10, dag_id="feed", task_id="publish", gate="")
    assert _what(replace(request, origin=None, standing=terms)).endswith("\nfeed · publish, for 10 days")


def test_nothing_is_sent_without_a_terminal_or_yes(site: Site, say: Say) -> None:
    request_id = ask_for(site)
    assert say("approve", request_id, user="alice").code == Exit.USAGE
    assert not say("show", request_id, "-o", "json", user="alice").json["votes"]


def test_questions_and_answers_are_on_the_record(site: Site, say: Say) -> None:
    request_id = ask_for(site)
    asked = say("ask", request_id, "Which partner?", user="alice")
    assert asked.code == Exit.OK
    assert f"airflow-approvals answer {request_id} TEXT" in " ".join(asked.out.split())
    assert say("answer", request_id, "The mailing house", user="engineer").code == Exit.OK
    shown = say("show", request_id, user="alice").out
    assert "Which partner?" in shown
    assert "The mailing house" in shown
    assert say("answer", request_id, "again", user="engineer").code == Exit.USAGE


def test_a_requester_cancels_and_an_approver_revokes(site: Site, say: Say) -> None:
    pending, approved = ask_for(site), ask_for(site)
    assert say("cancel", pending, user="bob").code == Exit.NOT_ALLOWED
    assert say("cancel", pending, "-r", "too early", user="engineer").code == Exit.OK
    say("approve", approved, "--yes", user="alice")
    assert say("revoke", approved, user="alice").code == Exit.OK
    states = [say("show", one, "-o", "json", user="alice").json["state"] for one in (pending, approved)]
    assert states == ["cancelled", "revoked"]


@pytest.mark.parametrize("beginning", ["ffffffff-0000", "zzzz", "ab"])
def test_an_unknown_or_too_short_beginning_of_an_id_is_wrong_use(say: Say, beginning: str) -> None:
    assert say("show", beginning, user="alice").code == Exit.USAGE


def test_without_a_login_nothing_is_shown(site: Site, say: Say) -> None:
    assert say("list").code == Exit.NOT_ALLOWED
    assert say("list", user="").code == Exit.NOT_ALLOWED


def test_a_server_that_is_not_there_has_an_exit_code_of_its_own(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_approvals.cli.session.PATIENCE", 0.0)
    monkeypatch.setenv("APPROVALS_URL", "http://127.0.0.1:9")
    told = say("list", "--username", "alice")
    assert told.code == Exit.NOT_ALLOWED, "a password is needed first"
    monkeypatch.setenv("APPROVALS_PASSWORD", "some password")
    assert say("list", "--username", "alice").code == Exit.UNAVAILABLE


def test_a_request_by_hand_is_waited_for_until_it_is_approved(site: Site, say: Say) -> None:
    approver = threading.Thread(target=_approve_what_comes, args=(site, "by-hand"), daemon=True)
    approver.start()
    told = say(
        *("request", "--kind", "export", "--destination", "file:///outbox/by-hand"),
        *("-p", "rows=12", "-j", "a single correction", "--wait", "--timeout", str(LOADED)),
        user="engineer",
    )
    approver.join()
    assert told.code == Exit.OK, told.err
    assert "approved" in told.out


def test_a_request_that_nobody_answers_in_time_is_not_approved(say: Say) -> None:
    told = say(
        *("request", "--destination", "file:///outbox/unanswered", "--wait", "--timeout", "0.2"),
        user="engineer",
    )
    assert told.code == Exit.NOT_APPROVED
    assert "pending, not approved" in told.err


def test_the_same_idempotency_key_finds_the_same_request(say: Say) -> None:
    words = (
        "request",
        "--destination",
        "file:///outbox/once",
        "--idempotency-key",
        str(uuid4()),
        "-o",
        "json",
    )
    assert say(*words, user="engineer").json["id"] == say(*words, user="engineer").json["id"]


def test_what_is_shown_cannot_repaint_the_terminal(say: Say) -> None:
    told = say(
        *("request", "--destination", "file:///outbox/escape", "-j", "fine [bold]\u202ereversed"),
        user="engineer",
    )
    request_id = told.out.split()[-1]
    shown = say("show", request_id, user="alice").out
    assert "\u202e" not in shown
    assert "\\u202e" in shown
    assert "[bold]" in shown


def test_the_name_of_a_parameter_cannot_repaint_the_terminal_either(site: Site, say: Say) -> None:
    named = {"[/b][conceal]\x1b[2J": "1", "other\nto": "\nfile:///outbox/harmless"}
    opening = an_opening("repaint")
    action = replace(opening.action, parameters=named)
    with site.worker(site.add_task(run_id=f"manual__{uuid4()}")) as worker:
        request = worker.open_request(replace(opening, action=action))[0]
    shown = say("show", request.id, user="alice")
    assert shown.code == Exit.OK
    assert "[/b][conceal]\\u001b[2J" in shown.out
    assert [line.split() for line in shown.out.splitlines() if line.startswith("to ")] == [
        ["to", "file:///outbox/repaint.csv"]
    ]


def _approve_what_comes(site: Site, name: str) -> None:
    with site.person("alice") as alice:
        deadline = time.monotonic() + LOADED
        while time.monotonic() < deadline:
            for request in alice.list_requests(status=["pending"]).requests:
                if (request.action.destination or "").endswith(name):
                    alice.vote(request.id, "approve", revision=request.revision)
                    return
            time.sleep(0.05)
