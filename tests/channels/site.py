"""A site with Slack: the app on a real server, a fake workspace on another, an Airflow connection between."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from airflow_approvals.channels.slack.groups import LinkedGroups
from airflow_approvals.channels.slack.identity import new_code
from airflow_approvals.channels.slack.interactive import SlackUser
from airflow_approvals.channels.slack.listening import Listener
from airflow_approvals.channels.slack.workspace import AirflowWorkspace, Workspaces
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import ApprovalRequest
from airflow_approvals.store.identities import SqlIdentities
from airflow_approvals.web.app import create_app
from airflow_approvals.wiring import build_channels
from tests.fake_slack.people import FakeSlack
from tests.fake_slack.server import create_fake_app
from tests.fake_slack.workspace import APP, APP_TOKEN, SECRET, TEAM, TOKEN, Message
from tests.web.site import Site, an_opening, free_port, mounted, serving, utc_now

LOADED = 60.0
"""Seconds that this Slack gives an app: the machine has other things to do. `make bench` looks at three."""
CHANNEL = "C0DATA"
ALICE, BOB, CAROL, ENGINEER, MALLORY = "U0ALICE", "U0BOB", "U0CAROL", "U0ENGINEER", "U0MALLORY"
LINKED = {ALICE: "alice", BOB: "bob", CAROL: "carol", ENGINEER: "engineer", MALLORY: "mallory"}

POLICY = """
version: 1
groups:
  data-stewards: {users: [alice, bob, engineer]}
  security: {users: [carol]}
  admins: {users: [root]}
channels:
  data-approvals: {kind: slack, conn_id: slack_approvals, channel: C0DATA}
policies:
  - name: page-only
    match: {action: [export], destination: ["file:///outbox/page/**"]}
    require: [{group: data-stewards}]
    channels: [page]
    notify: [data-approvals]
  - name: reasoned
    match: {action: [export], destination: ["file:///outbox/reasoned/**"]}
    require: [{group: data-stewards}]
    require_reason: always
    notify: [data-approvals]
  - name: two-person-export
    match: {action: [export], destination: ["file:///outbox/secret/**"]}
    require: [{group: data-stewards}, {group: security}]
    notify: [data-approvals]
  - name: quiet
    match: {action: [export], destination: ["file:///outbox/quiet/**"]}
    require: [{group: data-stewards}]
  - name: partner-export
    match: {action: [export], destination: ["file:///outbox/**"]}
    require: [{group: data-stewards}]
    expires_after: 4h
    notify: [data-approvals]
"""

Found = TypeVar("Found")


class SlackSite(Site):
    """A site whose policy asks in Slack."""

    def __init__(self, folder: Path, database_url: str) -> None:
        super().__init__(folder, database_url)
        if self.store.engine.dialect.name == "postgresql":
            with self.store.engine.begin() as connection:  # as Airflow has it there
                connection.execute(text("ALTER TABLE task_instance ALTER COLUMN id TYPE UUID USING id::uuid"))
        self.policy_file.write_text(POLICY, encoding="utf-8")
        self.late = timedelta(0)  # how far the clock of the user groups is ahead
        self.slack_port = free_port()
        self.slack = FakeSlack(
            address=f"http://127.0.0.1:{self.slack_port}",
            request_url=f"{self.base_url}/approvals/api/v1/slack/interactive",
            ack_seconds=LOADED,
            trigger_seconds=LOADED,
        )
        self.service.policies = self.groups = LinkedGroups(
            self.service.policies,
            SqlIdentities(self.store.engine),
            Workspaces(AirflowWorkspace),
            clock=lambda: utc_now() + self.late,
        )
        self.channels = build_channels(self.service, self.settings)
        self.app = create_app(lambda: self.service, self.settings, self.users, lambda _: self.channels)
        for user_id, name in LINKED.items():
            self.slack.add_user(user_id, name)

    @property
    def connection(self) -> str:
        """The Airflow connection, as an environment variable holds it."""
        extra = {
            "base_url": f"http://127.0.0.1:{self.slack_port}/api/",
            "signing_secret": SECRET,
            "app_id": APP,
            "app_token": APP_TOKEN,
        }
        return json.dumps({"conn_type": "slack", "password": TOKEN, "extra": extra})

    def link_all(self, accounts: Mapping[str, str]) -> None:
        """Link Slack accounts to logins, as if their owners had done it."""
        at = utc_now()
        for user_id, name in accounts.items():
            code = new_code(self.channels.identities, SlackUser(team_id=TEAM, user_id=user_id), now=at)
            self.channels.identities.link(code, person_named(name), now=at)

    def post(self, name: str, path: str, body: object) -> httpx.Response:
        return httpx.post(
            f"{self.base_url}/approvals/api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer login-{name}"},
            timeout=LOADED,
        )

    def open(
        self, name: str = "customers", *, folder: str = "", triggered_by: str | None = "engineer"
    ) -> ApprovalRequest:
        ti_id = self.add_task(run_id=f"manual__{name}", triggered_by=triggered_by)
        with self.worker(ti_id) as worker:
            return worker.open_request(an_opening(name, folder=folder))[0]

    def prompt(self, request: ApprovalRequest) -> Message:
        return eventually(lambda: next(each for each in self.slack.messages if self._is_of(each, request)))

    def prompts(self, request: ApprovalRequest) -> list[Message]:
        return [each for each in self.slack.messages if self._is_of(each, request)]

    def _is_of(self, message: Message, request: ApprovalRequest) -> bool:
        return message.thread_ts is None and request.id in json.dumps(message.blocks)

    def notes_to(self, user_id: str) -> list[str]:
        return [note["text"] for note in self.slack.notes if note["user"] == user_id]


def a_listener(site: SlackSite, conn_id: str = "slack_approvals") -> Listener:
    """Return what listens in Socket Mode, as `slack-listen` does."""
    return Listener(
        answers=site.channels.answers,
        deliveries=site.channels.deliveries,
        workspaces=site.channels.workspaces,
        conn_id=conn_id,
        clock=utc_now,
        new_lease=lambda: str(uuid4()),
    )


@contextmanager
def listening(site: SlackSite) -> Iterator[None]:
    """Listen in Socket Mode until the block ends."""
    loop, stopped, connected = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    listener = a_listener(site)
    thread = threading.Thread(target=lambda: loop.run_until_complete(listener.listen(stopped, connected.set)))
    thread.start()
    assert connected.wait(timeout=LOADED)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(timeout=LOADED)
        loop.close()


@contextmanager
def running(site: SlackSite, monkeypatch: pytest.MonkeyPatch, transport: str = "http") -> Iterator[SlackSite]:
    """Serve the site and its Slack until the block ends."""
    site.slack.is_socket = transport == "socket"
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_APPROVALS", site.connection)
    with (
        serving(create_fake_app(site.slack), site.slack_port, has_sockets=True),
        serving(mounted(site.app), site.port),
        listening(site) if site.slack.is_socket else nullcontext(),
    ):
        yield site
    site.store.close()


def eventually(look: Callable[[], Found], *, seconds: float = LOADED) -> Found:
    """Return what `look` finds, once it finds something true."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except (StopIteration, LookupError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)


def code_in(text: str) -> str:
    found = re.search(r"[2-9A-Z]{4}(-[2-9A-Z]{4}){2}", text)
    assert found is not None
    return found.group()
