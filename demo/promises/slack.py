"""Answers from Slack: a click counts like any other vote, and no forged, replayed or own one does."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlencode

import httpx

from airflow_approvals.core.model import ApprovalRequest, Channel, State
from demo.calls import Stage
from demo.places import Places
from demo.promises.board import Promises, Subject
from demo.promises.following import COUNTS, fresh, over, settled, waiting
from demo.slack import ACCOUNTS, DemoSlack, slack_beside
from tests.fake_slack.people import action_of
from tests.fake_slack.workspace import APP, TEAM, Message

RUN = "clicked"
APPROVE, DETAILS = "approvals.approve", "approvals.details"
SECONDS = 60.0


class _Attack:
    """What is tried in the workspace that stands beside Airflow."""

    def __init__(self) -> None:
        self._slack: DemoSlack | None = None

    @property
    def slack(self) -> DemoSlack:
        if self._slack is None:
            raise RuntimeError("the fake Slack was not started")
        return self._slack

    @contextmanager
    def surroundings(self, _: Places) -> Iterator[Mapping[str, str]]:
        with slack_beside() as self._slack:
            yield self.slack.env

    def start(self, stage: Stage) -> None:
        self.slack.attach(stage.airflow.url)
        stage.trigger(COUNTS, RUN, {"batch": RUN})

    def attack(self, stage: Stage, promises: Promises) -> None:
        for user in ("alice", "engineer"):
            self.slack.link(stage, user)
        request = waiting(stage, COUNTS, RUN)
        message = stage.wait_for(lambda: self.slack.prompt_of(request.id), "the prompt in Slack")
        self._forge(stage, promises, request, message)
        self._approve_own(stage, promises, request, message)
        self._approve(stage, promises, settled(stage, request), message)

    def _forge(self, stage: Stage, promises: Promises, request: ApprovalRequest, message: Message) -> None:
        """Send alice's click as somebody who has no signing secret would."""
        body = self._body_of(message, APPROVE)
        sign = self.slack.workspace.sign
        forgeries: dict[str, Callable[[], httpx.Response]] = {
            "unsigned": lambda: _send(stage, body, {}),
            "guessed secret": lambda: _send(stage, body, _signed(body, "guessed")),
            "signature of another body": lambda: _send(stage, body, sign(b"payload={}")),
            "ten minutes old": lambda: _send(stage, body, sign(body, at=time.time() - 600)),
            "sent twice": lambda: self._replay(stage, message),
        }
        answers = {name: forge() for name, forge in forgeries.items()}
        refused = [
            name for name, answer in answers.items() if (answer.status_code, answer.content) == (401, b"")
        ]
        still = fresh(stage, request)
        promises.observe(
            "forged_slack_click_refused",
            len(refused) == len(forgeries) and still.state is State.PENDING and not still.votes,
            f"refused without a word: {', '.join(refused) or 'nothing'}",
        )

    def _replay(self, stage: Stage, message: Message) -> httpx.Response:
        """Repeat a genuine call word for word; a look at the details, so that the first changes nothing."""
        body = self._body_of(message, DETAILS)
        headers = self.slack.workspace.sign(body)
        first = _send(stage, body, headers)
        return _send(stage, body, headers) if first.status_code == 200 else first

    def _body_of(self, message: Message, action_id: str) -> bytes:
        """Return what Slack would send if alice pressed the button."""
        payload = {
            "type": "block_actions",
            "api_app_id": APP,
            "user": {"id": ACCOUNTS["alice"], "team_id": TEAM},
            "team": {"id": TEAM},
            "container": {"type": "message", "message_ts": message.ts, "channel_id": message.channel},
            "trigger_id": self.slack.workspace.trigger(ACCOUNTS["alice"]),
            "actions": [action_of(message.blocks, action_id)],
        }
        return urlencode({"payload": json.dumps(payload)}).encode()

    def _approve_own(
        self, stage: Stage, promises: Promises, request: ApprovalRequest, message: Message
    ) -> None:
        self.slack.workspace.click(ACCOUNTS["engineer"], message, APPROVE)
        note = _awaited(lambda: next(iter(self.slack.notes_to("engineer")), None))
        still = fresh(stage, request)
        promises.observe(
            "slack_self_approval_refused",
            note is not None
            and "requesters cannot approve their own action" in note
            and still.state is State.PENDING
            and not still.votes,
            f"told privately: {note}",
        )

    def _approve(self, stage: Stage, promises: Promises, request: ApprovalRequest, message: Message) -> None:
        clicked = self.slack.workspace.click(ACCOUNTS["alice"], message, APPROVE)
        state = over(stage, COUNTS, RUN, "export")
        voted = fresh(stage, request)
        frozen = _awaited(lambda: "actions" not in {block["type"] for block in message.blocks} or None)
        votes = [(vote.voter, vote.channel) for vote in voted.votes]
        promises.observe(
            "slack_click_approves",
            clicked.status_code == 200
            and votes == [("alice", Channel.SLACK)]
            and state == "success"
            and stage.places.published(RUN).exists()
            and frozen is True,
            f"task {state}, request {voted.state} ({voted.decided_because}); "
            f"the prompt {'has lost its buttons' if frozen else 'still has its buttons'}",
        )


_ATTACK = _Attack()

SUBJECT = Subject(
    promises=("forged_slack_click_refused", "slack_self_approval_refused", "slack_click_approves"),
    surroundings=_ATTACK.surroundings,
    start=_ATTACK.start,
    attack=_ATTACK.attack,
)


def _signed(body: bytes, secret: str) -> dict[str, str]:
    timestamp = str(int(time.time()))
    digest = hmac.new(secret.encode(), f"v0:{timestamp}:".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={digest}"}


def _send(stage: Stage, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
    url = f"{stage.airflow.url}/approvals/api/v1/slack/interactive"
    media = {"Content-Type": "application/x-www-form-urlencoded"}
    return httpx.post(url, content=body, headers={**media, **headers}, timeout=60)


Found = TypeVar("Found")


def _awaited(look: Callable[[], Found | None]) -> Found | None:
    """Return what `look` finds; None when it finds nothing in time."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    return None
