"""Signed webhooks, taken by a real server that verifies each as any other program would."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from airflow_approvals.channels.one_way_kinds import check_channel
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.model import Channel, Person, State, Verdict
from airflow_approvals.core.policy_channels import WebhookChannel
from tests.channels.quiet import QuietSite, connect
from tests.channels.receivers import Call, Receiver, receiving

pytestmark = pytest.mark.airflow

SECRET = "whsec_" + b64encode(b"s" * 24).decode()
OLD = "whsec_" + b64encode(b"o" * 32).decode()
FOREIGN = "whsec_" + b64encode(b"f" * 24).decode()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as found:
        yield found


@pytest.fixture
def site(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuietSite]:
    receiver.calls.clear()
    receiver.moods.clear()
    connect(monkeypatch, "hook", host=f"{receiver.address}/approvals?token=hush", password=SECRET)
    found = QuietSite(tmp_path, {"program": "{kind: webhook, conn_id: hook}"})
    yield found
    found.store.close()


def verified(call: Call, secret: str = SECRET) -> dict[str, object]:
    event: dict[str, object] = Webhook(secret).verify(call.body, call.headers)
    return event


def types(receiver: Receiver) -> list[object]:
    return [call.json["type"] for call in receiver.calls]


def test_every_change_is_an_event_that_the_receiver_can_verify(site: QuietSite, receiver: Receiver) -> None:
    request = site.open(folder="secret/")
    site.deliver()
    site.service.ask(Person("alice"), request.id, "which partner?", channel=Channel.PAGE, now=site.now)
    site.deliver()
    site.vote("alice", request)
    site.deliver()
    site.vote("carol", request, reason="fine")
    site.deliver()
    assert types(receiver) == [
        "request.opened",
        "request.opened",  # the request itself, with the question that it has now
        "question.asked",
        "vote.cast",
        "request.approved",
    ]
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 5
    last = verified(receiver.calls[-1])["data"]
    assert isinstance(last, dict)
    assert last["request"]["state"] == "approved"
    assert [vote["voter"] for vote in last["request"]["votes"]] == ["alice", "carol"]
    assert last["link"].endswith(f"/approvals/requests/{request.id}")
    opened = verified(receiver.calls[0])["data"]
    assert isinstance(opened, dict)
    assert opened["progress"]["missing"] == "0 of 2: data-stewards missing, security missing"
    assert opened["request"]["datasets"][0]["rows"] == 5000


def test_a_forged_or_changed_event_is_told_from_ours(site: QuietSite, receiver: Receiver) -> None:
    site.open()
    site.deliver()
    (call,) = receiver.calls
    verified(call)
    with pytest.raises(WebhookVerificationError):
        verified(call, FOREIGN)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(call.body.replace(b"pending", b"expired"), call.headers)


def test_what_failed_is_sent_again_under_the_same_id(site: QuietSite, receiver: Receiver) -> None:
    receiver.moods += [(500, {}), (404, {}), (302, {"Location": "/elsewhere"}), (408, {})]
    request = site.open()
    site.deliver(rounds=5, minutes=6)
    assert {call.path for call in receiver.calls} == {"approvals"}
    assert len(receiver.calls) == 5
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1
    assert len({call.body for call in receiver.calls}) == 1
    assert site.delivery(request, "program").place is not None


def test_a_receiver_that_died_after_it_took_one_sees_the_same_id_again(
    site: QuietSite, receiver: Receiver
) -> None:
    site.open()
    outbox = site.channels.deliveries.outbox
    site.channels.deliveries.plan(now=site.now)
    lost = outbox.claim(now=site.now, lease="died")
    assert lost is not None
    sender = site.channels.deliveries._senders["webhook"]
    settings = site.service.policies.current().channels["program"]
    sender.send_prompt(settings, site.store.get_request(lost.request_id), None, now=site.now)
    site.later = timedelta(minutes=2)
    site.deliver()
    first, second = receiver.calls
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_a_receiver_that_asks_for_rest_gets_it(site: QuietSite, receiver: Receiver) -> None:
    receiver.moods.append((429, {"Retry-After": "120"}))
    site.open()
    site.deliver(minutes=1)
    site.deliver(minutes=1.1)
    assert len(receiver.calls) == 1
    site.deliver()
    assert len(receiver.calls) == 2
    assert site.channels.deliveries.outbox.dead_letters() == []


def test_a_receiver_that_is_gone_for_good_leaves_a_dead_letter_and_the_gate_alone(
    site: QuietSite, receiver: Receiver
) -> None:
    receiver.moods += [(410, {})] * 5
    request = site.open()
    site.deliver(rounds=6, minutes=6)
    (letter,) = site.channels.deliveries.outbox.dead_letters()
    assert letter.problem == "answered 410"
    assert site.vote("alice", request).state is State.APPROVED


def test_while_secrets_change_both_verify(
    site: QuietSite, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"previous_secret": OLD}
    connect(monkeypatch, "hook", host=receiver.address, password=SECRET, extra=extra)
    site.open()
    site.deliver()
    (call,) = receiver.calls
    assert verified(call, SECRET) == verified(call, OLD)
    with pytest.raises(WebhookVerificationError):
        verified(call, FOREIGN)


def test_neither_address_nor_secret_is_ever_logged(
    site: QuietSite, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.moods.append((500, {}))
    site.open()
    site.deliver(rounds=2, minutes=1)
    assert len(receiver.calls) == 2
    assert "hush" not in caplog.text
    assert SECRET not in caplog.text


def test_a_denial_says_why(site: QuietSite, receiver: Receiver) -> None:
    request = site.open()
    site.vote("bob", request, Verdict.DENY, "no contract")
    site.deliver()
    assert receiver.calls == []  # decided before anybody was told: there is nothing left to answer
    other = site.open("leads")
    site.deliver()
    site.vote("bob", other, Verdict.DENY, "no contract")
    site.deliver()
    assert types(receiver) == ["request.opened", "request.denied"]
    assert "no contract" in receiver.calls[-1].body.decode()


UNUSABLE = {
    "no address": ({"password": SECRET}, "no https address"),
    "not a web address": ({"host": "ftp://hooks.example.com", "password": SECRET}, "no https address"),
    "two addresses in one": ({"host": "https://a.example.com /b", "password": SECRET}, "no https address"),
    "unencrypted": ({"host": "http://hooks.example.com/", "password": SECRET}, "unencrypted"),
    "unencrypted, disguised": ({"host": "http://127.0.0.1.example.com/", "password": SECRET}, "unencrypted"),
    "no secret": ({"host": "https://hooks.example.com/"}, "no secret of Standard Webhooks"),
    "short secret": ({"host": "https://h.example.com/", "password": "whsec_c2hvcnQ="}, "at least 24 random"),
    "not base64": ({"host": "https://h.example.com/", "password": "whsec_" + "*" * 40}, "in base64"),
    "bad previous secret": (
        {"host": "https://h.example.com/", "password": SECRET, "extra": {"previous_secret": "hush-hush"}},
        "no secret of Standard Webhooks",
    ),
}


@pytest.mark.parametrize(("fields", "problem"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_connection_that_cannot_be_used_says_why_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], problem: str
) -> None:
    connect(monkeypatch, "hook", **fields)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        check_channel(WebhookChannel(kind="webhook", conn_id="hook"))
    assert "connection hook" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "example.com" not in str(caught.value)


def test_a_connection_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="connection no_such_hook: there is none"):
        check_channel(WebhookChannel(kind="webhook", conn_id="no_such_hook"))
