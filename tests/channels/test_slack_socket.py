"""Socket Mode itself: acknowledged first, done once, connected again, plain about a token that is no good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_approvals.channels.connections import check_address
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.model import State
from tests.channels.site import (
    ALICE,
    BOB,
    LINKED,
    LOADED,
    SlackSite,
    a_listener,
    eventually,
    listening,
    running,
)
from tests.fake_slack.people import down
from tests.fake_slack.workspace import APP, TEAM

APPROVE = "approvals.approve"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackSite]:
    """A site in Socket Mode where everybody is linked."""
    found = SlackSite(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    found.link_all(LINKED)
    with running(found, monkeypatch, "socket") as site:
        yield site


def approved(site: SlackSite, name: str, user: str = ALICE) -> bool:
    request = site.open(name)
    assert site.slack.click(user, site.prompt(request), APPROVE).status_code == 200
    eventually(lambda: site.store.get_request(request.id).state is State.APPROVED)
    return True


def test_a_listener_that_is_asked_to_come_again_does_and_loses_nothing(site: SlackSite) -> None:
    assert approved(site, "before")
    first = list(site.slack.sockets)
    site.slack.ask_to_reconnect()
    eventually(lambda: site.slack.sockets and site.slack.sockets[0] not in first)
    assert approved(site, "after")
    assert site.slack.dropped == []


def test_a_connection_that_breaks_is_made_anew(site: SlackSite) -> None:
    first = list(site.slack.sockets)
    site.slack.drop_sockets()
    eventually(lambda: site.slack.sockets and site.slack.sockets[0] not in first)
    assert approved(site, "after")


def test_slack_that_is_away_for_a_while_is_connected_to_again(site: SlackSite) -> None:
    with down(site.slack):
        site.slack.drop_sockets()
        eventually(lambda: not site.slack.sockets)
    eventually(lambda: site.slack.sockets)
    assert approved(site, "after")


def test_two_listeners_side_by_side_do_everything_once(site: SlackSite) -> None:
    with listening(site):
        eventually(lambda: len(site.slack.sockets) == 2)
        for number in range(4):
            assert approved(site, f"feed{number}", BOB)
    casts = [entry for entry in site.ledger() if entry["kind"] == "vote.cast"]
    assert len(casts) == 4


def test_a_click_is_acknowledged_before_anything_is_done(site: SlackSite) -> None:
    message = site.prompt(site.open())
    site.slack.held = frozenset({"views.open"})
    try:
        assert site.slack.click(ALICE, message, "approvals.details").status_code == 200
        assert (site.slack.views, site.slack.given_up) == ([], 0)
    finally:
        site.slack.held = frozenset()
    eventually(lambda: site.slack.views)


def a_click(site: SlackSite) -> dict[str, object]:
    request = site.open()
    message = site.prompt(request)
    button = next(
        each for block in message.blocks if block["type"] == "actions" for each in block["elements"]
    )
    return {
        "type": "block_actions",
        "api_app_id": APP,
        "user": {"id": ALICE, "team_id": TEAM},
        "team": {"id": TEAM},
        "container": {"type": "message", "message_ts": message.ts, "channel_id": message.channel},
        "trigger_id": "1.2",
        "actions": [button],
    }


def test_an_envelope_that_comes_twice_is_carried_out_once(site: SlackSite) -> None:
    assert site.slack.deliver(a_click(site), times=2).status_code == 200
    eventually(lambda: [entry for entry in site.ledger() if entry["kind"] == "vote.cast"])
    approved(site, "after")  # by then, the second one would have been refused, and that be on record
    assert [entry for entry in site.ledger() if entry["kind"] == "attempt.refused"] == []


@pytest.mark.parametrize(
    "payload",
    [{}, {"type": "view_closed"}, {"type": "block_actions"}, {"type": "event_callback", "event": 7}],
    ids=json.dumps,
)
def test_an_envelope_of_an_unknown_kind_is_acknowledged_and_does_nothing(
    site: SlackSite, payload: dict[str, object]
) -> None:
    assert site.slack.deliver(payload).status_code == 200
    approved(site, "after")
    kinds = [entry["kind"] for entry in site.ledger()]
    assert (kinds.count("vote.cast"), kinds.count("attempt.refused")) == (1, 0)


def test_what_another_app_was_told_is_acknowledged_and_does_nothing(
    site: SlackSite, caplog: pytest.LogCaptureFixture
) -> None:
    click = {**a_click(site), "api_app_id": "A0OTHER"}
    assert site.slack.deliver(click).status_code == 200
    eventually(lambda: "it is from another app" in caplog.text)
    assert [entry for entry in site.ledger() if entry["kind"] == "vote.cast"] == []


@pytest.mark.parametrize("token", ["", "xapp-expired", "xoxb-fake-bot-token"])
def test_a_token_that_slack_does_not_take_ends_the_listener_with_a_reason(
    site: SlackSite, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.loads(site.connection)
    connection["extra"]["app_token"] = token
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_OTHER", json.dumps(connection))
    listener = a_listener(site, "slack_other")
    with pytest.raises(ConfigurationError, match=r"connection slack_other: .*app_token") as caught:
        asyncio.run(listener.listen(asyncio.Event()))
    assert "xapp-expired" not in str(caught.value)
    site.slack.problems.clear()


def test_a_listener_that_is_stopped_while_slack_is_away_ends(site: SlackSite) -> None:
    before = site.slack.turned_away

    async def listen_and_stop() -> None:
        stopped = asyncio.Event()
        task = asyncio.create_task(a_listener(site).listen(stopped))
        await asyncio.to_thread(eventually, lambda: site.slack.turned_away > before)
        stopped.set()
        await asyncio.wait_for(task, timeout=LOADED)

    with down(site.slack):
        asyncio.run(listen_and_stop())


def test_a_socket_that_is_not_encrypted_is_refused_unless_it_is_on_this_machine() -> None:
    check_address("slack", "ws://127.0.0.1:8000/socket", kind="ws")
    check_address("slack", "wss://wss-primary.slack.com/link", kind="ws")
    with pytest.raises(ConfigurationError, match="unencrypted"):
        check_address("slack", "ws://wss-primary.slack.com/link", kind="ws")
    for address in ("https://wss-primary.slack.com/link", "wss://", "", "wss://a b"):
        with pytest.raises(ConfigurationError, match="no wss address"):
            check_address("slack", address, kind="ws")
