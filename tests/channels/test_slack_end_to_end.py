"""A real Airflow and a fake Slack, over HTTP and over Socket Mode: from the prompt to what came of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_approvals.core.model import ApprovalRequest, Channel, State, Verdict
from tests.channels.real import ALICE, BOB, ENGINEER, LOADED, RealSite, eventually
from tests.databases import empty_database
from tests.fake_slack.people import FakeSlack, action_of, down
from tests.fake_slack.server import create_fake_app
from tests.fake_slack.workspace import Message
from tests.provider.site import free_port
from tests.web.site import serving

pytestmark = pytest.mark.airflow

OUTAGE = float(os.environ.get("APPROVALS_OUTAGE_SECONDS", "2"))
"""For how long Slack is away; 300 is worth a run by hand, and takes ten minutes for each way and database."""
PATIENCE = LOADED + OUTAGE  # until it has been told everything

APPROVE, DENY, ASK = (f"approvals.{wish}" for wish in ("approve", "deny", "ask"))


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty metadata database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('database') / 'airflow.db'}?timeout=60"
        return
    with empty_database(str(request.getfixturevalue("postgres_url")), "slack") as found:
        yield found


@pytest.fixture(scope="module")
def shared(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSite]:
    """One API server and one listener for all tests on a database; Slack decides which of them it tells."""
    port = free_port()
    slack = FakeSlack(address=f"http://127.0.0.1:{port}", ack_seconds=LOADED, trigger_seconds=LOADED)
    for account in (ALICE, BOB, ENGINEER):
        slack.add_user(account, account.lower())
    home = tmp_path_factory.mktemp("airflow")
    with serving(create_fake_app(slack), port, has_sockets=True):
        site = RealSite(home, database_url, slack)
        site.migrate()
        try:
            site.start()
            site.link_all()
            yield site
        finally:
            site.stop()
            shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=["http", "socket"])
def site(request: pytest.FixtureRequest, shared: RealSite) -> Iterator[RealSite]:
    """The site, with clicks coming in one way."""
    shared.slack.is_socket = request.param == "socket"
    yield shared
    assert shared.slack.problems == []
    shared.slack.notes.clear()


def is_frozen(message: Message, word: str) -> bool:
    told = json.dumps(message.blocks)
    return '"actions"' not in told and word in told


def votes_of(request: ApprovalRequest) -> list[tuple[str, Channel]]:
    return [(vote.voter, vote.channel) for vote in request.votes]


def test_a_click_publishes_the_export_that_waits_for_it(site: RealSite, tmp_path: Path) -> None:
    staged, target = tmp_path / "customers.csv", tmp_path / "outbox" / "customers.csv"
    target.parent.mkdir()
    staged.write_text("id,city\n1,Graz\n2,Linz\n")
    task = site.dag_test(staged, target)
    request = eventually(site.request_of_dag, seconds=240)
    message = site.prompt(request)
    assert not target.exists()
    site.slack.click(ALICE, message, APPROVE)
    assert task.wait(timeout=240) == 0
    assert target.read_bytes() == staged.read_bytes()
    assert votes_of(site.fresh(request)) == [("alice", Channel.SLACK)]
    eventually(lambda: is_frozen(message, "completed: approved by alice"))
    assert len(site.prompts(request)) == 1


def test_deny_asks_for_the_reason_and_tells_it(site: RealSite) -> None:
    request = site.open()
    message = site.prompt(request)
    site.slack.click(ALICE, message, DENY)
    eventually(lambda: site.slack.views)
    assert site.state_of(request) is State.PENDING
    site.slack.submit(ALICE, "not before the audit")
    denied = site.becomes(request, State.DENIED)
    assert (denied.votes[0].reason, denied.votes[0].channel) == ("not before the audit", Channel.SLACK)
    eventually(lambda: is_frozen(message, "not before the audit"))
    site.slack.views.clear()


def test_a_question_and_its_answer_stand_in_the_thread(site: RealSite) -> None:
    request = site.open()
    message = site.prompt(request)
    site.slack.click(ALICE, message, ASK)
    eventually(lambda: site.slack.views)
    site.slack.submit(ALICE, "which partner?")
    eventually(lambda: site.fresh(request).questions)
    with site.person("engineer") as engineer:
        engineer.answer(request.id, question_id=1, text="the one in the contract")
    eventually(lambda: "the one in the contract" in json.dumps(message.blocks))
    eventually(lambda: len([each for each in site.slack.messages if each.thread_ts == message.ts]) == 2)
    assert action_of(message.blocks, APPROVE)  # still open
    site.slack.views.clear()


def test_two_groups_are_needed_and_the_prompt_counts_them(site: RealSite) -> None:
    request = site.open("secret/")
    message = site.prompt(request)
    assert "0 of 2" in json.dumps(message.blocks)
    site.slack.click(ALICE, message, APPROVE)
    eventually(lambda: "1 of 2: data-stewards done, security missing" in json.dumps(message.blocks))
    site.slack.click(BOB, message, APPROVE)
    approved = site.becomes(request, State.APPROVED)
    assert votes_of(approved) == [("alice", Channel.SLACK), ("bob", Channel.SLACK)]
    eventually(lambda: is_frozen(message, "approved by alice, bob"))


def test_requesters_cannot_approve_their_own_request(site: RealSite) -> None:
    request = site.open()
    site.slack.click(ENGINEER, site.prompt(request), APPROVE)
    (note,) = eventually(lambda: site.notes_to(ENGINEER))
    assert "requesters cannot approve their own action" in note
    assert site.state_of(request) is State.PENDING


def test_a_request_that_nobody_answers_expires_in_slack_too(site: RealSite) -> None:
    request = site.open()
    message = site.prompt(request)
    old = action_of(message.blocks, APPROVE)
    site.let_expire(request)
    site.becomes(request, State.EXPIRED)
    eventually(lambda: is_frozen(message, "expired"))
    site.slack.click(ALICE, message, APPROVE, action=old)
    assert "already expired" in eventually(lambda: site.notes_to(ALICE))[0]


def test_a_decision_made_elsewhere_freezes_the_prompt(site: RealSite) -> None:
    request = site.open()
    message = site.prompt(request)
    old = action_of(message.blocks, APPROVE)
    with site.person("alice") as alice:
        alice.vote(request.id, Verdict.DENY, revision=1, reason="not this month")
    eventually(lambda: is_frozen(message, "denied by alice"))
    site.slack.click(ALICE, message, APPROVE, action=old)
    assert "already denied" in eventually(lambda: site.notes_to(ALICE))[0]
    assert site.state_of(request) is State.DENIED


def test_slack_that_was_away_is_told_everything_once(site: RealSite) -> None:
    before = site.open()
    message = site.prompt(before)
    with down(site.slack):
        during = site.open()
        with site.person("alice") as alice:
            # Neither opening nor voting waits for Slack.
            assert alice.vote(before.id, Verdict.APPROVE, revision=1).state is State.APPROVED
        time.sleep(OUTAGE)
    site.prompt(during, seconds=PATIENCE)
    eventually(lambda: is_frozen(message, "approved by alice"), seconds=PATIENCE)
    site.slack.click(ALICE, site.prompt(during), APPROVE)
    site.becomes(during, State.APPROVED)
    assert len(site.prompts(during)) == 1


def test_servers_that_are_killed_after_the_vote_leave_the_prompt_to_the_next(site: RealSite) -> None:
    request = site.open()
    message = site.prompt(request)
    site.slack.held = frozenset({"chat.update"})
    try:
        site.slack.click(ALICE, message, APPROVE)
        site.becomes(request, State.APPROVED)
        site.stop(kill=True)
    finally:
        site.slack.held = frozenset()
    edits = message.edits
    site.pass_leases()
    site.start()
    eventually(lambda: message.edits > edits and is_frozen(message, "approved by alice"))
    assert votes_of(site.fresh(request)) == [("alice", Channel.SLACK)]
    assert len(site.prompts(request)) == 1


def test_the_listener_ends_when_it_is_told_to(shared: RealSite) -> None:
    assert shared.end_listener() == 0
