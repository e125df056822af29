"""What people do in the fake workspace, and how that reaches our app: over HTTP or through a socket."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.fake_slack.workspace import APP, SECRET, TEAM, Json, Message, Workspace

ACK_SECONDS = 3.0
RETRIES = 3
INTERACTIVE, EVENTS = "interactive", "events_api"


@dataclass
class Socket:
    """One open connection of Socket Mode; `outgoing` is read by the server's event loop."""

    loop: asyncio.AbstractEventLoop
    outgoing: asyncio.Queue[Json | None]
    waiting: dict[str, Future[None]] = field(default_factory=dict)

    def put(self, message: Json | None) -> None:
        self.loop.call_soon_threadsafe(self.outgoing.put_nowait, message)


@dataclass
class FakeSlack(Workspace):
    """A workspace with people in it."""

    request_url: str = ""  # of interactivity; events go beside it
    secret: str = SECRET
    is_socket: bool = False  # Socket Mode: nothing is sent over HTTP
    sockets: list[Socket] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)  # what was sent and not acknowledged in time
    ack_seconds: float = ACK_SECONDS  # that is this

    def click(self, user_id: str, message: Message, action_id: str, **changes: Any) -> httpx.Response:
        """Press a button as it stands in the message now, or as `changes` have it."""
        action = changes.pop("action", None) or action_of(message.blocks, action_id)
        where = {
            "container": {
                "type": "message",
                "message_ts": message.ts,
                "channel_id": message.channel,
                "is_ephemeral": False,
            },
            "channel": {"id": message.channel, "name": "data"},
            "response_url": self.response_url(user_id, message.channel),
        }
        return self._press(user_id, action, {**where, **changes})

    def click_at_home(
        self, user_id: str, action_id: str, request_id: str = "", **changes: Any
    ) -> httpx.Response:
        """Press a button on the app's Home tab, of the request that is named."""
        view = self.homes[user_id]
        action = action_of(view["blocks"], action_id, request_id)
        where = {"container": {"type": "view", "view_id": view["id"]}, "view": view}
        return self._press(user_id, action, {**where, **changes})

    def submit(self, user_id: str, text: str | None) -> httpx.Response:
        """Send off the window that was opened last for this person."""
        view = self._window(user_id)
        state = {"values": {"text": {"text": {"type": "plain_text_input", "value": text}}}}
        return self.deliver(
            {
                **self._signed(user_id),
                "type": "view_submission",
                "trigger_id": self.trigger(user_id),
                "view": {**view, "state": state, "hash": "1", "app_installed_team_id": TEAM},
                "response_urls": [],
            }
        )

    def close(self, user_id: str) -> httpx.Response | None:
        """Close the window that was opened last; our app hears of it if the window asked for that."""
        view = self._window(user_id)
        self.views = [each for each in self.views if each["view"] is not view]
        if not view.get("notify_on_close"):
            return None
        return self.deliver(
            {**self._signed(user_id), "type": "view_closed", "view": view, "is_cleared": False}
        )

    def open_home(self, user_id: str, tab: str = "home") -> httpx.Response:
        """Look at the app's Home tab."""
        event = {"type": "app_home_opened", "user": user_id, "tab": tab, "event_ts": f"{time.time():.6f}"}
        return self.deliver(
            {
                "type": "event_callback",
                "token": "verification-token",
                "team_id": TEAM,
                "api_app_id": APP,
                "event": event,
                "event_id": f"Ev{time.monotonic_ns()}",
                "event_time": int(time.time()),
                "authorizations": [{"team_id": TEAM, "user_id": "U0BOT", "is_bot": True}],
            },
            kind=EVENTS,
        )

    def deliver(self, payload: Json, *, kind: str = INTERACTIVE, times: int = 1) -> httpx.Response:
        """Bring a payload to our app, `times` times with the very same words; return the last answer."""
        if self.is_socket:
            return self._through_socket(payload, kind, times)
        if kind == EVENTS:
            return self._send_event(json.dumps(payload).encode())
        url, body = self.request_url, urlencode({"payload": json.dumps(payload)}).encode()
        headers = self.sign(body)
        answers = [httpx.post(url, content=body, headers=headers, timeout=self._long) for _ in range(times)]
        if any(answer.elapsed.total_seconds() > self.ack_seconds for answer in answers):
            self.dropped.append(str(payload.get("type")))
        return answers[-1]

    def _send_event(self, body: bytes) -> httpx.Response:
        """Send an event, and once more, signed anew, up to three times: at once, where Slack waits minutes.

        https://docs.slack.dev/apis/events-api#retries
        """
        again: dict[str, str] = {}
        for attempt in range(1, RETRIES + 2):
            headers = {**self.sign(body), "Content-Type": "application/json", **again}
            answer = httpx.post(self.events_url, content=body, headers=headers, timeout=self._long)
            is_late = answer.elapsed.total_seconds() > self.ack_seconds
            if (answer.is_success and not is_late) or answer.headers.get("x-slack-no-retry") == "1":
                return answer
            reason = "http_timeout" if is_late else "http_error"
            again = {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": reason}
        self.dropped.append("event_callback")
        return answer

    @property
    def _long(self) -> float:
        """Seconds until an answer is not waited for any more, though it is late by then."""
        return self.ack_seconds + 10

    @property
    def events_url(self) -> str:
        return f"{self.request_url.rpartition('/')[0]}/events"

    def sign(self, body: bytes, *, at: float | None = None) -> dict[str, str]:
        timestamp = str(int(time.time() if at is None else at))
        base = b"v0:" + timestamp.encode() + b":" + body
        digest = hmac.new(self.secret.encode(), base, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": f"v0={digest}",
        }

    def ask_to_reconnect(self) -> None:
        """Tell every socket to come again, as Slack does every few hours."""
        for socket in self.sockets:
            socket.put({"type": "disconnect", "reason": "refresh_requested", "debug_info": {"host": "fake"}})

    def drop_sockets(self) -> None:
        """Close every socket without a word."""
        for socket in self.sockets:
            socket.put(None)

    def _through_socket(self, payload: Json, kind: str, times: int) -> httpx.Response:
        """Send an envelope to one of the sockets, as Slack does, and wait for its acknowledgement."""
        if not self.sockets:
            self.dropped.append(str(payload.get("type")))
            return httpx.Response(504)
        socket, acknowledged = secrets.choice(self.sockets), Future[None]()
        envelope_id = f"envelope-{time.monotonic_ns()}"
        socket.waiting[envelope_id] = acknowledged
        envelope = {
            "type": kind,
            "envelope_id": envelope_id,
            "payload": payload,
            "accepts_response_payload": kind == INTERACTIVE,
        }
        if kind == EVENTS:
            envelope |= {"retry_attempt": 0, "retry_reason": ""}
        for _ in range(times):
            socket.put(envelope)
        try:
            acknowledged.result(timeout=self.ack_seconds)
        except TimeoutError:
            self.dropped.append(str(payload.get("type")))
            return httpx.Response(504)
        return httpx.Response(200)

    def _press(self, user_id: str, action: Json, rest: Json) -> httpx.Response:
        payload = {
            **self._signed(user_id),
            "type": "block_actions",
            "token": "verification-token",
            "trigger_id": self.trigger(user_id),
            "actions": [{**action, "action_ts": "1.0"}],
            **rest,
        }
        return self.deliver(payload)

    def _window(self, user_id: str) -> Json:
        found = [each["view"] for each in self.views if each["user"] == user_id]
        if not found:
            raise LookupError(f"no window is open for {user_id}")
        view: Json = found[-1]
        return view

    def _signed(self, user_id: str) -> Json:
        user = self.users.get(user_id, {})
        who = {"id": user_id, "team_id": user.get("team_id", TEAM), "username": user.get("name", "")}
        return {"api_app_id": APP, "user": who, "team": {"id": TEAM, "domain": "home"}}


def action_of(blocks: list[Json], action_id: str, request_id: str = "") -> Json:
    """Return a button of a message or a view: of the request that is named, or the first."""
    found = [
        element
        for block in blocks
        if block["type"] == "actions"
        for element in block["elements"]
        if element["action_id"] == action_id and request_id in element["value"]
    ]
    if not found:
        raise LookupError(f"there is no button {action_id}")
    return {key: found[0][key] for key in ("type", "action_id", "value")}


@contextmanager
def down(slack: FakeSlack) -> Iterator[None]:
    """Let Slack answer 503 to everything until the block ends."""
    slack.is_down = True
    try:
        yield
    finally:
        slack.is_down = False
