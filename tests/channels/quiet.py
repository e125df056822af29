"""A site with channels whose loops do not run: what is planned and sent, and when, is up to the test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_approvals.core.delivery import Delivery
from airflow_approvals.core.model import ApprovalRequest, Channel, Person, Verdict
from airflow_approvals.wiring import build_channels
from tests.web.site import Site, an_opening, utc_now

POLICY = """
version: 1
groups:
  data-stewards: {users: [alice, bob, engineer]}
  security: {users: [carol, dave]}
channels:
%(channels)s
policies:
  - name: two-person-export
    match: {action: [export], destination: ["file:///outbox/secret/**"]}
    require: [{group: data-stewards}, {group: security}]
    notify: %(notify)s
  - name: partner-export
    match: {action: [export], destination: ["file:///outbox/**"]}
    require: [{group: data-stewards}]
    expires_after: 4h
    notify: %(notify)s
    %(more)s
"""


class QuietSite(Site):
    """A site with the given channels, all of them named by its policies."""

    def __init__(
        self,
        folder: Path,
        channels: dict[str, str],
        *,
        more: str = "",
        notify: Sequence[str] | None = None,
        database_url: str | None = None,
    ) -> None:
        super().__init__(folder, database_url or f"sqlite:///{folder / 'airflow.db'}")
        named = "\n".join(f"  {name}: {settings}" for name, settings in channels.items())
        told = json.dumps(list(channels) if notify is None else notify)
        text = POLICY % {"channels": named, "notify": told, "more": more}
        self.policy_file.write_text(text, encoding="utf-8")
        self.channels = build_channels(self.service, self.settings)
        self.later = timedelta(0)

    @property
    def now(self) -> datetime:
        return utc_now() + self.later

    def open(
        self, name: str = "customers", *, folder: str = "", why: str = "monthly feed"
    ) -> ApprovalRequest:
        opening = an_opening(name, folder=folder)
        opening = replace(opening, action=replace(opening.action, justification=why))
        ti_id = self.add_task(run_id=f"manual__{uuid4().hex}")
        return self.service.open_for_task(ti_id, opening, request_id=str(uuid4()), now=self.now).request

    def vote(
        self, who: str, request: ApprovalRequest, verdict: Verdict = Verdict.APPROVE, reason: str = ""
    ) -> ApprovalRequest:
        return self.service.cast_vote(
            Person(who),
            request.id,
            verdict,
            reason=reason,
            revision=request.revision,
            channel=Channel.PAGE,
            now=self.now,
        )

    def deliver(self, *, rounds: int = 1, minutes: float = 0) -> None:
        """Plan, and send all that is due; `minutes` later in each further round."""
        deliveries = self.channels.deliveries
        for _ in range(rounds):
            while deliveries.plan(now=self.now):
                pass
            for second in range(0, 16, 2):  # a channel takes one new message a second
                while deliveries.deliver_one(now=self.now + timedelta(seconds=second), lease=uuid4().hex):
                    pass
            self.later += timedelta(minutes=minutes)

    def delivery(self, request: ApprovalRequest, channel: str) -> Delivery:
        """Return the prompt of `request` in `channel`."""
        found = self.channels.deliveries.outbox.deliveries_of(request.id)
        return next(each for each in found if each.channel == channel and each.entry == -1)


def connect(monkeypatch: pytest.MonkeyPatch, conn_id: str, **fields: Any) -> None:
    """Have Airflow know a connection, as an environment variable holds it."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "http", **fields}))
