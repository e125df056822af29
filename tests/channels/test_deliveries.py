"""What happens to prompts whose channel fails them: nothing is lost silently, and no gate notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from airflow_approvals import wiring
from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.slack.workspace import AirflowWorkspace, Workspaces
from airflow_approvals.core.delivery import MAX_REFUSALS, PROMPT, Delivery
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.model import ApprovalRequest, Channel, Person, State, Verdict
from airflow_approvals.wiring import check_deliveries
from tests.channels.site import POLICY, SlackSite
from tests.fake_slack.people import down
from tests.fake_slack.server import create_fake_app
from tests.fake_slack.workspace import TEAM
from tests.web.site import an_opening, serving, utc_now


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackSite]:
    """A site whose loops do not run: what is sent when is up to the test."""
    found = SlackSite(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_APPROVALS", found.connection)
    with serving(create_fake_app(found.slack), found.slack_port):
        yield found
    found.store.close()


def opened(site: SlackSite, name: str = "customers") -> ApprovalRequest:
    ti_id = site.add_task(run_id=f"manual__{name}")
    made = site.service.open_for_task(ti_id, an_opening(name), request_id=_id(name), now=utc_now())
    site.channels.deliveries.plan(now=utc_now())
    return made.request


def _id(name: str) -> str:
    return f"00000000-0000-4000-8000-{name.encode().hex()[:12]:0>12}"


def drive(site: SlackSite, *, tries: int, first: int = 0) -> None:
    for number in range(first, first + tries):
        later = utc_now() + timedelta(minutes=6 * number)
        while site.channels.deliveries.deliver_one(now=later, lease=f"try-{number}"):
            pass


def only(site: SlackSite, request: ApprovalRequest) -> Delivery:
    (found,) = site.channels.deliveries.outbox.deliveries_of(request.id)
    return found


POLICIES = {
    "not in the workspace": ("channel: C0DATA", "channel: C0GONE", "channel_not_found"),
    "no such connection": ("conn_id: slack_approvals", "conn_id: slack_missing", "connection slack_missing"),
}


@pytest.mark.parametrize(("old", "new", "problem"), POLICIES.values(), ids=POLICIES.keys())
def test_a_channel_that_cannot_be_reached_leaves_a_dead_letter_that_says_why(
    site: SlackSite, old: str, new: str, problem: str
) -> None:
    assert old in POLICY
    site.policy_file.write_text(POLICY.replace(old, new), encoding="utf-8")
    request = opened(site)
    drive(site, tries=41)
    (letter,) = site.channels.deliveries.outbox.dead_letters()
    assert letter.request_id == request.id
    assert problem in letter.problem
    assert site.store.get_request(request.id).state is State.PENDING


def test_a_refusal_is_tried_a_few_times_only(site: SlackSite) -> None:
    site.slack.scopes = frozenset()
    opened(site)
    drive(site, tries=20)
    assert site.slack.calls.count("chat.postMessage") == MAX_REFUSALS
    (letter,) = site.channels.deliveries.outbox.dead_letters()
    assert "missing_scope" in letter.problem


def test_doctor_tells_of_messages_that_were_given_up(
    site: SlackSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.store.engine.url.render_as_string(hide_password=False)
    monkeypatch.setattr(wiring, "_metadata_database", lambda: (url, {}))
    check_deliveries()
    site.slack.scopes = frozenset()
    opened(site)
    drive(site, tries=6)
    with pytest.raises(ConfigurationError, match=r"given up: 1; .*data-approvals: .*missing_scope"):
        check_deliveries()


def test_a_dead_letter_comes_back_to_life_with_the_next_change(site: SlackSite) -> None:
    site.slack.scopes = frozenset()
    request = opened(site)
    drive(site, tries=6)
    site.slack.scopes = frozenset({"chat:write"})
    site.service.ask(Person("alice"), request.id, "anybody?", channel=Channel.PAGE, now=utc_now())
    site.channels.deliveries.plan(now=utc_now())
    drive(site, tries=2, first=6)
    assert site.channels.deliveries.outbox.dead_letters() == []
    assert [each.thread_ts is None for each in site.slack.messages] == [True, False]


def test_a_prompt_that_somebody_deleted_is_posted_anew_while_it_can_be_answered(site: SlackSite) -> None:
    request = opened(site)
    drive(site, tries=1)
    site.slack.messages.clear()
    site.channels.deliveries.outbox.want_again(request.id, now=utc_now())
    drive(site, tries=2)
    assert len(site.prompts(request)) == 1


def test_a_deleted_prompt_of_a_decided_request_stays_deleted(site: SlackSite) -> None:
    request = opened(site)
    drive(site, tries=1)
    site.slack.messages.clear()
    site.service.cast_vote(
        Person("alice"),
        request.id,
        Verdict.APPROVE,
        reason="",
        revision=1,
        channel=Channel.PAGE,
        now=utc_now(),
    )
    site.channels.deliveries.plan(now=utc_now())
    drive(site, tries=3)
    assert site.slack.messages == []
    delivery = only(site, request)
    assert (delivery.entry, delivery.is_dead, delivery.problem) == (PROMPT, False, "")


def test_a_process_that_died_before_it_said_that_it_sent_is_followed_by_another(site: SlackSite) -> None:
    request = opened(site)
    lost = site.channels.deliveries.outbox.claim(now=utc_now(), lease="died")
    assert lost is not None
    assert not site.channels.deliveries.deliver_one(now=utc_now(), lease="lives")
    assert site.channels.deliveries.deliver_one(now=utc_now() + timedelta(seconds=61), lease="lives")
    assert len(site.prompts(request)) == 1


def test_a_policy_file_that_lost_its_channel_is_told_and_nothing_stops(site: SlackSite) -> None:
    request = opened(site)
    text = POLICY.replace("    notify: [data-approvals]\n", "").replace(
        "channels:\n  data-approvals: {kind: slack, conn_id: slack_approvals, channel: C0DATA}\n", ""
    )
    site.policy_file.write_text(text, encoding="utf-8")
    drive(site, tries=6)
    assert "no such channel any more" in only(site, request).problem


ADDRESSES = ["http://slack.example.com/api/", "http://127.0.0.1.example.com/", "ftp://127.0.0.2/"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_token_never_goes_out_unencrypted(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    connection = {"conn_type": "slack", "password": "xoxb-secret", "extra": {"base_url": address}}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_LEAKY", json.dumps(connection))
    with pytest.raises(ConfigurationError, match=r"unencrypted|no https address") as caught:
        Workspaces(AirflowWorkspace).get("slack_leaky")
    assert "xoxb" not in str(caught.value)


def test_a_connection_without_a_token_is_named_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "slack", "extra": {"signing_secret": "hush-hush"}}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_EMPTY", json.dumps(connection))
    with pytest.raises(ConfigurationError, match="connection slack_empty") as caught:
        Workspaces(AirflowWorkspace).get("slack_empty")
    assert "hush" not in str(caught.value)


def test_slack_that_does_not_answer_is_tried_again(site: SlackSite, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.loads(site.connection)
    connection["extra"]["base_url"] = "http://127.0.0.1:9/api/"
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_AWAY", json.dumps(connection))
    workspace = Workspaces(AirflowWorkspace).get("slack_away")
    with pytest.raises(SendError, match="did not answer") as caught:
        workspace.team_id(now=utc_now())
    assert not caught.value.refused
    assert TEAM not in str(caught.value)


def test_slack_that_is_down_for_five_minutes_gets_every_prompt_once_within_five_more(site: SlackSite) -> None:
    began = utc_now()
    before, during = opened(site, "before"), opened(site, "during")
    with down(site.slack):
        elapsed = _driven(site, since=began, at=timedelta(0), until=timedelta(minutes=5))
        with_vote = site.service.cast_vote(
            Person("alice"),
            before.id,
            Verdict.APPROVE,
            reason="",
            revision=1,
            channel=Channel.PAGE,
            now=began + elapsed,
        )
        assert with_vote.state is State.APPROVED  # nobody had to wait
    site.channels.deliveries.plan(now=began + elapsed)
    _driven(site, since=began, at=elapsed, until=timedelta(minutes=10))
    assert site.channels.deliveries.outbox.dead_letters() == []
    assert len(site.prompts(during)) == 1
    assert site.prompts(before) == []  # decided before anybody was asked there
    assert site.slack.calls == ["chat.postMessage"]


def _driven(site: SlackSite, *, since: datetime, at: timedelta, until: timedelta) -> timedelta:
    """Let the loop run on a clock of its own, a second a step; return how late it is then."""
    while at < until:
        while site.channels.deliveries.deliver_one(now=since + at, lease=f"lease-{at}"):
            pass
        at += timedelta(seconds=1)
    return at
