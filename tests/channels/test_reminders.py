"""Reminders, escalation and emergencies, told in every channel: once each, whoever sends them."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from airflow_approvals.core.model import ApprovalRequest, Channel, Person, State
from airflow_approvals.store.sql import create_store
from airflow_approvals.wiring import build_channels
from tests.channels.quiet import QuietSite, connect
from tests.channels.receivers import Receiver, receiving
from tests.channels.site import SlackSite
from tests.fake_slack.server import create_fake_app
from tests.fake_slack.workspace import Message
from tests.store.conftest import database_url
from tests.web.site import an_opening, serving, utc_now

__all__ = ["database_url"]

SECRET = "whsec_" + b64encode(b"s" * 24).decode()
FIRST = "{kind: webhook, conn_id: first}"
SECOND = "{kind: webhook, conn_id: second}"
WAITING = """remind_every: 1h
    escalate: {after: 2h, to: security, notify: [pager]}
    break_glass: {group: security}"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as found:
        yield found


@pytest.fixture
def site(
    tmp_path: Path, database_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QuietSite]:
    receiver.calls.clear()
    for name in ("first", "second"):
        connect(monkeypatch, name, host=f"{receiver.address}/{name}", password=SECRET)
    channels = {"stewards": FIRST, "pager": SECOND}
    found = QuietSite(tmp_path, channels, notify=["stewards"], more=WAITING, database_url=database_url)
    if found.store.engine.dialect.name == "postgresql":
        with found.store.engine.begin() as connection:  # as Airflow has it there
            connection.execute(text("ALTER TABLE task_instance ALTER COLUMN id TYPE UUID USING id::uuid"))
    yield found
    found.store.close()


def told(receiver: Receiver, path: str) -> list[str]:
    return [str(call.json["type"]) for call in receiver.calls if call.path == path]


def at(site: QuietSite, hours: float) -> None:
    site.later = timedelta(hours=hours)
    site.service.remind_due(now=site.now)


def test_who_is_asked_is_reminded_and_from_the_escalation_on_others_are_asked_too(
    site: QuietSite, receiver: Receiver
) -> None:
    request = site.open()
    for hours in (0, 0.99, 1.01, 2.01, 3.01):
        at(site, hours)
        site.deliver()
    assert [kind for kind in told(receiver, "first") if kind.startswith("request.r")] == [
        "request.reminded"
    ] * 2
    assert told(receiver, "first").count("request.escalated") == 1
    assert told(receiver, "second")[0] == "request.opened"
    assert told(receiver, "second").count("request.reminded") == 1
    escalated = next(call.json for call in receiver.calls if call.json["type"] == "request.escalated")
    assert escalated["data"]["request"]["escalated_to"] == "security"
    site.vote("alice", request)
    site.deliver()
    assert told(receiver, "first")[-1] == told(receiver, "second")[-1] == "request.approved"


def test_an_escalation_tells_and_gives_nobody_a_vote(site: QuietSite) -> None:
    request = site.open()
    at(site, 2.01)
    found = site.store.get_request(request.id)
    assert (found.escalated_to, found.state) == ("security", State.PENDING)
    with pytest.raises(Exception, match="not in any approver group"):
        site.vote("carol", found)


def test_processes_that_remind_and_send_at_once_tell_each_thing_once(
    site: QuietSite, receiver: Receiver
) -> None:
    requests = [site.open(f"set-{number}") for number in range(3)]
    site.deliver()
    receiver.calls.clear()
    for hours in (1.01, 2.01):
        site.later = timedelta(hours=hours)
        now = site.now

        def process() -> None:
            store = create_store(site.store.engine.url.render_as_string(hide_password=False))
            service = type(site.service)(
                store=store,
                origins=site.service._origins,
                policies=site.service.policies,
                signer=site.service.signer,
            )
            deliveries = build_channels(service, site.settings).deliveries
            service.remind_due(now=now)  # noqa: B023  # the threads end within this round
            while deliveries.plan(now=now):  # noqa: B023
                pass
            for second in range(0, 16, 2):
                moment = now + timedelta(seconds=second)  # noqa: B023
                while deliveries.deliver_one(now=moment, lease=uuid4().hex):
                    pass
            store.close()

        threads = [threading.Thread(target=process) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # One that all others had seen leased until their last look is sent by whoever looks next.
        site.deliver(rounds=2, minutes=1)
    notes = [
        (call.path, call.json["type"], call.json["data"]["request"]["id"])
        for call in receiver.calls
        if call.json["type"] in ("request.reminded", "request.escalated")
    ]
    assert sorted(notes) == sorted(
        ("first", kind, request.id)
        for request in requests
        for kind in ("request.reminded", "request.escalated")
    )


def test_a_channel_that_was_away_gets_the_newest_reminder_and_none_of_what_was_answered(
    site: QuietSite, receiver: Receiver
) -> None:
    waits, answered = site.open("waits"), site.open("answered")
    site.deliver()
    for hours in (1.01, 3.01):  # the escalation of 2 h is told late, in place of a reminder
        at(site, hours)
        while site.channels.deliveries.plan(now=site.now):
            pass
    site.vote("alice", answered)
    receiver.calls.clear()
    site.deliver()
    notes = [
        (call.json["data"]["request"]["id"], call.json["type"])
        for call in receiver.calls
        if call.path == "first" and not call.json["type"].startswith("request.op")
    ]
    assert (waits.id, "request.escalated") in notes
    assert "request.reminded" not in {kind for _, kind in notes}
    assert {kind for request_id, kind in notes if request_id == answered.id} == {"request.approved"}


def test_an_emergency_reaches_every_channel_of_the_file(site: QuietSite, receiver: Receiver) -> None:
    request = site.open()
    site.deliver()
    site.service.break_glass(
        Person("carol"),
        request.id,
        reason="the partner is down",
        revision=1,
        channel=Channel.CLI,
        now=site.now,
    )
    site.deliver()
    assert told(receiver, "first")[-1] == told(receiver, "second")[-1] == "request.approved"
    assert "the partner is down" in receiver.calls[-1].body.decode()


def test_an_emergency_is_told_even_if_nobody_was_asked_before(site: QuietSite, receiver: Receiver) -> None:
    request = site.open()
    site.service.break_glass(
        Person("carol"), request.id, reason="night shift", revision=1, channel=Channel.CLI, now=site.now
    )
    site.deliver()
    assert (told(receiver, "first"), told(receiver, "second")) == (["request.approved"],) * 2


@pytest.fixture
def slack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackSite]:
    found = SlackSite(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    more = (
        "    remind_every: 1h\n    escalate: {after: 2h, to: security}\n    break_glass: {group: security}\n"
    )
    policy = found.policy_file.read_text(encoding="utf-8").replace(
        "users: [carol]", "users: [carol], slack_usergroup: S0SECURITY"
    )
    found.policy_file.write_text(policy.rstrip("\n") + "\n" + more, encoding="utf-8")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_APPROVALS", found.connection)
    with serving(create_fake_app(found.slack), found.slack_port):
        yield found
        assert found.slack.problems == []
    found.store.close()


def in_thread(site: SlackSite, request: ApprovalRequest) -> list[Message]:
    (prompt,) = site.prompts(request)
    return [each for each in site.slack.messages if each.thread_ts == prompt.ts]


def test_in_slack_reminders_stand_in_the_thread_and_an_escalation_calls_its_group(slack: SlackSite) -> None:
    ti_id = slack.add_task()
    request = slack.service.open_for_task(ti_id, an_opening(), request_id=str(uuid4()), now=utc_now()).request

    def look(hours: float) -> None:
        now = utc_now() + timedelta(hours=hours)
        slack.service.remind_due(now=now)
        while slack.channels.deliveries.plan(now=now):
            pass
        for second in range(0, 8, 2):
            while slack.channels.deliveries.deliver_one(
                now=now + timedelta(seconds=second), lease=uuid4().hex
            ):
                pass

    look(0)
    assert in_thread(slack, request) == []
    look(1.01)
    look(2.01)
    reminder, escalation = in_thread(slack, request)
    assert "Still waiting for an answer: export to" in reminder.text
    assert "0 of 1: data-stewards missing" in json.dumps(reminder.blocks)
    assert "usergroup" not in json.dumps(reminder.blocks)
    assert "Escalated to security" in escalation.text
    assert '"usergroup_id": "S0SECURITY"' in json.dumps(escalation.blocks)
    slack.service.break_glass(
        Person("carol"), request.id, reason="night shift", revision=1, channel=Channel.CLI, now=utc_now()
    )
    look(2.02)
    assert "BREAK GLASS" in in_thread(slack, request)[-1].text
    assert "night shift" in json.dumps(in_thread(slack, request)[-1].blocks)
    assert "nobody yet" in json.dumps(slack.prompts(request)[0].blocks)
    slack.service.review_glass(Person("alice"), request.id, remark="as agreed", now=utc_now())
    look(2.03)
    assert "alice: as agreed" in json.dumps(slack.prompts(request)[0].blocks)
