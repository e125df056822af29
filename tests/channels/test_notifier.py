"""Any notifier by class path: one of Airflow's own, and one that keeps what it was told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_approvals.channels.one_way_kinds import check_channel
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.model import State
from airflow_approvals.core.policy_channels import NotifierChannel
from tests.channels.quiet import QuietSite, connect
from tests.channels.receivers import mail_server
from tests.channels.test_email import EXTRA
from tests.web.site import free_port

pytestmark = pytest.mark.airflow


class Diary(BaseNotifier):
    """Writes down what it is told."""

    template_fields = ("text", "tags")
    pages: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    moods: ClassVar[list[Exception]] = []

    def __init__(self, text: str, tags: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.text = text
        self.tags = tags or {}

    def notify(self, context: Any) -> None:
        if self.moods:
            raise self.moods.pop()
        self.pages.append((self.text, self.tags))


PATH = f"{__name__}.Diary"
TEXT = "{{ approval.state }}: {{ approval.title }} {{ approval.link }}"
ARGUMENTS = f'{{text: "{TEXT}", tags: {{of: ["{{{{ approval.policy }}}}"]}}}}'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[QuietSite]:
    Diary.pages.clear()
    Diary.moods.clear()
    channel = f"{{kind: notifier, notifier: {PATH}, arguments: {ARGUMENTS}}}"
    found = QuietSite(tmp_path, {"diary": channel})
    yield found
    found.store.close()


def test_a_notifier_is_told_in_the_words_of_the_policy_file(site: QuietSite) -> None:
    request = site.open()
    site.deliver()
    site.vote("alice", request)
    site.deliver()
    (asked, tags), (approved, _) = Diary.pages
    link = f"{site.base_url}/approvals/requests/{request.id}"
    assert asked == f"pending: Approval needed: export to file:///outbox/customers.csv {link}"
    assert approved.startswith("approved: Approved: export to")
    assert tags == {"of": ["partner-export"]}


def test_words_from_outside_are_no_templates(site: QuietSite) -> None:
    site.open("{{ 7 * 7 }}{% raw %}")
    site.deliver()
    assert "{{ 7 * 7 }}{% raw %}" in Diary.pages[0][0]


def test_a_notifier_that_fails_is_tried_again_and_its_words_are_kept_to_itself(site: QuietSite) -> None:
    Diary.moods += [RuntimeError("token hush-hush was refused")] * 5
    request = site.open()
    site.deliver(minutes=1)
    assert site.delivery(request, "diary").problem == f"{PATH} failed (RuntimeError)"
    site.deliver(rounds=3, minutes=1)
    assert len(Diary.pages) == 1
    assert site.vote("alice", request).state is State.APPROVED


def test_airflows_own_notifier_sends_a_real_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    connect(monkeypatch, "smtp_notes", conn_type="smtp", host="127.0.0.1", port=port, extra=EXTRA)
    arguments = (
        "{to: stewards@example.com, smtp_conn_id: smtp_notes, "
        'subject: "{{ approval.title }}", html_content: "<pre>{{ approval.text | e }}</pre>"}'
    )
    path = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
    site = QuietSite(tmp_path, {"notes": f"{{kind: notifier, notifier: {path}, arguments: {arguments}}}"})
    with mail_server(port) as mailbox:
        site.open()
        site.deliver()
    site.store.close()
    (mail,) = mailbox.mails
    assert mail["Subject"] == "Approval needed: export to file:///outbox/customers.csv"
    html = mail.get_body(("html",))
    assert html is not None
    assert "Review and answer in Airflow: http://127.0.0.1" in html.get_content()


UNUSABLE = {
    "no such package": ("no_such_package.Notifier", {}, "cannot be imported"),
    "no such class": ("airflow.providers.smtp.notifications.smtp.Nobody", {}, "cannot be imported"),
    "no notifier": ("pathlib.Path", {}, "is no notifier"),
    "no class": ("os.getcwd", {}, "is no notifier"),
    "arguments that it does not take": (PATH, {"colour": "hush"}, "does not take these arguments"),
}


@pytest.mark.parametrize(("path", "arguments", "problem"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_notifier_that_cannot_be_used_says_why(path: str, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        check_channel(NotifierChannel(kind="notifier", notifier=path, arguments=arguments))
    assert path in str(caught.value)
    assert "hush" not in str(caught.value)
