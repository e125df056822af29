from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from airflow_approvals.channels.slack.interactive import (
    Click,
    Nothing,
    Place,
    SlackUser,
    Submission,
    Wish,
    intent_of,
    payload_of,
)
from airflow_approvals.channels.slack.references import PromptRef
from airflow_approvals.core.errors import InvalidRequestError
from tests.store.samples import a_request

REQUEST = a_request()
REF = PromptRef.of(REQUEST)
Json = dict[str, Any]


def a_click(wish: str = "approve") -> Json:
    return {
        "type": "block_actions",
        "api_app_id": "A1",
        "token": "ignored",
        "user": {"id": "U1", "username": "alice", "name": "alice", "team_id": "T1"},
        "team": {"id": "T1", "domain": "example"},
        "container": {"type": "message", "message_ts": "1.2", "channel_id": "C1"},
        "trigger_id": "1.2.3",
        "response_url": "https://hooks.slack.com/actions/1",
        "actions": [
            {
                "type": "button",
                "action_id": f"approvals.{wish}",
                "block_id": "answer",
                "value": REF.to_value(),
            }
        ],
    }


def a_submission(wish: str = "deny", text: Any = "not today") -> Json:
    return {
        "type": "view_submission",
        "api_app_id": "A1",
        "user": {"id": "U1", "team_id": "T1"},
        "team": {"id": "T1"},
        "trigger_id": "1.2.4",
        "view": {
            "callback_id": f"approvals.{wish}",
            "private_metadata": json.dumps([REF.to_value(), "C1", "1.2"]),
            "state": {"values": {"text": {"text": {"type": "plain_text_input", "value": text}}}},
        },
    }


@pytest.mark.parametrize("wish", list(Wish))
def test_a_button_says_what_is_wanted_by_whom_for_which_revision(wish: Wish) -> None:
    found = intent_of(payload_of(urlencode({"payload": json.dumps(a_click(wish))}).encode()))
    assert found == Click(
        wish=wish,
        ref=REF,
        who=SlackUser(team_id="T1", user_id="U1"),
        place=Place(channel="C1", ts="1.2"),
        trigger_id="1.2.3",
        app_id="A1",
        response_url="https://hooks.slack.com/actions/1",
    )


def test_a_window_brings_its_text() -> None:
    found = intent_of(a_submission())
    assert isinstance(found, Submission)
    assert (found.wish, found.text, found.ref) == (Wish.DENY, "not today", REF)
    empty = intent_of(a_submission(text=None))
    assert isinstance(empty, Submission)
    assert empty.text == ""


def test_a_person_of_another_workspace_stays_one_in_a_shared_channel() -> None:
    payload = a_click()
    payload["user"]["team_id"] = "T-other"
    found = intent_of(payload)
    assert isinstance(found, Click)
    assert found.who.team_id == "T-other"


HARMLESS: dict[str, Callable[[Json], Any]] = {
    "view_closed": lambda payload: {**payload, "type": "view_closed"},
    "a message": lambda payload: {**payload, "type": "event_callback"},
    "no type": lambda payload: {key: value for key, value in payload.items() if key != "type"},
    "type of another kind": lambda payload: {**payload, "type": ["x"]},
    "no actions": lambda payload: {**payload, "actions": []},
    "actions of another kind": lambda payload: {**payload, "actions": {"a": 1}},
    "a button of another app": lambda payload: {**payload, "actions": [{"action_id": "other", "value": "x"}]},
    "the link button": lambda payload: {**payload, "actions": [{"action_id": "approvals.open"}]},
    "a value that is not ours": lambda payload: {
        **payload,
        "actions": [{"action_id": "approvals.approve", "value": "approve everything"}],
    },
    "no user": lambda payload: {**payload, "user": None},
    "a user without id": lambda payload: {**payload, "user": {"team_id": "T1"}},
    "a user id of another kind": lambda payload: {**payload, "user": {"id": 7, "team_id": "T1"}},
    "no container": lambda payload: {**payload, "container": {}},
    "a window without metadata": lambda _: {**a_submission(), "view": {"callback_id": "approvals.deny"}},
    "the details window": lambda _: a_submission("details"),
    "foreign metadata": lambda _: {
        **a_submission(),
        "view": {**a_submission()["view"], "private_metadata": "{}"},
    },
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_whatever_is_not_a_button_or_window_of_ours_does_nothing(change: Callable[[Json], Any]) -> None:
    assert isinstance(intent_of(change(a_click())), Nothing)


BAD_BODIES = [
    b"",
    b"payload=",
    b"payload={",
    b"payload=[]",
    b"payload=null",
    b"\xff",
    b"a=" + b"1&a=" * 50,
    b"{}",
]


@pytest.mark.parametrize("body", [*BAD_BODIES, b"payload=" + b"[" * 100_000])
def test_a_body_without_a_payload_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        payload_of(body)
