"""E-mail through Airflow's own SMTP hook to a real mail server."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.channels import email
from airflow_approvals.channels.email import mail_of
from airflow_approvals.channels.telling import prompt_of
from airflow_approvals.core.model import Action, Channel, Person, State
from airflow_approvals.settings import read_settings
from tests.channels.quiet import QuietSite, connect
from tests.channels.receivers import Mailbox, mail_server
from tests.store.samples import NOON, a_request
from tests.web.site import free_port

pytestmark = pytest.mark.airflow

EXTRA = {"disable_ssl": True, "disable_tls": True, "from_email": "approvals@example.com", "retry_limit": 1}


@pytest.fixture
def port() -> int:
    """Return where the mail server is to be."""
    return free_port()


@pytest.fixture
def mailbox(port: int) -> Iterator[Mailbox]:
    with mail_server(port) as found:
        yield found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> Iterator[QuietSite]:
    connect(monkeypatch, "mail", conn_type="smtp", host="127.0.0.1", port=port, extra=EXTRA)
    channel = "{kind: email, conn_id: mail, to: [stewards@example.com, alice@example.com]}"
    found = QuietSite(tmp_path, {"mail": channel})
    yield found
    found.store.close()


class Shown(HTMLParser):
    """What somebody sees of a mail."""

    def __init__(self, mail: EmailMessage) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        html = mail.get_body(("html",))
        assert html is not None
        self.feed(html.get_content())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name == "href" and value]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def plain(mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def test_a_mail_has_every_fact_twice_and_one_way_to_answer(site: QuietSite, mailbox: Mailbox) -> None:
    request = site.open(folder="secret/")
    site.deliver()
    (mail,) = mailbox.mails
    assert mailbox.recipients == [["stewards@example.com", "alice@example.com"]]
    assert mail["From"] == "approvals@example.com"
    assert mail["Subject"] == "Approval needed: export to file:///outbox/secret/customers.csv"
    assert mail["Auto-Submitted"] == "auto-generated"
    link = f"{site.base_url}/approvals/requests/{request.id}"
    shown = Shown(mail)
    assert shown.links == [link]
    for fact in ("file:///outbox/secret/customers.csv", "5,000", "engineer", "0 of 2: data-stewards missing"):
        assert fact in plain(mail)
        assert fact in " ".join(shown.words)
    assert f"Review and answer in Airflow: {link}" in plain(mail)
    assert not {"form", "input", "button", "script", "img"} & shown.tags


def test_what_comes_of_it_is_told_in_the_same_thread(site: QuietSite, mailbox: Mailbox) -> None:
    request = site.open()
    site.deliver()
    site.service.ask(Person("alice"), request.id, "which partner?", channel=Channel.PAGE, now=site.now)
    site.deliver()
    site.vote("alice", request, reason="as agreed")
    site.deliver()
    first, question, approved = mailbox.mails
    assert {mail["In-Reply-To"] for mail in (question, approved)} == {first["Message-ID"]}
    assert len({mail["Message-ID"] for mail in mailbox.mails}) == 3
    assert str(question["Subject"]).startswith("Question 1: export")
    assert "alice asks: which partner?" in plain(question)
    assert str(approved["Subject"]).startswith("Approved: export")
    assert "alice (data-stewards), by page: as agreed" in plain(approved)


def test_words_from_outside_stay_words(site: QuietSite, mailbox: Mailbox) -> None:
    site.open(
        'a"><script>alert(1)</script>' + "n" * 2000, why="\u202egpj.exe <img src=x>\nBcc: evil@example.com"
    )
    site.deliver()
    (mail,) = mailbox.mails
    shown = Shown(mail)
    assert not {"script", "img"} & shown.tags
    words = " ".join(shown.words)
    assert "<script>alert(1)</script>" in words
    assert "[U+202E]gpj.exe <img src=x> Bcc: evil@example.com" in words
    assert mail["Bcc"] is None
    assert len(str(mail["Subject"])) <= 220


def test_no_line_end_from_outside_becomes_a_header() -> None:
    action = Action(kind="export", destination="x\r\nBcc: evil@example.com\r\n\r\nboo")
    link = "https://airflow.example.com/approvals/requests/1"
    message = prompt_of(a_request(action=action), None, link=link, is_first=True, now=NOON)
    mail = mail_of(message, sender="approvals@example.com", to=("alice@example.com",), now=NOON)
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Approval needed: export to x Bcc: evil@example.com boo"


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("airflow.example.com", "airflow.example.com"),
        pytest.param(
            "airflow-approvals.data-platform.internal.example.com",
            "airflow-approvals.data-platform.internal.example.com",
            id="longer than a line of a mail",
        ),
        pytest.param("approvals.münchen.example", "approvals.xn--mnchen-3ya.example", id="beyond ASCII"),
    ],
)
def test_mail_programs_find_the_thread_whatever_the_host_is_called(
    monkeypatch: pytest.MonkeyPatch, host: str, told: str
) -> None:
    monkeypatch.setenv("AIRFLOW__APPROVALS__BASE_URL", f"https://{host}")
    link = f"{read_settings().base_url}/approvals/requests/1"
    message = prompt_of(a_request(), None, link=link, is_first=False, now=NOON)
    mail = mail_of(message, sender="approvals@example.com", to=("alice@example.com",), now=NOON)
    for name in ("Message-ID", "In-Reply-To", "References"):
        written = rf"^{name}:\s+<[0-9a-f.-]+@{re.escape(told)}>$"
        assert re.search(written.encode(), mail.as_bytes(), re.MULTILINE)
    assert Shown(mail).links == [link]


def test_the_same_mail_sent_twice_is_one_to_whoever_shows_it(site: QuietSite, mailbox: Mailbox) -> None:
    request = site.open()
    site.deliver()
    sender = site.channels.deliveries._senders["email"]
    settings = site.service.policies.current().channels["mail"]
    sender.send_prompt(settings, request, None, now=site.now)
    first, second = mailbox.mails
    assert first["Message-ID"] == second["Message-ID"]


def test_a_mail_server_that_is_down_gets_it_later(site: QuietSite, port: int) -> None:
    request = site.open()
    site.deliver(minutes=1)
    assert "no answer from the mail server" in site.delivery(request, "mail").problem
    with mail_server(port) as mailbox:
        site.deliver()
        assert len(mailbox.mails) == 1
    assert site.vote("alice", request).state is State.APPROVED


def test_a_mail_server_that_says_nothing_is_left_once_and_soon(
    site: QuietSite, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(email, "TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", port)) as silent:
        silent.settimeout(0)
        request = site.open()
        really_connect = socket.create_connection
        timeouts: list[float] = []

        def noting(address: Any, timeout: float, *more: Any) -> socket.socket:
            timeouts.append(timeout)
            return really_connect(address, timeout, *more)

        monkeypatch.setattr(socket, "create_connection", noting)
        site.deliver()
        calls = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                calls += 1
    found = site.delivery(request, "mail")
    assert (found.tries, found.is_dead) == (calls, False)
    assert timeouts == [1] * calls  # the connection says 30 s, and to try once more
    assert "no answer from the mail server" in found.problem


@pytest.mark.parametrize(("answer", "dies"), [("550 no such user", True), ("451 try later", False)])
def test_a_refusal_for_good_is_given_up_and_one_for_now_is_not(
    site: QuietSite, mailbox: Mailbox, answer: str, dies: bool
) -> None:
    mailbox.refusal = answer
    request = site.open()
    site.deliver(rounds=6, minutes=6)
    delivery = site.delivery(request, "mail")
    assert delivery.is_dead is dies
    assert delivery.problem == f"the mail server says {answer[:3]}"


def test_an_address_that_is_refused_keeps_the_others_from_nothing_and_is_said(
    airflow_is_loaded: None, site: QuietSite, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox.unknown = {"alice@example.com"}
    request = site.open()
    site.deliver()
    assert mailbox.recipients == [["stewards@example.com"]]
    assert site.delivery(request, "mail").place is not None
    assert "refuses 1 of 2 addresses" in caplog.text


def test_a_connection_without_a_sender_is_named(
    site: QuietSite, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    extra = {name: value for name, value in EXTRA.items() if name != "from_email"}
    connect(monkeypatch, "mail", conn_type="smtp", host="127.0.0.1", port=port, extra=extra)
    request = site.open()
    with mail_server(port) as mailbox:
        site.deliver()
    assert mailbox.mails == []
    assert "connection mail: its extra names no from_email" in site.delivery(request, "mail").problem


def test_a_connection_that_is_not_there_is_named(site: QuietSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_MAIL")
    request = site.open()
    site.deliver()
    assert "connection mail: there is none" in site.delivery(request, "mail").problem
