"""A Slack for the demo: the fake workspace of the tests, with everybody in it and a page to click."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from demo.calls import Stage
from demo.embedded import DemoError
from tests.fake_slack.people import FakeSlack
from tests.fake_slack.server import create_fake_app
from tests.fake_slack.workspace import APP, APP_TOKEN, SECRET, TOKEN, Message
from tests.ports import free_port

CHANNEL = "C0DATA"  # as the policy in `demo.places` names it
ACCOUNTS = {name: f"U0{name.upper()}" for name in ("alice", "bob", "engineer", "mallory")}
_CODE = re.compile(r"[2-9A-Z]{4}(?:-[2-9A-Z]{4}){2}")


class DemoSlack:
    """The workspace, and where it is."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.workspace = FakeSlack(address=self.url, channels={CHANNEL: set()})
        for name, account in ACCOUNTS.items():
            self.workspace.add_user(account, name)

    @property
    def env(self) -> dict[str, str]:
        """The Airflow connection that the policy's channel goes through."""
        extra = {
            "base_url": f"{self.url}/api/",
            "signing_secret": SECRET,
            "app_id": APP,
            "app_token": APP_TOKEN,
        }
        connection = {"conn_type": "slack", "password": TOKEN, "extra": extra}
        return {"AIRFLOW_CONN_SLACK_DEMO": json.dumps(connection)}

    def attach(self, airflow_url: str) -> None:
        """Send clicks to this Airflow."""
        self.workspace.request_url = f"{airflow_url}/approvals/api/v1/slack/interactive"

    def link(self, stage: Stage, user: str) -> None:
        """Do what `user` would do once: open the app's Home tab, and repeat the code of it, logged in."""
        account = ACCOUNTS[user]
        self.workspace.open_home(account)
        code = stage.wait_for(
            lambda: self._code_of(account), f"the code of {user}'s Slack account", seconds=60
        )
        with stage.client(user) as client:
            client.link_identity(code, confirm=True)

    def prompt_of(self, request_id: str) -> Message | None:
        """Return the message that asks about this request, once it is there."""
        for message in list(self.workspace.messages):
            if message.thread_ts is None and request_id in json.dumps(message.blocks):
                return message
        return None

    def notes_to(self, user: str) -> list[str]:
        """Return what only `user` was told."""
        return [note["text"] for note in list(self.workspace.notes) if note["user"] == ACCOUNTS[user]]

    def _code_of(self, account: str) -> str | None:
        found = _CODE.search(json.dumps(self.workspace.homes.get(account, {})))
        return found.group() if found else None


@contextmanager
def slack_beside() -> Iterator[DemoSlack]:
    """Serve a workspace until the block ends."""
    slack = DemoSlack()
    config = uvicorn.Config(
        create_fake_app(slack.workspace),
        host="127.0.0.1",
        port=slack.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise DemoError("the fake Slack did not start")
        time.sleep(0.02)
    try:
        yield slack
    finally:
        server.should_exit = True
        thread.join(timeout=10)
