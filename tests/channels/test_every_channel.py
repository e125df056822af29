"""One table of who may answer, held against every way there is to answer: none of them is a way around."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest

from airflow_approvals.channels.slack.references import PromptRef
from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.core.model import ApprovalRequest, Channel, State
from airflow_approvals.web.schemas import VoteBody
from tests.channels.site import ALICE, BOB, CAROL, ENGINEER, MALLORY, SlackSite, eventually, running
from tests.fake_slack.people import action_of
from tests.web.pages import Browser

ACCOUNTS = {"alice": ALICE, "bob": BOB, "carol": CAROL, "engineer": ENGINEER, "mallory": MALLORY}
Answer = Callable[[SlackSite, str, ApprovalRequest, str], None]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlackSite]:
    folder: Path = tmp_path_factory.mktemp("site")
    found = SlackSite(folder, f"sqlite:///{folder / 'airflow.db'}")
    found.link_all({account: name for name, account in ACCOUNTS.items()})
    found.users.readers_of["export"] = {"mallory"}  # who may look, and no more
    with pytest.MonkeyPatch.context() as patch, running(found, patch) as served:
        yield served


def on_the_page(site: SlackSite, name: str, request: ApprovalRequest, verdict: str) -> None:
    with Browser(site, name) as browser:
        # A form of an own page, sent whether or not it shows the button.
        token = next(
            fields["token"]
            for fields in (form.fields for form in browser.open("/identity").forms)
            if "token" in fields
        )
        form = {"token": token, "verdict": verdict, "revision": str(request.revision), "reason": "because"}
        browser.client.post(f"/approvals/requests/{request.id}/vote", data=form)


def _by_client(channel: str) -> Answer:
    def answer(site: SlackSite, name: str, request: ApprovalRequest, verdict: str) -> None:
        with site.person(name) as person, suppress(ApprovalsError):
            person.vote(request.id, verdict, revision=request.revision, reason="because", channel=channel)

    return answer


def in_slack(site: SlackSite, name: str, request: ApprovalRequest, verdict: str) -> None:
    prompt, seen = site.prompt(request), len(site.slack.views)
    site.slack.click(ACCOUNTS[name], prompt, f"approvals.{verdict}")
    if verdict == "deny":
        with suppress(AssertionError):  # whoever may not answer may not even get the window
            eventually(lambda: len(site.slack.views) > seen, seconds=3)
            site.slack.submit(ACCOUNTS[name], "because")


WAYS: dict[Channel, Answer] = {
    Channel.PAGE: on_the_page,
    Channel.API: _by_client("api"),
    Channel.CLI: _by_client("cli"),
    Channel.SLACK: in_slack,
}
ways = pytest.mark.parametrize("way", WAYS, ids=str)
verdicts = pytest.mark.parametrize("verdict", ["approve", "deny"])


def opened(site: SlackSite, **more: str) -> ApprovalRequest:
    request = site.open(f"set-{len(site.ledger())}", **more)
    site.prompt(request)
    return request


def told(site: SlackSite, request: ApprovalRequest, kind: str) -> list[tuple[str, str]]:
    return [
        (entry["actor"], entry["data"].get("because", ""))
        for entry in site.ledger()
        if entry["kind"] == kind and entry["request_id"] == request.id
    ]


def refused(site: SlackSite, request: ApprovalRequest, number: int = 1) -> tuple[str, str]:
    """Return who was refused last, and why; nothing else has changed."""
    eventually(lambda: len(told(site, request, "attempt.refused")) == number)
    assert site.store.get_request(request.id).state is State.PENDING
    return told(site, request, "attempt.refused")[-1]


def becomes(site: SlackSite, request: ApprovalRequest, state: State) -> ApprovalRequest:
    eventually(lambda: site.store.get_request(request.id).state is state)
    return site.store.get_request(request.id)


def test_the_table_covers_every_channel_that_can_vote() -> None:
    assert set(WAYS) == set(Channel)
    assert set(get_args(VoteBody.model_fields["channel"].annotation)) == set(WAYS) - {Channel.SLACK}


@ways
@pytest.mark.parametrize(("verdict", "state"), [("approve", State.APPROVED), ("deny", State.DENIED)])
def test_an_approver_decides_and_the_record_says_where(
    site: SlackSite, way: Channel, verdict: str, state: State
) -> None:
    request = opened(site)
    WAYS[way](site, "alice", request, verdict)
    (vote,) = becomes(site, request, state).votes
    assert (vote.voter, vote.channel, vote.groups) == ("alice", way, ("data-stewards",))


@ways
@verdicts
def test_nobody_answers_their_own_request(site: SlackSite, way: Channel, verdict: str) -> None:
    request = opened(site)
    WAYS[way](site, "engineer", request, verdict)
    who, why = refused(site, request)
    assert who == "engineer"
    assert "requesters cannot approve their own action" in why


@ways
@verdicts
def test_who_is_in_no_group_of_the_policy_answers_nothing(
    site: SlackSite, way: Channel, verdict: str
) -> None:
    request = opened(site)
    WAYS[way](site, "mallory", request, verdict)
    who, why = refused(site, request)
    assert who == "mallory"
    assert "not in any approver group" in why


@ways
@pytest.mark.parametrize("first", WAYS, ids=lambda way: f"after_{way}")
def test_one_person_has_one_vote_whatever_ways_they_use(
    site: SlackSite, first: Channel, way: Channel
) -> None:
    request = opened(site, folder="secret/")
    WAYS[first](site, "alice", request, "approve")
    eventually(lambda: len(site.store.get_request(request.id).votes) == 1)
    WAYS[way](site, "alice", request, "approve")
    who, why = refused(site, request)
    assert who == "alice"
    assert "already voted" in why
    assert len(site.store.get_request(request.id).votes) == 1


@ways
def test_two_groups_are_met_by_two_people(site: SlackSite, way: Channel) -> None:
    request = opened(site, folder="secret/")
    WAYS[way](site, "bob", request, "approve")
    eventually(lambda: len(site.store.get_request(request.id).votes) == 1)
    assert site.store.get_request(request.id).state is State.PENDING
    WAYS[way](site, "carol", request, "approve")
    assert len(becomes(site, request, State.APPROVED).votes) == 2


@ways
def test_a_policy_that_demands_a_login_takes_no_other_answer(site: SlackSite, way: Channel) -> None:
    request = opened(site, folder="page/")
    if way is Channel.SLACK:
        # The prompt has no such button; somebody sends one all the same.
        other = site.prompt(opened(site))
        action = {**action_of(other.blocks, "approvals.approve"), "value": PromptRef.of(request).to_value()}
        site.slack.click(ALICE, other, "approvals.approve", action=action)
        _, why = refused(site, request)
        assert "takes answers from page only" in why
    else:
        WAYS[way](site, "alice", request, "approve")
        becomes(site, request, State.APPROVED)
