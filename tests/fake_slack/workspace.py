"""A Slack workspace: its people, channels, groups and messages, and what our app may call.

Error words, limits and lifetimes are Slack's where documented; burst size and wording of bodies are our
approximation. It proves what we do, never what Slack does.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.fake_slack.blockkit import BlockKitError, check_home, check_message, check_view

Json = dict[str, Any]

TOKEN = "xoxb-fake-bot-token"
APP_TOKEN = "xapp-fake-app-level-token"
SECRET = "fake-signing-secret-of-the-app"
TEAM, APP, BOT = "T0HOME", "A0APPROVALS", "U0BOT"
TRIGGER_SECONDS = 3.0
RESPONSE_SECONDS, RESPONSE_USES = 30 * 60.0, 5
RESPONSE_KEYS = {"text", "response_type", "replace_original"}
SCOPES = frozenset({"chat:write", "users:read", "users:read.email", "usergroups:read"})
NEEDED = {
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "chat.postEphemeral": "chat:write",
    "users.info": "users:read",
    "usergroups.users.list": "usergroups:read",
}
ARGUMENTS: dict[str, tuple[set[str], set[str]]] = {  # required, optional; else it is a mistake of ours
    "auth.test": (set(), set()),
    "apps.connections.open": (set(), set()),
    "users.info": ({"user"}, set()),
    "usergroups.users.list": ({"usergroup"}, set()),
    "chat.postMessage": ({"channel", "text"}, {"blocks", "thread_ts", "unfurl_links", "unfurl_media"}),
    "chat.update": ({"channel", "ts", "text"}, {"blocks", "unfurl_links", "unfurl_media"}),
    "chat.postEphemeral": ({"channel", "user", "text"}, {"blocks"}),
    "views.open": ({"trigger_id", "view"}, set()),
    "views.publish": ({"user_id", "view"}, {"hash"}),
}
READING = frozenset({"users.info", "usergroups.users.list", "auth.test", "apps.connections.open"})
"""Methods that take no JSON."""


@dataclass
class Message:
    """One message in a channel."""

    channel: str
    ts: str
    text: str
    blocks: list[Json]
    thread_ts: str | None = None
    edits: int = 0
    posted_at: float = 0.0  # on the clock of `time.monotonic`
    edited_at: float = 0.0


@dataclass
class Response:
    """Where a click may be answered, by whoever knows the address."""

    user: str
    channel: str
    expires: float
    uses: int = 0


@dataclass
class Workspace:
    """The state of the workspace, and the ways to disturb it."""

    users: dict[str, Json] = field(default_factory=dict)
    channels: dict[str, set[str]] = field(default_factory=lambda: {"C0DATA": set()})
    groups: dict[str, list[str]] = field(default_factory=dict)  # user groups: id, accounts
    messages: list[Message] = field(default_factory=list)
    notes: list[Json] = field(default_factory=list)  # ephemeral: channel, user, text
    views: list[Json] = field(default_factory=list)  # user, view
    homes: dict[str, Json] = field(default_factory=dict)  # by account
    calls: list[str] = field(default_factory=list)
    scopes: frozenset[str] = SCOPES
    per_second: bool = False  # one new message a second and channel, else 429
    limited: int = 0  # how often 429 was answered
    is_down: bool = False
    turned_away: int = 0  # how many calls came while it was down
    held: frozenset[str] = frozenset()  # methods that get no answer for now
    given_up: int = 0  # how many callers did not wait for that
    problems: list[str] = field(default_factory=list)  # what Slack would have refused
    tickets: set[str] = field(default_factory=set)  # for one socket each
    address: str = ""  # of the server, without a path
    late: float = 0.0  # seconds by which its clock is ahead
    trigger_seconds: float = TRIGGER_SECONDS  # for how long a trigger opens a window
    _responses: dict[str, Response] = field(default_factory=dict)
    _triggers: dict[str, tuple[str, float]] = field(default_factory=dict)
    _used_triggers: set[str] = field(default_factory=set)
    _last_post: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _count: int = 0

    def add_user(self, user_id: str, name: str, **flags: Any) -> str:
        self.users[user_id] = {
            "id": user_id,
            "team_id": TEAM,
            "name": name,
            "profile": {"email": f"{name}@example.com"},
            "deleted": False,
            "is_bot": False,
            "is_restricted": False,
            "is_ultra_restricted": False,
            "is_email_confirmed": True,
            **flags,
        }
        for members in self.channels.values():
            members.add(user_id)
        return user_id

    def find(self, channel: str, ts: str) -> Message | None:
        found = (each for each in self.messages if (each.channel, each.ts) == (channel, ts))
        return next(found, None)

    def trigger(self, user_id: str) -> str:
        """Return a new trigger id: it opens one window, within three seconds."""
        with self._lock:
            self._count += 1
            trigger_id = f"{self._count}.trigger"
            self._triggers[trigger_id] = (user_id, self._now() + self.trigger_seconds)
            return trigger_id

    def response_url(self, user_id: str, channel: str) -> str:
        """Return an address for five answers within half an hour."""
        with self._lock:
            self._count += 1
            token = f"response-{self._count}"
            self._responses[token] = Response(user_id, channel, self._now() + RESPONSE_SECONDS)
            return f"{self.address}/response/{token}"

    def respond(self, token: str, answer: Json) -> tuple[int, str]:
        """Take an answer to a click: status and body."""
        with self._lock:
            found = self._responses.get(token)
            if found is None:
                return 404, "no_such_url"
            if self._now() > found.expires:
                return 404, "expired_url"
            if found.uses >= RESPONSE_USES:
                return 404, "used_url"
            found.uses += 1
            try:
                check_message({"text": answer.get("text")})
            except BlockKitError as problem:
                self.problems.append(f"response_url: {problem}")
                return 400, "invalid_payload"
            # What the whole channel sees, or what takes the place of the prompt, is a mistake of ours.
            private = answer.get("response_type") == "ephemeral" and answer.get("replace_original") is False
            if set(answer) != RESPONSE_KEYS or not private:
                self.problems.append(f"response_url: {sorted(answer)}")
                return 400, "invalid_payload"
            self.notes.append({"channel": found.channel, "user": found.user, "text": answer["text"]})
            return 200, "ok"

    def _now(self) -> float:
        return time.monotonic() + self.late

    def call(self, method: str, arguments: Json, token: str) -> tuple[int, Json, dict[str, str]]:
        """Answer our app: status, body, headers."""
        with self._lock:
            self.calls.append(method)
            answer = self._refusal(method, arguments, token)
            if answer is None:
                answer = getattr(self, "_" + method.replace(".", "_"))(arguments)
            if answer.get("error") == "ratelimited":
                self.limited += 1
                return 429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "1"}
            if "error" in answer:
                self.problems.append(f"{method}: {answer['error']} {answer.get('why', '')}")
            return 200, {"ok": "error" not in answer, **answer}, {}

    def _refusal(self, method: str, arguments: Json, token: str) -> Json | None:
        if token not in (TOKEN, APP_TOKEN):
            return {"error": "invalid_auth" if token else "not_authed"}
        if method not in ARGUMENTS:
            return {"error": "unknown_method"}
        if token != (APP_TOKEN if method == "apps.connections.open" else TOKEN):
            return {"error": "not_allowed_token_type"}
        needed = NEEDED.get(method)
        if needed is not None and needed not in self.scopes:
            return {"error": "missing_scope", "needed": needed, "provided": ",".join(sorted(self.scopes))}
        required, optional = ARGUMENTS[method]
        wrong = (required - set(arguments)) | (set(arguments) - required - optional)
        return {"error": "invalid_arguments", "why": sorted(wrong)} if wrong else None

    def _auth_test(self, _: Json) -> Json:
        return {"team_id": TEAM, "user_id": BOT, "bot_id": "B0BOT"}

    def _apps_connections_open(self, _: Json) -> Json:
        self._count += 1
        ticket = f"ticket-{self._count}"
        self.tickets.add(ticket)
        return {"url": f"{self.address.replace('http', 'ws', 1)}/socket?ticket={ticket}"}

    def _users_info(self, arguments: Json) -> Json:
        user = self.users.get(arguments["user"])
        if user is None:
            return {"error": "user_not_found"}
        if "users:read.email" in self.scopes:
            return {"user": user}
        hidden = {key: value for key, value in user["profile"].items() if key != "email"}
        return {"user": {**user, "profile": hidden}}

    def _usergroups_users_list(self, arguments: Json) -> Json:
        members = self.groups.get(arguments["usergroup"])
        return {"error": "no_such_subteam"} if members is None else {"users": members}

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
        message = Message(channel, ts, arguments["text"], arguments.get("blocks", []), thread, posted_at=now)
        self.messages.append(message)
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
        message.edited_at = time.monotonic()
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
        trigger_id = arguments["trigger_id"]
        if trigger_id in self._used_triggers:
            return {"error": "exchanged_trigger_id"}
        user, expires = self._triggers.pop(trigger_id, ("", 0.0))
        if not user:
            return {"error": "invalid_trigger_id"}
        self._used_triggers.add(trigger_id)
        if self._now() > expires:
            return {"error": "expired_trigger_id"}
        try:
            check_view(arguments["view"])
        except BlockKitError as problem:
            return {"error": "invalid_arguments", "why": str(problem)}
        view = {**arguments["view"], "id": f"V{len(self.views)}"}
        self.views.append({"user": user, "view": view})
        return {"view": view}

    def _views_publish(self, arguments: Json) -> Json:
        if arguments["user_id"] not in self.users:
            return {"error": "user_not_found"}
        try:
            check_home(arguments["view"])
        except BlockKitError as problem:
            return {"error": "invalid_arguments", "why": str(problem)}
        self._count += 1
        view = {**arguments["view"], "id": f"H{self._count}", "hash": f"{self._count}.home"}
        self.homes[arguments["user_id"]] = view
        return {"view": view}

    def _cannot_write(self, arguments: Json) -> Json | None:
        if arguments["channel"] not in self.channels:
            return {"error": "channel_not_found"}
        try:
            check_message(arguments)
        except BlockKitError as problem:
            return {"error": "invalid_blocks", "why": str(problem)}
        return None
