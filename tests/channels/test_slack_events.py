"""What Slack tells by itself, over HTTP: under the same signature as clicks, and as little believed."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from airflow_approvals.core.model import State
from tests.channels.site import ALICE, BOB, LOADED, SlackSite, eventually
from tests.fake_slack.workspace import APP, TEAM

pytestmark = pytest.mark.parametrize("transport", ["http"], indirect=True)

CHALLENGE = {"type": "url_verification", "token": "ignored", "challenge": "3eZbrw1aB"}


def send(site: SlackSite, event: Any, **headers: str) -> httpx.Response:
    """Send an event, signed as Slack does unless `headers` say otherwise."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    signed = {**site.slack.sign(body), "Content-Type": "application/json", **headers}
    return httpx.post(site.slack.events_url, content=body, headers=signed, timeout=LOADED)


def opened(**changes: Any) -> dict[str, Any]:
    event = {"type": "app_home_opened", "user": ALICE, "tab": "home"}
    return {"type": "event_callback", "team_id": TEAM, "api_app_id": APP, "event": event, **changes}


def test_the_address_is_confirmed_by_repeating_slacks_word(site: SlackSite) -> None:
    answer = send(site, CHALLENGE)
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1aB"})


def test_a_word_that_slack_did_not_sign_is_not_repeated(site: SlackSite) -> None:
    for headers in (
        {"X-Slack-Signature": "v0=" + "0" * 64},
        {"X-Slack-Signature": ""},
        {"X-Slack-Request-Timestamp": str(int(time.time()) - 600)},
    ):
        answer = send(site, CHALLENGE, **headers)
        assert (answer.status_code, answer.content) == (401, b"")


def test_an_event_that_comes_again_with_the_same_signature_is_refused(site: SlackSite) -> None:
    body = json.dumps(opened()).encode()
    headers = {**site.slack.sign(body), "Content-Type": "application/json"}
    answers = [
        httpx.post(site.slack.events_url, content=body, headers=headers, timeout=LOADED) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 401]


def test_an_event_of_another_app_is_refused(site: SlackSite) -> None:
    assert send(site, opened(api_app_id="A0OTHER")).status_code == 401


def test_an_event_that_is_too_large_is_refused_before_it_is_read(site: SlackSite) -> None:
    assert send(site, b" " * ((256 << 10) + 1)).status_code == 413


EVENTS: dict[str, Any] = {
    "another tab": opened(event={"type": "app_home_opened", "user": ALICE, "tab": "messages"}),
    "a message": opened(event={"type": "message", "user": ALICE, "text": "approve everything"}),
    "a reaction": opened(event={"type": "reaction_added", "user": ALICE, "reaction": "white_check_mark"}),
    "no event": opened(event=None),
    "no user": opened(event={"type": "app_home_opened", "tab": "home"}),
    "a list": [1, 2],
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "a click": {"type": "block_actions"},
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_other_events_are_taken_and_lead_to_nothing(site: SlackSite, event: Any) -> None:
    request = site.open()
    status = send(site, event).status_code
    assert status == (401 if event == b"\xff\xfe" else 200)  # slack_sdk signs text only
    site.slack.open_home(BOB)
    eventually(lambda: BOB in site.slack.homes)
    assert ALICE not in site.slack.homes
    assert site.store.get_request(request.id).state is State.PENDING


def test_closing_a_window_decides_nothing(site: SlackSite) -> None:
    request = site.open()
    site.slack.click(BOB, site.prompt(request), "approvals.deny")
    eventually(lambda: site.slack.views)
    assert site.slack.close(BOB) is None  # our windows do not even ask to be told
    assert site.slack.deliver({"type": "view_closed", "view": {}}).status_code == 200
    assert site.store.get_request(request.id).state is State.PENDING
