"""What Slack did not send, sent before, or sends without our knowing it: refused, or of no effect."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from airflow_approvals.core.model import State
from tests.channels.site import ALICE, BOB, CHANNEL, LOADED, SlackSite
from tests.channels.test_slack_flow import APPROVE, OVER_HTTP, becomes
from tests.fake_slack.people import action_of
from tests.fake_slack.workspace import APP, Message

pytestmark = OVER_HTTP

Forgery = Callable[[SlackSite, bytes], dict[str, str]]


def _signed_with(site: SlackSite, body: bytes, secret: str) -> dict[str, str]:
    known, site.slack.secret = site.slack.secret, secret
    try:
        return site.slack.sign(body)
    finally:
        site.slack.secret = known


FORGERIES: dict[str, Forgery] = {
    "no signature": lambda _, __: {},
    "another secret": lambda site, body: _signed_with(site, body, "guessed"),
    "another body": lambda site, _: site.slack.sign(b"payload={}"),
    "too old": lambda site, body: site.slack.sign(body, at=time.time() - 301),
    "from the future": lambda site, body: site.slack.sign(body, at=time.time() + 900),
    "timestamp of letters": lambda site, body: {**site.slack.sign(body), "X-Slack-Request-Timestamp": "abc"},
    "signature not ASCII": lambda site, body: {**site.slack.sign(body), "X-Slack-Signature": "v0=gr\u00fcn"},
}


def a_body(message: Message, **changes: Any) -> bytes:
    payload = {
        "type": "block_actions",
        "api_app_id": APP,
        "user": {"id": ALICE, "team_id": "T0HOME"},
        "team": {"id": "T0HOME"},
        "container": {"message_ts": message.ts, "channel_id": CHANNEL},
        "trigger_id": "1.2",
        "actions": [action_of(message.blocks, APPROVE)],
        **changes,
    }
    return urlencode({"payload": json.dumps(payload)}).encode()


def send(site: SlackSite, body: bytes, headers: dict[str, str]) -> httpx.Response:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return httpx.post(site.slack.request_url, content=body, headers=raw, timeout=LOADED)


def test_forged_clicks_get_401_an_empty_body_are_counted_and_do_nothing(site: SlackSite) -> None:
    request = site.open()
    body = a_body(site.prompt(request))
    for name, forge in FORGERIES.items():
        answer = send(site, body, forge(site, body))
        assert (answer.status_code, answer.content) == (401, b""), name
    foreign = a_body(site.prompt(request), api_app_id="A0OTHER")
    assert send(site, foreign, site.slack.sign(foreign)).status_code == 401
    assert site.app.state.channels.refused == len(FORGERIES) + 1
    site.slack.click(BOB, site.prompt(request), APPROVE)  # by then, whatever they did would be done
    assert [vote.voter for vote in becomes(site, request, State.APPROVED).votes] == ["bob"]


def test_a_replayed_click_is_refused(site: SlackSite) -> None:
    request = site.open()
    body = a_body(site.prompt(request))
    headers = site.slack.sign(body)
    assert send(site, body, headers).status_code == 200
    becomes(site, request, State.APPROVED)
    answer = send(site, body, headers)
    assert (answer.status_code, answer.content) == (401, b"")


def test_a_large_body_is_refused_before_it_is_read(site: SlackSite) -> None:
    body = b"payload=" + b"x" * (256 << 10)
    assert send(site, body, site.slack.sign(body)).status_code == 413


def test_payloads_of_unknown_kinds_get_200_a_line_in_the_log_and_do_nothing(
    site: SlackSite, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for payload in (
        {"type": "view_closed"},
        {"type": "shortcut"},
        {},
        {"type": "block_actions", "actions": []},
    ):
        assert site.slack.deliver(payload).status_code == 200
    body = b"not=a payload"
    assert send(site, body, site.slack.sign(body)).status_code == 200
    for told in (
        "payload type 'view_closed'",
        "payload type 'shortcut'",
        "payload type 'None'",
        "a block_actions that is not of ours",
        "expected a form with one payload in JSON",
    ):
        assert f"nothing to do for Slack: {told}" in caplog.text
