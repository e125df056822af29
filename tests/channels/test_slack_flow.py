"""Answers from Slack, over HTTP: the real app on a real server, a fake workspace on another."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from airflow_approvals.channels.slack import workspace
from airflow_approvals.core.model import ApprovalRequest, Channel, State
from tests.channels.site import (
    ALICE,
    BOB,
    CAROL,
    CHANNEL,
    ENGINEER,
    LOADED,
    MALLORY,
    SlackSite,
    code_in,
    eventually,
)
from tests.fake_slack.people import action_of, down
from tests.fake_slack.workspace import Message
from tests.web.site import an_opening

APPROVE, DENY, ASK, DETAILS = (f"approvals.{wish}" for wish in ("approve", "deny", "ask", "details"))

OVER_HTTP = pytest.mark.parametrize("transport", ["http"], indirect=True)


def state_of(site: SlackSite, request: ApprovalRequest) -> State:
    return site.store.get_request(request.id).state


def becomes(site: SlackSite, request: ApprovalRequest, state: State) -> ApprovalRequest:
    eventually(lambda: state_of(site, request) is state)
    return site.store.get_request(request.id)


def is_frozen(message: Message, word: str) -> bool:
    told = json.dumps(message.blocks)
    return '"actions"' not in told and word in told


def refusals(site: SlackSite) -> list[tuple[str, str]]:
    entries = [entry for entry in site.ledger() if entry["kind"] == "attempt.refused"]
    return [(entry["actor"], entry["data"]["type"]) for entry in entries]


def test_one_click_approves_and_the_prompt_keeps_its_facts_without_buttons(site: SlackSite) -> None:
    request = site.open()
    message = site.prompt(request)
    assert "file:///outbox/customers.csv" in json.dumps(message.blocks)
    assert site.slack.click(ALICE, message, APPROVE).status_code == 200
    approved = becomes(site, request, State.APPROVED)
    assert [(vote.voter, vote.channel) for vote in approved.votes] == [("alice", Channel.SLACK)]
    eventually(lambda: is_frozen(message, "approved by alice"))
    assert "file:///outbox/customers.csv" in json.dumps(message.blocks)
    assert len(site.prompts(request)) == 1


def test_deny_asks_for_a_reason_and_tells_it(site: SlackSite) -> None:
    request = site.open()
    message = site.prompt(request)
    site.slack.click(BOB, message, DENY)
    eventually(lambda: site.slack.views)
    assert state_of(site, request) is State.PENDING
    assert site.slack.submit(BOB, "not before the audit").status_code == 200
    denied = becomes(site, request, State.DENIED)
    assert denied.votes[0].reason == "not before the audit"
    eventually(lambda: is_frozen(message, "not before the audit"))


def test_a_question_stands_in_the_thread_and_so_does_its_answer(site: SlackSite) -> None:
    request = site.open()
    message = site.prompt(request)
    site.slack.click(ALICE, message, ASK)
    eventually(lambda: site.slack.views)
    site.slack.submit(ALICE, "which partner?")
    eventually(lambda: [each for each in site.slack.messages if each.thread_ts == message.ts])
    with site.person("engineer") as engineer:
        engineer.answer(request.id, question_id=1, text="the one in the contract")
    notes = eventually(
        lambda: [each for each in site.slack.messages if "the one in the contract" in each.text]
    )
    assert notes[0].thread_ts == message.ts
    eventually(lambda: "the one in the contract" in json.dumps(message.blocks))
    assert action_of(message.blocks, APPROVE)  # still open


def test_two_groups_approve_one_after_the_other_and_the_prompt_counts(site: SlackSite) -> None:
    request = site.open(folder="secret/")
    message = site.prompt(request)
    assert "0 of 2" in json.dumps(message.blocks)
    site.slack.click(ALICE, message, APPROVE)
    eventually(lambda: "1 of 2: data-stewards done, security missing" in json.dumps(message.blocks))
    site.slack.click(ALICE, message, APPROVE)
    eventually(lambda: any("already voted" in note for note in site.notes_to(ALICE)))
    site.slack.click(CAROL, message, APPROVE)
    becomes(site, request, State.APPROVED)
    eventually(lambda: is_frozen(message, "approved by alice, carol"))


def test_a_policy_that_wants_reasons_asks_for_one_before_it_approves(site: SlackSite) -> None:
    request = site.open(folder="reasoned/")
    site.slack.click(ALICE, site.prompt(request), APPROVE)
    eventually(lambda: site.slack.views)
    assert state_of(site, request) is State.PENDING
    site.slack.submit(ALICE, "the contract says so")
    assert becomes(site, request, State.APPROVED).votes[0].reason == "the contract says so"


def test_details_open_for_those_concerned_and_nobody_else(site: SlackSite) -> None:
    message = site.prompt(site.open())
    site.slack.click(ENGINEER, message, DETAILS)
    eventually(lambda: [view for view in site.slack.views if view["user"] == ENGINEER])
    site.slack.click(MALLORY, message, DETAILS)
    eventually(lambda: site.notes_to(MALLORY))
    assert not [view for view in site.slack.views if view["user"] == MALLORY]


@pytest.mark.parametrize("wish", [APPROVE, DENY])
def test_requesters_cannot_answer_their_own_request_in_slack(site: SlackSite, wish: str) -> None:
    request = site.open()
    site.slack.click(ENGINEER, site.prompt(request), wish)
    if wish == DENY:
        eventually(lambda: site.slack.views)
        site.slack.submit(ENGINEER, "I am my own reviewer")
    notes = eventually(lambda: site.notes_to(ENGINEER))
    assert "requesters cannot approve their own action" in notes[0]
    assert state_of(site, request) is State.PENDING
    assert refusals(site) == [("engineer", "vote-refused")]


def test_a_linked_stranger_is_refused_and_told_privately(site: SlackSite) -> None:
    request = site.open()
    site.slack.click(MALLORY, site.prompt(request), APPROVE)
    assert "not in any approver group" in eventually(lambda: site.notes_to(MALLORY))[0]
    assert state_of(site, request) is State.PENDING
    assert refusals(site) == [("mallory", "vote-refused")]


def test_somebody_who_is_not_in_the_channel_is_told_privately_too(site: SlackSite) -> None:
    request = site.open()
    message = site.prompt(request)
    site.slack.channels[CHANNEL].discard(MALLORY)
    site.slack.click(MALLORY, message, APPROVE)
    assert "not in any approver group" in eventually(lambda: site.notes_to(MALLORY))[0]
    assert [problem.split()[1] for problem in site.slack.problems] == ["user_not_in_channel"]
    site.slack.problems.clear()


@OVER_HTTP
def test_whoever_cannot_be_told_from_others_just_now_hears_that_nothing_was_recorded(site: SlackSite) -> None:
    request = site.open()
    message = site.prompt(request)
    site.slack.scopes -= {"users:read"}
    site.slack.click(ALICE, message, APPROVE)
    assert "nothing was recorded" in eventually(lambda: site.notes_to(ALICE))[0]
    site.slack.scopes |= {"users:read"}
    site.slack.click(ALICE, message, APPROVE)
    becomes(site, request, State.APPROVED)
    assert site.slack.problems.pop().startswith("users.info: missing_scope")


@OVER_HTTP
def test_a_window_that_does_not_open_is_told_of(site: SlackSite) -> None:
    message = site.prompt(site.open())
    site.slack.trigger_seconds = 0.0
    site.slack.click(ALICE, message, DENY)
    assert "the window did not open" in eventually(lambda: site.notes_to(ALICE))[0]
    assert site.slack.problems.pop().startswith("views.open: expired_trigger_id")


@OVER_HTTP
@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/actions/1", "http://hooks.slack.com/actions/1", "file:///etc/passwd"]
)
def test_a_private_note_goes_to_slack_and_nowhere_else(
    site: SlackSite, elsewhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = site.open()
    message = site.prompt(request)
    site.slack.channels[CHANNEL].discard(MALLORY)
    site.slack.click(MALLORY, message, APPROVE, response_url=elsewhere)
    eventually(lambda: "a private note was not taken" in caplog.text)
    assert elsewhere not in caplog.text
    assert site.notes_to(MALLORY) == []
    site.slack.problems.clear()


ACCOUNTS: dict[str, dict[str, Any]] = {
    "guest": {"is_restricted": True},
    "single-channel guest": {"is_ultra_restricted": True},
    "bot": {"is_bot": True},
    "deactivated": {"deleted": True},
    "stranger": {"is_stranger": True},
    "of another workspace": {"team_id": "T0OTHER"},
    "without a confirmed address": {"is_email_confirmed": False},
}


@pytest.mark.parametrize("flags", ACCOUNTS.values(), ids=ACCOUNTS.keys())
def test_an_account_that_slack_does_not_vouch_for_cannot_answer(
    site: SlackSite, flags: dict[str, Any]
) -> None:
    request = site.open()
    site.slack.users[ALICE].update(flags)
    site.slack.click(ALICE, site.prompt(request), APPROVE)
    assert "answer on the page instead" in eventually(lambda: site.notes_to(ALICE))[0]
    assert state_of(site, request) is State.PENDING
    assert [kind for _, kind in refusals(site)] == ["not-allowed"]


def test_an_unknown_account_gets_a_code_and_counts_once_its_owner_has_linked_it(unlinked: SlackSite) -> None:
    site = unlinked
    request = site.open()
    message = site.prompt(request)
    site.slack.click(ALICE, message, APPROVE)
    code = code_in(json.dumps(eventually(lambda: site.slack.views)))
    assert state_of(site, request) is State.PENDING
    assert [kind for _, kind in refusals(site)] == ["not-linked"]

    asked = site.post("alice", "identities", {"code": code}).json()
    assert (asked["user_id"], asked["linked"]) == (ALICE, False)
    assert site.post("alice", "identities", {"code": code, "confirm": True}).json()["linked"] is True
    assert site.post("bob", "identities", {"code": code, "confirm": True}).status_code == 422
    site.slack.click(ALICE, message, APPROVE)
    becomes(site, request, State.APPROVED)

    account = {"provider": "slack", "team_id": "T0HOME", "user_id": ALICE}
    assert site.post("bob", "identities/unlink", account).status_code == 422
    assert site.post("alice", "identities/unlink", account).status_code == 200
    again = site.open("another")
    site.slack.click(ALICE, site.prompt(again), APPROVE)
    eventually(lambda: len(site.slack.views) == 2)
    assert state_of(site, again) is State.PENDING
    kinds = [entry["kind"] for entry in site.ledger() if entry["kind"].startswith("identity.")]
    assert kinds == ["identity.linked", "identity.unlinked"]


@pytest.mark.parametrize(
    ("folder", "triggered_by"), [("page/", "engineer"), ("", None)], ids=["policy", "unknown requester"]
)
def test_what_only_the_page_may_answer_has_no_buttons_and_a_forged_value_gains_nothing(
    site: SlackSite, folder: str, triggered_by: str | None
) -> None:
    request = site.open(folder=folder, triggered_by=triggered_by)
    message = site.prompt(request)
    with pytest.raises(LookupError):
        action_of(message.blocks, APPROVE)
    site.slack.click(ALICE, message, APPROVE, action={**action_of(message.blocks, ASK), "action_id": APPROVE})
    eventually(lambda: site.notes_to(ALICE))
    assert state_of(site, request) is State.PENDING


def test_a_decision_made_elsewhere_freezes_the_prompt_and_an_old_button_is_refused(site: SlackSite) -> None:
    request = site.open()
    message = site.prompt(request)
    old = action_of(message.blocks, APPROVE)
    with site.person("bob") as bob:
        bob.vote(request.id, "deny", revision=1, reason="no")
    eventually(lambda: is_frozen(message, "denied by bob"))
    edits = message.edits
    site.slack.click(ALICE, message, APPROVE, action=old)
    assert "already denied" in eventually(lambda: site.notes_to(ALICE))[0]
    eventually(lambda: message.edits > edits)
    assert is_frozen(message, "denied by bob")


def test_a_button_of_an_older_revision_is_refused_and_the_prompt_shows_the_new_rule(site: SlackSite) -> None:
    request = site.open()
    message = site.prompt(request)
    old = action_of(message.blocks, APPROVE)
    text = site.policy_file.read_text(encoding="utf-8")
    site.policy_file.write_text(text.replace("expires_after: 4h", "expires_after: 5h"), encoding="utf-8")
    site.slack.click(ALICE, message, APPROVE, action=old)
    assert "has changed" in eventually(lambda: site.notes_to(ALICE))[0]
    assert state_of(site, request) is State.PENDING
    eventually(lambda: "revision 2" in json.dumps(message.blocks))
    site.slack.click(ALICE, message, APPROVE)
    becomes(site, request, State.APPROVED)


def test_a_button_of_a_superseded_request_is_refused_and_its_prompt_says_what_took_its_place(
    site: SlackSite,
) -> None:
    ti_id = site.add_task(run_id="manual__changed")
    with site.worker(ti_id) as worker:
        request = worker.open_request(an_opening("changed"))[0]
        message = site.prompt(request)
        old = action_of(message.blocks, APPROVE)
        newer = worker.open_request(an_opening("changed", rows=9))[0]
    eventually(lambda: is_frozen(message, f"superseded by {newer.id}"))
    edits = message.edits
    site.slack.click(ALICE, message, APPROVE, action=old)
    assert "already superseded" in eventually(lambda: site.notes_to(ALICE))[0]
    eventually(lambda: message.edits > edits)
    assert (state_of(site, request), state_of(site, newer)) == (State.SUPERSEDED, State.PENDING)


def test_a_button_for_other_content_is_refused(site: SlackSite) -> None:
    request = site.open()
    message = site.prompt(request)
    value = json.loads(action_of(message.blocks, APPROVE)["value"])
    forged = json.dumps([value[0], value[1], "f" * 64])
    site.slack.click(ALICE, message, APPROVE, action={**action_of(message.blocks, APPROVE), "value": forged})
    assert "has changed" in eventually(lambda: site.notes_to(ALICE))[0]
    assert state_of(site, request) is State.PENDING


@OVER_HTTP
def test_a_policy_that_notifies_nobody_posts_nothing(site: SlackSite) -> None:
    quiet, told = site.open("quiet", folder="quiet/"), site.open("told")
    site.prompt(told)
    assert site.prompts(quiet) == []


def test_slack_that_is_down_delays_no_gate_and_is_told_everything_when_it_is_back(site: SlackSite) -> None:
    before = site.open("before")
    message = site.prompt(before)
    with down(site.slack):
        during, decided = site.open("during"), site.open("decided")
        with site.person("alice") as alice:
            assert alice.vote(before.id, "approve", revision=1).state is State.APPROVED
            assert alice.vote(decided.id, "approve", revision=1).state is State.APPROVED
        eventually(
            lambda: any(each.tries for each in site.channels.deliveries.outbox.deliveries_of(during.id))
        )
    site.prompt(during)
    eventually(lambda: is_frozen(message, "approved by alice"))
    assert len(site.prompts(during)) == 1
    assert site.prompts(decided) == []  # there is nothing left to answer
    assert site.channels.deliveries.outbox.dead_letters() == []


@OVER_HTTP
def test_clicks_are_answered_while_slack_itself_hangs(
    site: SlackSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever waited for Slack before answering would answer too late: Slack hangs until all are answered.
    monkeypatch.setattr(workspace, "TIMEOUT", 10 * LOADED)
    message = site.prompt(site.open())
    site.slack.held = frozenset({"views.open"})
    try:
        answers = [site.slack.click(ALICE, message, DETAILS).status_code for _ in range(20)]
    finally:
        site.slack.held = frozenset()
    assert answers == [200] * 20
    assert site.slack.dropped == []
    eventually(lambda: len(site.slack.views) == 20)


@OVER_HTTP
def test_a_channel_that_asks_for_patience_gets_every_prompt_once(site: SlackSite) -> None:
    site.slack.per_second = True
    requests = [site.open(f"feed{number}") for number in range(3)]
    for request in requests:
        site.prompt(request)
    assert all(len(site.prompts(request)) == 1 for request in requests)


@OVER_HTTP
def test_names_from_outside_stay_words_in_slack(site: SlackSite) -> None:
    opening = an_opening("hostile")
    words = "<!channel> *x* \u202egnp <https://evil.example|Approve> " + "y" * 1900
    action = replace(opening.action, justification=words, destination="file:///outbox/<!channel> <@U1>.csv")
    with site.worker(site.add_task(run_id="manual__hostile")) as worker:
        request, _ = worker.open_request(replace(opening, action=action))
    message = site.prompt(request)
    assert "<!channel>" not in message.text
    assert "[U+202E]" in json.dumps(message.blocks)


@OVER_HTTP
def test_the_page_of_the_fake_slack_can_be_clicked(site: SlackSite) -> None:
    request = site.open()
    message = site.prompt(request)
    home = f"http://127.0.0.1:{site.slack_port}"
    assert "file:///outbox/customers.csv" in httpx.get(home, params={"user": ALICE}, timeout=LOADED).text
    form = {"user": ALICE, "channel": CHANNEL, "ts": message.ts, "action_id": APPROVE}
    assert httpx.post(f"{home}/do/click", data=form, timeout=LOADED).status_code == 303
    becomes(site, request, State.APPROVED)
