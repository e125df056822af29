"""Teams: cards held against the official schema, and a webhook that takes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft6Validator

from airflow_approvals.channels.one_way_kinds import check_channel
from airflow_approvals.channels.teams import MAX_BYTES, envelope_of
from airflow_approvals.channels.telling import Message, prompt_of
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.model import Action, Column, Evidence, Outcome, State, Verdict
from airflow_approvals.core.policy_channels import TeamsChannel
from tests.channels.quiet import QuietSite, connect
from tests.channels.receivers import Receiver, receiving
from tests.store.samples import EVIDENCE, NOON, a_request, decided

Json = dict[str, Any]

WEIRD = (
    "<!channel> **bold** [link](https://evil.example) `code` <b>html</b> \u202egpj.exe 🙂 {{x}} $(y) "
    + "n" * 10_000
)


@pytest.fixture(scope="module")
def schema() -> Draft6Validator:
    """The official schema of Adaptive Cards 1.5."""
    text = (files("adaptive_cards") / "schemas" / "schema-1.5.json").read_text(encoding="utf-8")
    return Draft6Validator(json.loads(text))


def a_message(**changes: Any) -> Message:
    request = replace(a_request(), **changes)
    link = f"https://airflow.example.com/approvals/requests/{request.id}"
    return prompt_of(request, None, link=link, is_first=True, now=NOON + timedelta(hours=1))


def card_in(envelope: Json) -> Json:
    (attachment,) = envelope["attachments"]
    card: Json = attachment["content"]
    return card


MANY = replace(
    EVIDENCE.datasets[0],
    columns=tuple(Column(name=f"column {number} {WEIRD[:500]}", type="string") for number in range(2000)),
)
MESSAGES = {
    "waiting": a_message(),
    "answered": a_message(
        **{name: getattr(decided(a_request()), name) for name in ("state", "votes", "decided_because")}
    ),
    **{state.value: a_message(state=state, decided_because="why") for state in State},
    "nothing known": a_message(requesters=(), origin=None, evidence=Evidence(), action=Action(kind="export")),
    "weird names": a_message(
        action=Action(kind="export", source=WEIRD, destination=WEIRD, justification=WEIRD),
        decided_because=WEIRD,
        state=State.DENIED,
    ),
    "2,000 columns": a_message(evidence=Evidence(datasets=(MANY,))),
    "all at once": a_message(
        action=Action(kind="export", source="🙂" * 4000, destination="🙂" * 4000, justification="🙂" * 4000),
        evidence=Evidence(datasets=(MANY,)),
        state=State.FAILED,
        votes=decided(a_request()).votes * 10,
        outcome=Outcome(published=False, detail="🙂" * 4000, reported_at=NOON),
        decided_because="🙂" * 4000,
    ),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
def test_every_card_is_one_of_the_official_schema_and_small_enough(
    schema: Draft6Validator, message: Message
) -> None:
    envelope = envelope_of(message)
    assert [error.message for error in schema.iter_errors(card_in(envelope))] == []
    assert len(json.dumps(envelope, ensure_ascii=False).encode()) <= MAX_BYTES < 28 * 1024
    assert envelope["type"] == "message"
    assert card_in(envelope)["actions"] == [
        {"type": "Action.OpenUrl", "title": message.call_to_action, "url": message.link}
    ]


def _breaking(change: Callable[[Json], object]) -> Json:
    card = card_in(envelope_of(MESSAGES["waiting"]))
    change(card)
    return card


BROKEN = {
    "an action that Teams would not run": lambda card: card["actions"][0].update(type="Action.Unknown"),
    "an action without an address": lambda card: card["actions"][0].pop("url"),
    "a number for a text": lambda card: card["body"][1]["inlines"][0].update(text=7),
    "an unknown style": lambda card: card["body"][0].update(style="loud"),
    "an unknown key": lambda card: card.update(colour="red"),
    "a text that renders Markdown without a text": lambda card: card["body"].append({"type": "TextBlock"}),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
def test_the_schema_finds_what_is_broken(schema: Draft6Validator, change: Callable[[Json], object]) -> None:
    assert list(schema.iter_errors(_breaking(change)))


def test_words_from_outside_stand_where_nothing_is_rendered() -> None:
    def texts(node: object, kind: str = "") -> Iterator[tuple[str, str]]:
        if isinstance(node, dict):
            for value in node.values():
                yield from texts(value, str(node.get("type", kind)))
        elif isinstance(node, list):
            for each in node:
                yield from texts(each, kind)
        elif isinstance(node, str):
            yield kind, node

    card = card_in(envelope_of(MESSAGES["weird names"]))
    assert {kind for kind, text in texts(card) if "evil.example" in text} == {"TextRun"}
    assert "\u202e" not in json.dumps(card, ensure_ascii=False)
    assert "[U+202E]" in json.dumps(card)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as found:
        yield found


@pytest.fixture
def site(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuietSite]:
    receiver.calls.clear()
    connect(monkeypatch, "flow", password=f"{receiver.address}/workflows/1?sig=hush")
    found = QuietSite(tmp_path, {"chat": "{kind: teams, conn_id: flow}"})
    yield found
    found.store.close()


def titles(receiver: Receiver) -> list[str]:
    cards = [card_in(call.json) for call in receiver.calls]
    return [card["body"][0]["items"][0]["inlines"][0]["text"].partition(":")[0] for card in cards]


def test_a_card_asks_and_a_further_one_tells_what_came_of_it(site: QuietSite, receiver: Receiver) -> None:
    request = site.open(folder="secret/")
    site.deliver()
    site.vote("alice", request)  # one of two: the card that asks still says all that counts
    site.deliver()
    site.vote("carol", request)
    site.deliver()
    assert titles(receiver) == ["Approval needed", "Approved"]
    assert receiver.calls[0].path == "workflows/1"
    action = card_in(receiver.calls[0].json)["actions"][0]
    assert action["url"] == f"{site.base_url}/approvals/requests/{request.id}"


def test_a_webhook_that_refuses_leaves_a_dead_letter_without_its_address(
    site: QuietSite, receiver: Receiver
) -> None:
    receiver.moods += [(400, {})] * 5
    request = site.open()
    site.deliver(rounds=6, minutes=6)
    assert site.delivery(request, "chat").problem == "answered 400"
    assert site.vote("bob", request, Verdict.DENY, "no").state is State.DENIED


HOSTS = {
    "Microsoft's": ("https://prod-01.westeurope.logic.azure.com:443/workflows/x?sig=hush", None, None),
    "Microsoft's newer one": (
        "https://a.b.environment.api.powerplatform.com/x?sig=hush",
        None,
        None,
    ),
    "another one": ("https://evil.example.com/x?sig=hush", None, "not one of Microsoft Workflows"),
    "one that looks like it": ("https://logic.azure.com.evil.example/?sig=hush", None, "not one of Micro"),
    "login in front": ("https://x.logic.azure.com@evil.example/?sig=hush", None, "not one of Microsoft"),
    "one that is named": ("https://flows.example.com/x?sig=hush", "flows.example.com", None),
    "another than named": ("https://x.logic.azure.com/?sig=hush", "flows.example.com", "not flows.example"),
    "unencrypted": ("http://x.logic.azure.com/?sig=hush", None, "unencrypted"),
    "no address": ("", None, "holds no https address"),
    "no host": ("https:///x?sig=hush", None, "holds no https address"),
}


@pytest.mark.parametrize(("address", "host", "problem"), HOSTS.values(), ids=HOSTS.keys())
def test_cards_go_to_microsoft_or_to_the_host_that_the_policy_names(
    monkeypatch: pytest.MonkeyPatch, address: str, host: str | None, problem: str | None
) -> None:
    connect(monkeypatch, "flow", password=address)
    settings = TeamsChannel(kind="teams", conn_id="flow", host=host)
    if problem is None:
        check_channel(settings)
        return
    with pytest.raises(ConfigurationError, match=problem) as caught:
        check_channel(settings)
    assert "hush" not in str(caught.value)
