"""What somebody did in Slack, read from a signed body: one pure function, for HTTP and for Socket Mode.

Believed are the ids of person, workspace and app, which Slack signed. Names and texts of the message are not
read at all; a button's value only says which request to look up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

from airflow_approvals.channels.slack.references import PromptRef
from airflow_approvals.core.errors import InvalidRequestError

_PREFIX = "approvals."
_URL = 2000


class Wish(StrEnum):
    """What the person wants."""

    APPROVE = "approve"
    DENY = "deny"
    ASK = "ask"
    DETAILS = "details"


@dataclass(frozen=True, kw_only=True)
class SlackUser:
    """A Slack account, as Slack signed it. Ids are opaque."""

    team_id: str
    user_id: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a prompt stands in a channel."""

    channel: str
    ts: str


@dataclass(frozen=True, kw_only=True)
class Click:
    """A button was pressed: of a prompt in a channel, or on the app's Home tab, which is no place."""

    wish: Wish
    ref: PromptRef
    who: SlackUser
    place: Place | None
    trigger_id: str
    app_id: str
    response_url: str = ""  # where this person alone can be told something; never kept


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A window was sent off with a text."""

    wish: Wish
    ref: PromptRef
    who: SlackUser
    place: Place | None
    text: str
    trigger_id: str
    app_id: str


@dataclass(frozen=True, kw_only=True)
class HomeOpened:
    """Somebody looks at the app's Home tab."""

    who: SlackUser
    app_id: str


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """Slack asks whether this address takes events; the word is to be repeated."""

    word: str


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """Nothing to do: a window was closed, or a kind that is not known."""

    why: str


Doing = Click | Submission | HomeOpened
"""What leads to something."""

Intent = Doing | Challenge | Nothing


def payload_of(body: bytes) -> Mapping[str, Any]:
    """Return the `payload` of a form-encoded body; raise `InvalidRequestError` when it holds none."""
    try:
        form = parse_qs(body.decode(), max_num_fields=20)
        payload = json.loads(form["payload"][0])
    except (ValueError, KeyError, RecursionError) as error:
        raise InvalidRequestError("expected a form with one payload in JSON") from error
    if not isinstance(payload, dict):
        raise InvalidRequestError("expected a payload that is an object")
    return payload


def event_of(body: bytes) -> Mapping[str, Any]:
    """Return the event that a body in JSON holds; raise `InvalidRequestError` when it holds none."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("expected an event in JSON") from error
    if not isinstance(event, dict):
        raise InvalidRequestError("expected an event that is an object")
    return event


def intent_of(payload: Mapping[str, Any]) -> Intent:
    """Return what the person wants. Whatever is not one of our buttons and windows is `Nothing`."""
    kind = payload.get("type")
    try:
        if kind in _READERS:
            return _READERS[kind](payload)
    except (InvalidRequestError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return Nothing(why=f"a {kind} that is not of ours ({type(error).__name__})")
    # Closing a window, reactions and words in a thread never decide anything.
    return Nothing(why=f"payload type {str(kind)[:40]!r}")


def _click(payload: Mapping[str, Any]) -> Intent:
    action, container = payload["actions"][0], payload["container"]
    wish = str(action["action_id"]).removeprefix(_PREFIX)
    if not str(action["action_id"]).startswith(_PREFIX) or wish not in set(Wish):
        return Nothing(why="a button of ours that does nothing here, or not of ours")
    return Click(
        wish=Wish(wish),
        ref=PromptRef.from_value(str(action["value"])),
        who=_who(payload),
        place=_place_of(container),
        trigger_id=_word(payload["trigger_id"]),
        app_id=str(payload.get("api_app_id", "")),
        response_url=str(payload.get("response_url") or "")[:_URL],
    )


def _submission(payload: Mapping[str, Any]) -> Intent:
    view = payload["view"]
    wish = str(view["callback_id"]).removeprefix(_PREFIX)
    if wish not in (Wish.APPROVE, Wish.DENY, Wish.ASK):
        return Nothing(why="a window without an answer")
    value, *where = json.loads(view["private_metadata"])
    text = view["state"]["values"]["text"]["text"].get("value")
    return Submission(
        wish=Wish(wish),
        ref=PromptRef.from_value(value),
        who=_who(payload),
        place=_place(*where) if where else None,
        text="" if text is None else str(text),
        trigger_id=_word(payload["trigger_id"]),
        app_id=str(payload.get("api_app_id", "")),
    )


def _event(payload: Mapping[str, Any]) -> Intent:
    event = payload["event"]
    if event["type"] != "app_home_opened" or event["tab"] != "home":
        return Nothing(why="an event that nothing follows from")
    return HomeOpened(
        who=SlackUser(team_id=_word(payload["team_id"]), user_id=_word(event["user"])),
        app_id=str(payload.get("api_app_id", "")),
    )


def _challenge(payload: Mapping[str, Any]) -> Intent:
    return Challenge(word=_word(payload["challenge"]))


_READERS: dict[Any, Callable[[Mapping[str, Any]], Intent]] = {
    "block_actions": _click,
    "view_submission": _submission,
    "event_callback": _event,
    "url_verification": _challenge,
}


def _who(payload: Mapping[str, Any]) -> SlackUser:
    """Return the person; where Slack names two workspaces for one, the person's own counts."""
    user = payload["user"]
    return SlackUser(team_id=_word(user.get("team_id") or payload["team"]["id"]), user_id=_word(user["id"]))


def _place_of(container: Mapping[str, Any]) -> Place | None:
    """Return where the prompt stands; the app's Home tab is no place that a note could go to."""
    if container.get("type") == "view":
        return None
    return _place(container["channel_id"], container["message_ts"])


def _place(channel: object, ts: object) -> Place:
    return Place(channel=_word(channel), ts=_word(ts))


def _word(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 250 or not value.isascii():
        raise InvalidRequestError("expected an id")
    return value
