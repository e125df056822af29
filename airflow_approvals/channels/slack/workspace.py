"""A Slack workspace as one Airflow connection knows it: its token, its signing secrets, its people.

Connection type `slack`: the bot token is the password; the extra holds `signing_secret`, for rotation
`previous_signing_secret`, for Socket Mode `app_token`, and optionally `app_id`, `base_url`, `proxy`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from airflow_approvals.channels.connections import check_address, is_loopback, with_connections
from airflow_approvals.channels.outbox import SendError
from airflow_approvals.core.errors import ConfigurationError

if TYPE_CHECKING:
    from slack_sdk import WebClient

TIMEOUT = 10
"""Seconds of one call to Slack; far less than a lease."""

KEPT = 300.0
"""Seconds that people and connections are remembered: somebody deactivated has lost their vote after that."""

TROUBLE_KEPT = 10.0
"""Seconds that a connection which cannot be used is not looked for again."""

_READING = frozenset({"users.info", "usergroups.users.list"})
"""Methods that take no JSON: docs.slack.dev/apis/web-api"""

_SOCKET = "apps.connections.open"
_HOOKS = frozenset({"hooks.slack.com", "hooks.slack-gov.com"})
"""Where the `response_url` of a click leads; another place is refused, whoever signed it."""

_GONE = frozenset({"message_not_found", "thread_not_found"})
_PASSING = frozenset(
    {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"}
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """What Slack says of an account."""

    team_id: str
    is_bot: bool
    is_deleted: bool
    is_guest: bool
    is_stranger: bool
    is_confirmed: bool  # Slack has seen that the e-mail address is theirs
    email: str | None  # None where Slack does not tell it, or has not confirmed it


class Workspace(Protocol):
    """One connection to Slack."""

    conn_id: str
    app_id: str
    secrets: tuple[str, ...]
    app_token: str
    base_url: str
    proxy: str | None

    def call(self, method: str, *, now: datetime, **arguments: Any) -> dict[str, Any]: ...

    def team_id(self, *, now: datetime) -> str: ...

    def member(self, user_id: str, *, now: datetime) -> Member: ...

    def group_members(self, usergroup: str, *, now: datetime) -> frozenset[str]: ...

    def socket_url(self, *, now: datetime) -> str: ...

    def respond(self, response_url: str, text: str) -> None: ...


class AirflowWorkspace:
    """The workspace behind a connection of Airflow's, through Airflow's own Slack hook."""

    def __init__(self, conn_id: str) -> None:
        from airflow.providers.slack.hooks.slack import SlackHook

        # No retries inside: a call that was taken and not answered would post twice. The outbox tries again.
        hook = with_connections(SlackHook(slack_conn_id=conn_id, timeout=TIMEOUT, retry_handlers=[]))
        extra = hook.get_connection(conn_id).extra_dejson
        self.conn_id = conn_id
        self.app_id = str(extra.get("app_id") or "")
        names = ("signing_secret", "previous_signing_secret")
        self.secrets = tuple(str(extra[name]) for name in names if extra.get(name))
        self.app_token = str(extra.get("app_token") or "")
        self._client: WebClient = hook.client
        self.base_url, self.proxy = self._client.base_url, self._client.proxy
        check_address(conn_id, self.base_url)
        self._team_id: str | None = None
        self._members: dict[str, tuple[float, Member]] = {}

    def call(self, method: str, *, now: datetime, **arguments: Any) -> dict[str, Any]:
        """Return what Slack answers; raise `SendError` when it says no, later, or nothing."""
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            if method == _SOCKET:
                answer = self._client.apps_connections_open(app_token=self.app_token)
            elif method in _READING:
                answer = self._client.api_call(method, data=arguments)
            else:
                answer = self._client.api_call(method, json=arguments)
        except SlackApiError as refusal:
            raise _send_error(method, refusal, now) from refusal
        except (SlackClientError, OSError, ValueError) as error:
            raise SendError(f"{method}: Slack did not answer ({type(error).__name__})") from error
        return answer.data if isinstance(answer.data, dict) else {}

    def team_id(self, *, now: datetime) -> str:
        """Return the workspace that the token is of."""
        if self._team_id is None:
            self._team_id = str(self.call("auth.test", now=now)["team_id"])
        return self._team_id

    def member(self, user_id: str, *, now: datetime) -> Member:
        """Return what Slack says of an account, at most `KEPT` seconds old."""
        at = time.monotonic()
        kept = self._members.get(user_id)
        if kept is not None and at - kept[0] < KEPT:
            return kept[1]
        user = self.call("users.info", now=now, user=user_id)["user"]
        # What is not said counts against: a flag that Slack leaves out is no assurance.
        member = Member(
            team_id=str(user.get("team_id", "")),
            is_bot=user.get("is_bot", True) is not False,
            is_deleted=user.get("deleted", True) is not False,
            is_guest=user.get("is_restricted", True) is not False
            or user.get("is_ultra_restricted", True) is not False,
            is_stranger=bool(user.get("is_stranger", False)),
            is_confirmed=user.get("is_email_confirmed") is True,
            email=_confirmed_email(user),
        )
        self._members[user_id] = (at, member)
        return member

    def group_members(self, usergroup: str, *, now: datetime) -> frozenset[str]:
        """Return the accounts in a Slack user group; Slack allows about 20 such questions a minute."""
        users = self.call("usergroups.users.list", now=now, usergroup=usergroup).get("users")
        return frozenset(map(str, users)) if isinstance(users, list) else frozenset()

    def socket_url(self, *, now: datetime) -> str:
        """Return the address of a socket for the app; it is good for one connection, soon."""
        return str(self.call(_SOCKET, now=now).get("url", ""))

    def respond(self, response_url: str, text: str) -> None:
        """Tell whoever clicked, and nobody else, through the address that came with the click.

        It takes five answers within half an hour. Raises `SendError`.
        """
        from slack_sdk.errors import SlackClientError
        from slack_sdk.webhook import WebhookClient

        host = check_address(self.conn_id, response_url)
        if host not in _HOOKS and not (
            is_loopback(host) and is_loopback(urlsplit(self.base_url).hostname or "")
        ):
            raise SendError("response_url: it does not lead to Slack", refused=True)
        client = WebhookClient(response_url, timeout=TIMEOUT, proxy=self.proxy, retry_handlers=[])
        try:
            answer = client.send(text=text, response_type="ephemeral", replace_original=False)
        except (SlackClientError, OSError, ValueError) as error:
            raise SendError(f"response_url: Slack did not answer ({type(error).__name__})") from error
        if answer.status_code != 200:
            raise SendError(f"response_url: Slack answered {answer.status_code}", refused=True)


class Workspaces:
    """The workspaces in use, each opened anew every few minutes: connections and secrets change."""

    def __init__(self, open_workspace: Callable[[str], Workspace]) -> None:
        self._open = open_workspace
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Workspace | str]] = {}

    def get(self, conn_id: str) -> Workspace:
        """Return the workspace of a connection; raise `ConfigurationError` when there is no such thing.

        A trouble is remembered for a few seconds: anybody may ask here for a look into the connections.
        """
        with self._lock:
            found = self._kept(conn_id)
            if found is None:
                found = self._opened(conn_id)
                self._known[conn_id] = (time.monotonic(), found)
        if isinstance(found, str):
            raise ConfigurationError(found)
        return found

    def _kept(self, conn_id: str) -> Workspace | str | None:
        since, found = self._known.get(conn_id, (0.0, None))
        life = TROUBLE_KEPT if isinstance(found, str) else KEPT
        return found if time.monotonic() - since < life else None

    def _opened(self, conn_id: str) -> Workspace | str:
        """Return the workspace, or why there is none."""
        try:
            return self._open(conn_id)
        except ConfigurationError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  # whatever Airflow's secrets backends and hook raise
            return (
                f"connection {conn_id}: not usable for Slack ({type(error).__name__}); it needs the type "
                "slack and a bot token as its password"
            )


def _confirmed_email(user: Mapping[str, Any]) -> str | None:
    profile = user.get("profile")
    email = profile.get("email") if isinstance(profile, Mapping) else None
    known = isinstance(email, str) and "@" in email and user.get("is_email_confirmed") is True
    return email if known else None


def _send_error(method: str, refusal: Any, now: datetime) -> SendError:
    response = refusal.response
    if response.status_code == 429:
        asked = str(response.headers.get("Retry-After") or response.headers.get("retry-after") or "1")
        seconds = min(int(asked), 3600) if asked.isascii() and asked.isdigit() else 1
        return SendError(
            f"{method}: Slack asks to wait {seconds} s", retry_at=now + timedelta(seconds=max(1, seconds))
        )
    word = str(response.get("error", "unknown"))[:100] if isinstance(response.data, dict) else "no JSON"
    return SendError(
        f"{method}: Slack says {word}",
        refused=response.status_code < 500 and word not in _PASSING,
        is_gone=word in _GONE,
    )
