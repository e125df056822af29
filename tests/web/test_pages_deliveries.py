"""What the pages say of messages to people: told, on the way, given up, and sent again."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI

from airflow_approvals.core.model import ApprovalRequest, Channel, Person
from airflow_approvals.web.app import create_app
from tests.channels.quiet import QuietSite, connect
from tests.channels.receivers import Receiver, receiving
from tests.web.pages import Browser, Page
from tests.web.site import mounted, serving

SECRET = "whsec_" + b64encode(b"s" * 24).decode()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as found:
        yield found


@pytest.fixture(scope="module")
def closed() -> Iterator[Receiver]:
    """A receiver that says that it is gone for good."""
    with receiving(Receiver()) as found:
        yield found


@pytest.fixture
def site(
    tmp_path: Path, receiver: Receiver, closed: Receiver, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QuietSite]:
    receiver.calls.clear()
    closed.moods[:] = [(410, {})] * 5
    connect(monkeypatch, "hook", host=receiver.address, password=SECRET)
    connect(monkeypatch, "gone", host=closed.address, password=SECRET)
    channels = {"program": "{kind: webhook, conn_id: hook}", "away": "{kind: webhook, conn_id: gone}"}
    found = QuietSite(tmp_path, channels)
    found.app = create_app(lambda: found.service, found.settings, found.users, lambda _: found.channels)
    outer = FastAPI()  # does not enter the lifespan of what it mounts: no loop sends anything
    outer.mount("/approvals", found.app)
    with serving(outer, found.port):
        yield found
    found.store.close()


@pytest.fixture
def alice(site: QuietSite) -> Iterator[Browser]:
    with Browser(site, "alice") as browser:
        yield browser


def raw(browser: Browser, path: str) -> Page:
    return Page(browser.client.get(f"/approvals{path}"))


def page_of(browser: Browser, request: ApprovalRequest) -> str:
    return " ".join(browser.client.get(f"/approvals/requests/{request.id}").text.split())


def test_a_request_says_where_it_was_told(site: QuietSite, alice: Browser) -> None:
    request = site.open()
    site.channels.deliveries.plan(now=site.now)
    assert "<bdi>program</bdi></b> (webhook), the request: on its way" in page_of(alice, request)
    assert 'hx-trigger="every 3s"' in page_of(alice, request)
    site.deliver()
    page = page_of(alice, request)
    assert "<bdi>program</bdi></b> (webhook), the request: told <span" in page
    assert "<bdi>away</bdi></b> (webhook), the request: not told yet, tried" in page
    assert "answered 410" in page
    assert "Send again" not in page


def test_what_was_given_up_is_seen_and_sent_again(site: QuietSite, alice: Browser) -> None:
    request = site.open()
    site.deliver(rounds=6, minutes=6)
    page = page_of(alice, request)
    assert "given up after 5 tries: answered 410" in page
    assert 'hx-trigger="every 3s"' not in page
    inbox = " ".join(alice.client.get("/approvals/").text.split())
    assert "1 message to people was given up; the newest, to channel <bdi>away</bdi>: answered 410" in inbox
    assert f"/requests/{request.id}#timeline" in inbox

    form = next(form for form in raw(alice, f"/requests/{request.id}").forms if "send-again" in form.action)
    assert alice.client.post(form.action, data=form.fields).status_code == 200
    site.deliver()
    assert site.delivery(request, "away").place is not None
    assert "given up" not in page_of(alice, request)
    assert "given up" not in alice.client.get("/approvals/").text


def test_a_question_is_not_on_its_way_where_the_request_itself_was_given_up(
    site: QuietSite, alice: Browser
) -> None:
    request = site.open()
    site.deliver(rounds=6, minutes=6)
    site.service.ask(Person("alice"), request.id, "why?", channel=Channel.PAGE, now=site.now)
    while site.channels.deliveries.plan(now=site.now):
        pass
    site.channels.deliveries.outbox.revive(request.id, now=site.now)
    page = page_of(alice, request)
    assert "<bdi>program</bdi></b> (webhook), ledger entry 1: on its way" in page
    assert "<bdi>away</bdi></b> (webhook), ledger entry" not in page


def test_who_neither_asks_nor_is_asked_sends_nothing_again(site: QuietSite) -> None:
    request = site.open()
    site.deliver(rounds=6, minutes=6)
    site.users.readers_of["export"] = {"mallory"}
    with Browser(site, "mallory") as mallory:
        found = raw(mallory, f"/requests/{request.id}")
        form = next(form for form in found.forms if "send-again" in form.action)
        answer = mallory.client.post(form.action, data=form.fields)
    assert answer.status_code == 403
    assert "neither asks nor is asked" in answer.text
    assert len(site.channels.deliveries.outbox.dead_letters()) == 1


def test_nobody_is_told_of_letters_about_requests_that_they_may_not_see(site: QuietSite) -> None:
    site.open()
    site.deliver(rounds=6, minutes=6)
    with Browser(site, "mallory") as mallory:
        assert "given up" not in mallory.client.get("/approvals/").text


def test_a_channel_that_left_the_policy_file_is_said_so(site: QuietSite, alice: Browser) -> None:
    request = site.open()
    site.deliver()
    text = site.policy_file.read_text(encoding="utf-8")
    site.policy_file.write_text(
        text.replace("  away: {kind: webhook, conn_id: gone}\n", "").replace(', "away"', ""), encoding="utf-8"
    )
    assert "<bdi>away</bdi></b> (not in the policy file any more)" in page_of(alice, request)


def test_without_channels_the_pages_are_as_good(tmp_path: Path) -> None:
    site = QuietSite(tmp_path, {"program": "{kind: webhook, conn_id: hook}"})
    request = site.open()
    with serving(mounted(site.app), site.port), Browser(site, "alice") as browser:
        assert "Told where" not in browser.open(f"/requests/{request.id}").text
        assert "given up" not in browser.open("/").text
    site.store.close()


LINEAGE = {
    "Marquez": (
        "https://m.example.com/lineage/job/airflow/{dag_id}.{task_id}",
        "https://m.example.com/lineage/job/airflow/export.publish",
    ),
    "the run too": ("http://m.example.com/{dag_id}?run={run_id}", "http://m.example.com/export?run=manual__"),
    "nothing configured": ("", None),
    "no web address": ("javascript:alert(1)//{dag_id}", None),
}


@pytest.mark.parametrize(("template", "address"), LINEAGE.values(), ids=LINEAGE.keys())
def test_lineage_is_linked_where_it_is_configured(tmp_path: Path, template: str, address: str | None) -> None:
    site = QuietSite(tmp_path, {"program": "{kind: webhook, conn_id: hook}"})
    site.app = create_app(lambda: site.service, replace(site.settings, lineage_url=template), site.users)
    request = site.open()
    with serving(mounted(site.app), site.port), Browser(site, "alice") as browser:
        page = browser.open(f"/requests/{request.id}").answer.text
    site.store.close()
    if address is None:
        assert "read and written" not in page
        assert "alert(1)" not in page
    else:
        assert f'<a href="{address}' in page
