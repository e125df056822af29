"""The fake Slack is as strict as the real one: what it hands out lives as long, it comes again as often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from tests.fake_slack.people import FakeSlack
from tests.fake_slack.server import create_fake_app
from tests.fake_slack.workspace import RESPONSE_SECONDS, TOKEN, Json
from tests.web.site import free_port, serving

ANSWER: Json = {"text": "not yours", "response_type": "ephemeral", "replace_original": False}
VIEW: Json = {
    "type": "modal",
    "title": {"type": "plain_text", "text": "Why"},
    "blocks": [{"type": "divider"}],
}


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    port = free_port()
    found = FakeSlack(address=f"http://127.0.0.1:{port}")
    found.add_user("U1", "alice")
    with serving(create_fake_app(found), port):
        yield found


def answers(slack: FakeSlack, url: str, *bodies: Json) -> list[tuple[int, str]]:
    got = [httpx.post(url, json=body, timeout=60) for body in bodies]
    return [(each.status_code, each.text) for each in got]


def test_a_click_is_answered_five_times_and_no_more(slack: FakeSlack) -> None:
    got = answers(slack, slack.response_url("U1", "C0DATA"), *[ANSWER] * 6)
    assert got == [(200, "ok")] * 5 + [(404, "used_url")]
    assert slack.notes == [{"channel": "C0DATA", "user": "U1", "text": "not yours"}] * 5


def test_a_click_is_answered_within_half_an_hour_and_no_later(slack: FakeSlack) -> None:
    url = slack.response_url("U1", "C0DATA")
    slack.late = RESPONSE_SECONDS - 60
    assert answers(slack, url, ANSWER) == [(200, "ok")]
    slack.late = RESPONSE_SECONDS + 1
    assert answers(slack, url, ANSWER) == [(404, "expired_url")]
    assert answers(slack, f"{slack.address}/response/guessed", ANSWER) == [(404, "no_such_url")]


LOUD: dict[str, Json] = {
    "to the whole channel": {**ANSWER, "response_type": "in_channel"},
    "in place of the prompt": {**ANSWER, "replace_original": True},
    "an unknown key": {**ANSWER, "colour": "red"},
    "a mention": {**ANSWER, "text": "<!channel> look"},
    "no text": {key: value for key, value in ANSWER.items() if key != "text"},
}


@pytest.mark.parametrize("answer", LOUD.values(), ids=LOUD.keys())
def test_an_answer_that_others_would_see_or_that_slack_would_refuse_is_a_problem(
    slack: FakeSlack, answer: Json
) -> None:
    assert answers(slack, slack.response_url("U1", "C0DATA"), answer) == [(400, "invalid_payload")]
    assert (len(slack.problems), slack.notes) == (1, [])


def opened(slack: FakeSlack, trigger_id: str) -> str:
    return str(
        slack.call("views.open", {"trigger_id": trigger_id, "view": VIEW}, TOKEN)[1].get("error", "ok")
    )


def test_a_trigger_opens_one_window_within_three_seconds(slack: FakeSlack) -> None:
    assert slack.trigger_seconds == 3
    slack.trigger_seconds = 60  # the test may take long
    first, second = slack.trigger("U1"), slack.trigger("U1")
    assert [opened(slack, each) for each in (first, first, "guessed")] == [
        "ok",
        "exchanged_trigger_id",
        "invalid_trigger_id",
    ]
    slack.late = 60.1
    assert opened(slack, second) == "expired_trigger_id"


def test_what_is_not_acknowledged_in_time_is_dropped(slack: FakeSlack) -> None:
    assert slack.ack_seconds == 3
    app = FastAPI()

    @app.post("/interactive")
    def _interactive() -> Response:
        time.sleep(0.4)
        return Response()

    port = free_port()
    slack.request_url, slack.ack_seconds = f"http://127.0.0.1:{port}/interactive", 0.2
    with serving(app, port):
        assert slack.deliver({"type": "view_closed"}).status_code == 200
    assert slack.dropped == ["view_closed"]


RECEIVERS: dict[str, tuple[Callable[[int], Response], list[str | None], bool]] = {
    "takes it": (lambda _: Response(), [None], False),
    "fails twice": (lambda number: Response(status_code=200 if number > 2 else 500), [None, "1", "2"], False),
    "fails always": (lambda _: Response(status_code=500), [None, "1", "2", "3"], True),
    "wants no retries": (
        lambda _: Response(status_code=500, headers={"X-Slack-No-Retry": "1"}),
        [None],
        False,
    ),
}


@pytest.mark.parametrize(("receive", "numbers", "is_lost"), RECEIVERS.values(), ids=RECEIVERS.keys())
def test_an_event_that_was_not_taken_comes_again_three_times_signed_anew(
    slack: FakeSlack, receive: Callable[[int], Response], numbers: list[str | None], is_lost: bool
) -> None:
    app, seen = FastAPI(), list[tuple[str | None, bytes]]()

    @app.post("/events")
    async def _events(request: Request) -> Response:
        seen.append((request.headers.get("x-slack-retry-num"), await request.body()))
        return receive(len(seen))

    port = free_port()
    slack.request_url = f"http://127.0.0.1:{port}/interactive"
    with serving(app, port):
        slack.open_home("U1")
    assert [number for number, _ in seen] == numbers
    assert len({body for _, body in seen}) == 1
    assert (slack.dropped != []) is is_lost
