"""The app's Home tab: an inbox in Slack, with the buttons of the prompts and refusals of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_approvals.channels.slack.home import MAX_SHOWN, tab_of
from airflow_approvals.channels.slack.message import Standing
from airflow_approvals.core.model import State
from tests.channels.site import ALICE, BOB, CAROL, ENGINEER, MALLORY, SlackSite, eventually
from tests.channels.test_message import HOSTILE, hostile_request
from tests.fake_slack.blockkit import check_home

APPROVE, DENY, DETAILS = (f"approvals.{wish}" for wish in ("approve", "deny", "details"))


def home(site: SlackSite, user: str) -> str:
    """Open the Home tab and return what it shows."""
    before = site.slack.homes.get(user)
    assert site.slack.open_home(user).status_code == 200
    return json.dumps(eventually(lambda: _another(site.slack.homes.get(user), before)))


def _another(view: dict[str, Any] | None, before: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if view is before else view


def test_it_shows_what_waits_for_this_person_and_nothing_else(site: SlackSite) -> None:
    mine, two = site.open("mine"), site.open("two", folder="secret/")
    shown = home(site, ALICE)
    assert "2 requests wait for your answer" in shown
    assert mine.id in shown
    assert two.id in shown
    assert (mine.id in home(site, CAROL), two.id in home(site, CAROL)) == (False, True)
    for user in (ENGINEER, MALLORY):  # who asked, and who is in no group
        assert "Nothing waits for you" in home(site, user)


def test_a_click_there_counts_and_what_was_answered_goes(site: SlackSite) -> None:
    request, other = site.open("first"), site.open("second")
    home(site, ALICE)
    site.slack.click_at_home(ALICE, APPROVE, request.id)
    eventually(lambda: site.store.get_request(request.id).state is State.APPROVED)
    eventually(lambda: request.id not in json.dumps(site.slack.homes[ALICE]))
    assert other.id in json.dumps(site.slack.homes[ALICE])
    eventually(lambda: '"actions"' not in json.dumps(site.prompt(request).blocks))


def test_deny_there_asks_for_the_reason_in_a_window(site: SlackSite) -> None:
    request = site.open()
    home(site, BOB)
    site.slack.click_at_home(BOB, DENY, request.id)
    eventually(lambda: site.slack.views)
    site.slack.submit(BOB, "not before the audit")
    eventually(lambda: site.store.get_request(request.id).state is State.DENIED)
    eventually(lambda: "Nothing waits for you" in json.dumps(site.slack.homes[BOB]))


def test_a_stale_button_there_is_refused_in_a_window_and_the_tab_is_shown_anew(site: SlackSite) -> None:
    request = site.open()
    home(site, ALICE)
    with site.person("bob") as bob:
        bob.vote(request.id, "deny", revision=1, reason="no")
    site.slack.click_at_home(ALICE, APPROVE, request.id)
    assert "already denied" in json.dumps(eventually(lambda: site.slack.views))
    eventually(lambda: "Nothing waits for you" in json.dumps(site.slack.homes[ALICE]))


def test_details_open_from_there(site: SlackSite) -> None:
    request = site.open()
    home(site, ALICE)
    site.slack.click_at_home(ALICE, DETAILS, request.id)
    assert request.action_digest in json.dumps(eventually(lambda: site.slack.views))


def test_an_account_that_slack_does_not_vouch_for_is_shown_nothing(site: SlackSite) -> None:
    site.open()
    site.slack.users[ALICE]["is_restricted"] = True
    assert site.slack.open_home(ALICE).status_code == 200
    eventually(lambda: site.slack.calls.count("users.info"))
    home(site, BOB)  # by then, alice's would have been there
    assert ALICE not in site.slack.homes


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE.keys())
def test_words_from_outside_are_words_there_and_break_no_limit(words: str) -> None:
    standing = Standing(link="https://airflow.example.com/approvals/requests/1", page_only=words)
    shown = [(hostile_request(words), standing)] * MAX_SHOWN
    view = tab_of(shown, total=31, base_url="https://airflow.example.com")
    check_home(view)
    assert "31 requests wait for your answer" in json.dumps(view)
    assert not any(char in json.dumps(view, ensure_ascii=False) for char in "\u202e\u2066\x00\x1b")
