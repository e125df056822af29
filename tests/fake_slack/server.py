"""A Slack workspace on loopback: the part of its Web API that we call, and people who click.

Error words, limits and lifetimes are Slack's where documented; burst size and wording of bodies are our
approximation. It proves what we do, never what Slack does.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from tests.fake_slack.blockkit import BlockKitError, check_message, check_view
from tests.fake_slack.page import page_of

Json = dict[str, Any]

TOKEN = "xoxb-fake-bot-token"
SECRET = "fake-signing-secret-of-the-app"
TEAM, APP = "T0HOME", "A0APPROVALS"
TRIGGER_SECONDS = 3.0
SCOPES = frozenset({"chat:write", "users:read"})
NEEDED = {
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "chat.postEphemeral": "chat:write",
    "users.info": "users:read",
    "conversations.info": "channels:read",
}
ARGUMENTS = {  # required, optional; anything else is a mistake of ours
    "auth.test": (set(), set()),
    "users.info": ({"user"}, set()),
    "chat.postMessage": ({"channel", "text"}, {"blocks", "thread_ts", "unfurl_links", "unfurl_media"}),
    "chat.update": ({"channel", "ts", "text"}, {"blocks", "unfurl_links", "unfurl_media"}),
    "chat.postEphemeral": ({"channel", "user", "text"}, {"blocks"}),
    "views.open": ({"trigger_id", "view"}, set()),
}
READING = frozenset({"users.info"})


@dataclass
class Message:
    """One message in a channel."""

    channel: str
    ts: str
    text: str
    blocks: list[Json]
    thread_ts: str | None = None
    edits: int = 0


@dataclass
class FakeSlack:
    """The state of the workspace, and the ways to disturb it."""

    users: dict[str, Json] = field(default_factory=dict)
    channels: dict[str, set[str]] = field(default_factory=lambda: {"C0DATA": set()})
    messages: list[Message] = field(default_factory=list)
    notes: list[Json] = field(default_factory=list)  # ephemeral: channel, user, text
    views: list[Json] = field(default_factory=list)  # user, view
    calls: list[str] = field(default_factory=list)
    scopes: frozenset[str] = SCOPES
    per_second: bool = False  # one new message a second and channel, else 429
    is_down: bool = False
    request_url: str = ""
    secret: str = SECRET
    problems: list[str] = field(default_factory=list)  # what Slack would have refused
    _triggers: dict[str, tuple[str, float]] = field(default_factory=dict)
    _last_post: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _count: int = 0

    def add_user(self, user_id: str, name: str, **flags: Any) -> str:
        self.users[user_id] = {
            "id": user_id,
            "team_id": TEAM,
            "name": name,
            "deleted": False,
            "is_bot": False,
            "is_restricted": False,
            "is_ultra_restricted": False,
            **flags,
        }
        for members in self.channels.values():
            members.add(user_id)
        return user_id

    # --- what our app calls ---------------------------------------------------------------------------

    def call(self, method: str, arguments: Json) -> tuple[int, Json, dict[str, str]]:
        with self._lock:
            self.calls.append(method)
            answer = self._refusal(method, arguments)
            if answer is None:
                answer = getattr(self, "_" + method.replace(".", "_"))(arguments)
            if "error" in answer and answer["error"] != "ratelimited":
                self.problems.append(f"{method}: {answer['error']} {answer.get('why', '')}")
            if answer.get("error") == "ratelimited":
                return 429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "1"}
            return 200, {"ok": "error" not in answer, **answer}, {}

    def _refusal(self, method: str, arguments: Json) -> Json | None:
        if method not in ARGUMENTS:
            return {"error": "unknown_method"}
        needed = NEEDED.get(method)
        if needed is not None and needed not in self.scopes:
            return {"error": "missing_scope", "needed": needed, "provided": ",".join(sorted(self.scopes))}
        required, optional = ARGUMENTS[method]
        wrong = (required - set(arguments)) | (set(arguments) - required - optional)
        return {"error": "invalid_arguments", "why": sorted(wrong)} if wrong else None

    def _auth_test(self, _: Json) -> Json:
        return {"team_id": TEAM, "user_id": "U0BOT", "bot_id": "B0BOT"}

    def _users_info(self, arguments: Json) -> Json:
        user = self.users.get(arguments["user"])
        return {"user": user} if user else {"error": "user_not_found"}

    def _chat_postMessage(self, arguments: Json) -> Json:  # noqa: N802  # Slack's name
        channel, now = arguments["channel"], time.monotonic()
        refused = self._cannot_write(arguments)
        if refused:
            return refused
        if self.per_second and now - self._last_post.get(channel, -9) < 0.95:
            return {"error": "ratelimited"}
        thread = arguments.get("thread_ts")
        if thread is not None and self.find(channel, thread) is None:
            return {"error": "thread_not_found"}
        self._last_post[channel] = now
        self._count += 1
        ts = f"{int(time.time())}.{self._count:06d}"
        self.messages.append(
            Message(channel, ts, arguments["text"], arguments.get("blocks", []), thread_ts=thread)
        )
        return {"channel": channel, "ts": ts, "message": {"text": arguments["text"]}}

    def _chat_update(self, arguments: Json) -> Json:
        refused = self._cannot_write(arguments)
        if refused:
            return refused
        message = self.find(arguments["channel"], arguments["ts"])
        if message is None:
            return {"error": "message_not_found"}
        message.text, message.blocks = arguments["text"], arguments.get("blocks", [])
        message.edits += 1
        return {"channel": message.channel, "ts": message.ts, "text": message.text}

    def _chat_postEphemeral(self, arguments: Json) -> Json:  # noqa: N802  # Slack's name
        refused = self._cannot_write(arguments)
        if refused:
            return refused
        if arguments["user"] not in self.channels[arguments["channel"]]:
            return {"error": "user_not_in_channel"}
        self.notes.append(arguments)
        return {"message_ts": "1.0"}

    def _views_open(self, arguments: Json) -> Json:
        user, expires = self._triggers.pop(arguments["trigger_id"], ("", 0.0))
        if not user:
            return {"error": "exchanged_trigger_id"}
        if time.monotonic() > expires:
            return {"error": "expired_trigger_id"}
        try:
            check_view(arguments["view"])
        except BlockKitError as problem:
            return {"error": "invalid_arguments", "why": str(problem)}
        view = {**arguments["view"], "id": f"V{len(self.views)}"}
        self.views.append({"user": user, "view": view})
        return {"view": view}

    def _cannot_write(self, arguments: Json) -> Json | None:
        if arguments["channel"] not in self.channels:
            return {"error": "channel_not_found"}
        try:
            check_message(arguments)
        except BlockKitError as problem:
            return {"error": "invalid_blocks", "why": str(problem)}
        return None

    def find(self, channel: str, ts: str) -> Message | None:
        found = (each for each in self.messages if (each.channel, each.ts) == (channel, ts))
        return next(found, None)

    # --- what people do -------------------------------------------------------------------------------

    def click(self, user_id: str, message: Message, action_id: str, **changes: Any) -> httpx.Response:
        """Press a button as it stands in the message now, or as `changes` have it."""
        action = changes.pop("action", None) or action_of(message, action_id)
        payload = {
            "type": "block_actions",
            "api_app_id": APP,
            "token": "verification-token",
            "user": self._signed_user(user_id),
            "team": {"id": TEAM, "domain": "home"},
            "container": {
                "type": "message",
                "message_ts": message.ts,
                "channel_id": message.channel,
                "is_ephemeral": False,
            },
            "channel": {"id": message.channel, "name": "data"},
            "trigger_id": self.trigger(user_id),
            "response_url": "https://hooks.slack.com/actions/none",
            "actions": [{**action, "action_ts": "1.0"}],
            **changes,
        }
        return self.deliver(payload)

    def submit(self, user_id: str, text: str | None) -> httpx.Response:
        """Send off the window that was opened last for this person."""
        view = next(each["view"] for each in reversed(self.views) if each["user"] == user_id)
        state = {"values": {"text": {"text": {"type": "plain_text_input", "value": text}}}}
        return self.deliver(
            {
                "type": "view_submission",
                "api_app_id": APP,
                "user": self._signed_user(user_id),
                "team": {"id": TEAM, "domain": "home"},
                "trigger_id": self.trigger(user_id),
                "view": {**view, "state": state, "hash": "1", "app_installed_team_id": TEAM},
                "response_urls": [],
            }
        )

    def deliver(self, payload: Json) -> httpx.Response:
        body = urlencode({"payload": json.dumps(payload)}).encode()
        return httpx.post(self.request_url, content=body, headers=self.sign(body), timeout=10)

    def sign(self, body: bytes, *, at: float | None = None) -> dict[str, str]:
        timestamp = str(int(time.time() if at is None else at))
        base = b"v0:" + timestamp.encode() + b":" + body
        digest = hmac.new(self.secret.encode(), base, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": f"v0={digest}",
        }

    def trigger(self, user_id: str) -> str:
        with self._lock:
            self._count += 1
            trigger_id = f"{self._count}.trigger"
            self._triggers[trigger_id] = (user_id, time.monotonic() + TRIGGER_SECONDS)
            return trigger_id

    def _signed_user(self, user_id: str) -> Json:
        user = self.users.get(user_id, {})
        return {"id": user_id, "team_id": user.get("team_id", TEAM), "username": user.get("name", "")}


def action_of(message: Message, action_id: str) -> Json:
    found = [
        element
        for block in message.blocks
        if block["type"] == "actions"
        for element in block["elements"]
        if element["action_id"] == action_id
    ]
    if not found:
        raise LookupError(f"the message has no button {action_id}")
    return {key: found[0][key] for key in ("type", "action_id", "value")}


def create_fake_app(slack: FakeSlack) -> FastAPI:
    """Return the Web API under `/api`, the page with the channels at `/`, and what its buttons do."""
    app = FastAPI(openapi_url=None)

    @app.post("/api/{method}")
    async def _call(method: str, request: Request) -> Response:
        if slack.is_down:
            return Response(status_code=503)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token != TOKEN:
            return JSONResponse({"ok": False, "error": "invalid_auth" if token else "not_authed"})
        is_json = request.headers.get("content-type", "").startswith("application/json")
        body = await request.body()
        if is_json and method in READING:
            return JSONResponse({"ok": False, "error": "invalid_form_data"})
        arguments = (
            json.loads(body or b"{}") if is_json else {k: v[0] for k, v in parse_qs(body.decode()).items()}
        )
        arguments = {**dict(request.query_params), **arguments}
        status, answer, headers = slack.call(method, arguments)
        return JSONResponse(answer, status_code=status, headers=headers)

    @app.get("/")
    def _page(user: str = "") -> HTMLResponse:
        return HTMLResponse(page_of(slack.messages, slack.notes, slack.views, slack.users, user))

    @app.post("/do/click")
    async def _click(request: Request) -> Response:
        form = {key: value[0] for key, value in parse_qs((await request.body()).decode()).items()}
        message = slack.find(form["channel"], form["ts"])
        if message is None:
            return Response("no such message", status_code=404)
        await _in_thread(lambda: slack.click(form["user"], message, form["action_id"]))
        return Response(status_code=303, headers={"Location": f"/?user={form['user']}"})

    @app.post("/do/submit")
    async def _submit(request: Request) -> Response:
        form = {key: value[0] for key, value in parse_qs((await request.body()).decode()).items()}
        await _in_thread(lambda: slack.submit(form["user"], form.get("text")))
        return Response(status_code=303, headers={"Location": f"/?user={form['user']}"})

    return app


async def _in_thread(function: Callable[[], object]) -> None:
    from anyio import to_thread

    await to_thread.run_sync(function)


@contextmanager
def down(slack: FakeSlack) -> Iterator[None]:
    """Let Slack answer 503 to everything until the block ends."""
    slack.is_down = True
    try:
        yield
    finally:
        slack.is_down = False
