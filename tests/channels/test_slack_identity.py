"""Who a Slack account is: an explicit link, or where the policy allows it, a confirmed e-mail address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.channels.slack.interactive import SlackUser
from airflow_approvals.channels.slack.patience import TIMES, WITHIN, Patience
from airflow_approvals.core.model import State
from tests.channels.site import ALICE, ENGINEER, MALLORY, POLICY, SlackSite, eventually, running
from tests.web.site import utc_now

APPROVE = "approvals.approve"
BY_EMAIL = POLICY.replace("[alice, bob, engineer]", "[alice@example.com, bob, engineer@example.com]").replace(
    "    expires_after: 4h\n", "    expires_after: 4h\n    slack_identity: link_or_email\n"
)


@pytest.fixture
def by_email(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackSite]:
    """A site where nobody has linked anything, and one policy takes confirmed e-mail addresses."""
    found = SlackSite(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    found.policy_file.write_text(BY_EMAIL, encoding="utf-8")
    with running(found, monkeypatch) as site:
        yield site
        assert site.slack.problems == []


def test_a_confirmed_address_counts_where_the_policy_says_so_and_the_ledger_tells_how(
    by_email: SlackSite,
) -> None:
    request = by_email.open()
    by_email.slack.users[ALICE]["profile"]["email"] = "Alice@Example.COM"
    by_email.slack.click(ALICE, by_email.prompt(request), APPROVE)
    eventually(lambda: by_email.store.get_request(request.id).state is State.APPROVED)
    (vote,) = by_email.store.get_request(request.id).votes
    assert vote.voter == "alice@example.com"
    (cast,) = [entry for entry in by_email.ledger() if entry["kind"] == "vote.cast"]
    assert cast["data"]["account"]["by"] == "email"


def test_it_does_not_count_under_a_policy_that_does_not_say_so(by_email: SlackSite) -> None:
    request = by_email.open(folder="reasoned/")
    by_email.slack.click(ALICE, by_email.prompt(request), APPROVE)
    assert "Your code" in json.dumps(eventually(lambda: by_email.slack.views))
    assert by_email.store.get_request(request.id).state is State.PENDING


def test_requesters_cannot_approve_their_own_request_by_address_either(by_email: SlackSite) -> None:
    request = by_email.open(triggered_by="engineer@example.com")
    by_email.slack.click(ENGINEER, by_email.prompt(request), APPROVE)
    assert "requesters cannot approve" in eventually(lambda: by_email.notes_to(ENGINEER))[0]


def test_a_link_wins_over_an_address(by_email: SlackSite) -> None:
    by_email.link_all({ALICE: "mallory"})
    request = by_email.open()
    by_email.slack.click(ALICE, by_email.prompt(request), APPROVE)
    assert "mallory may not vote" in eventually(lambda: by_email.notes_to(ALICE))[0]


ADDRESSES: dict[str, dict[str, Any]] = {
    "not confirmed": {"is_email_confirmed": False},
    "nothing said of it": {"is_email_confirmed": None},
    "no address": {"profile": {}},
    "an address of another kind": {"profile": {"email": ["alice@example.com"]}},
    "no address at all": {"profile": {"email": "alice"}},
    "of somebody whom no group has": {"profile": {"email": "other@example.com"}},
}


@pytest.mark.parametrize("flags", ADDRESSES.values(), ids=ADDRESSES.keys())
def test_an_address_that_slack_does_not_vouch_for_is_nobodys(
    by_email: SlackSite, flags: dict[str, Any]
) -> None:
    by_email.slack.users[ALICE].update(flags)
    request = by_email.open()
    by_email.slack.click(ALICE, by_email.prompt(request), APPROVE)
    eventually(lambda: by_email.notes_to(ALICE) or by_email.slack.views)
    assert by_email.store.get_request(request.id).state is State.PENDING


def test_an_account_that_nobody_knows_is_answered_a_few_times_only(unlinked: SlackSite) -> None:
    request = unlinked.open()
    message = unlinked.prompt(request)
    for _ in range(TIMES + 3):
        assert unlinked.slack.click(MALLORY, message, APPROVE).status_code == 200
    eventually(lambda: len(unlinked.slack.views) == TIMES)
    unlinked.slack.click(ALICE, message, APPROVE)  # somebody else is not concerned
    eventually(lambda: [view for view in unlinked.slack.views if view["user"] == ALICE])
    refused = [entry for entry in unlinked.ledger() if entry["kind"] == "attempt.refused"]
    assert len(refused) == TIMES + 1


def test_patience_comes_back_with_time() -> None:
    patience, who, now = Patience(), SlackUser(team_id="T1", user_id="U1"), utc_now()
    assert [patience.has_for(who, now=now) for _ in range(TIMES + 1)] == [True] * TIMES + [False]
    assert not patience.has_for(who, now=now + WITHIN - timedelta(seconds=1))
    assert patience.has_for(who, now=now + WITHIN)
