"""Groups whose members Slack knows: who is in them counts now, once linked, and never on hearsay."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_approvals.channels.slack.groups import ASKED_EVERY, BELIEVED
from airflow_approvals.core.model import ApprovalRequest, State
from tests.channels.site import ALICE, BOB, LINKED, POLICY, SlackSite, eventually, running
from tests.fake_slack.people import down

APPROVE = "approvals.approve"
USERGROUP = "S0STEWARDS"
WITH_GROUP = POLICY.replace("{users: [alice, bob, engineer]}", f"{{slack_usergroup: {USERGROUP}}}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackSite]:
    """A site whose data stewards are whoever Slack says, alice among them; bob has an account too."""
    found = SlackSite(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    found.policy_file.write_text(WITH_GROUP, encoding="utf-8")
    found.link_all(LINKED)
    found.slack.groups[USERGROUP] = [ALICE]
    with running(found, monkeypatch) as site:
        eventually(lambda: people_of(site))
        yield site


def people_of(site: SlackSite) -> tuple[str, ...]:
    return site.groups.current().groups["data-stewards"].people


def refused(site: SlackSite, user: str, request: ApprovalRequest) -> str:
    site.slack.click(user, site.prompt(request), APPROVE)
    return eventually(lambda: site.notes_to(user))[-1]


def test_a_member_of_the_user_group_may_approve_and_it_is_recorded(site: SlackSite) -> None:
    request = site.open()
    site.slack.click(ALICE, site.prompt(request), APPROVE)
    eventually(lambda: site.store.get_request(request.id).state is State.APPROVED)
    (vote,) = site.store.get_request(request.id).votes
    assert (vote.voter, vote.groups) == ("alice", ("data-stewards",))
    (cast,) = [entry for entry in site.ledger() if entry["kind"] == "vote.cast"]
    assert cast["data"]["account"] == {
        "provider": "slack",
        "team_id": "T0HOME",
        "user_id": ALICE,
        "by": "link",
    }


def test_a_member_may_answer_on_the_page_and_in_a_program_as_well(site: SlackSite) -> None:
    request = site.open()
    with site.person("alice") as alice:
        assert alice.vote(request.id, "approve", revision=1).state is State.APPROVED


def test_somebody_who_is_not_in_it_may_not(site: SlackSite) -> None:
    request = site.open()
    assert "not in any approver group" in refused(site, BOB, request)
    assert site.store.get_request(request.id).state is State.PENDING


def test_somebody_who_left_the_group_has_lost_the_vote_after_it_was_asked_for_again(site: SlackSite) -> None:
    request = site.open()
    site.slack.groups[USERGROUP] = [BOB]
    site.late = ASKED_EVERY
    eventually(lambda: people_of(site) == ("bob",))
    assert "not in any approver group" in refused(site, ALICE, request)
    site.slack.click(BOB, site.prompt(request), APPROVE)
    eventually(lambda: site.store.get_request(request.id).state is State.APPROVED)


def test_a_clock_that_was_set_back_keeps_nobody_in_the_group(site: SlackSite) -> None:
    site.slack.groups[USERGROUP] = [BOB]
    site.late = -timedelta(hours=1)
    eventually(lambda: people_of(site) == ("bob",))
    with down(site.slack):
        site.late = -timedelta(hours=2)
        eventually(lambda: people_of(site) == ())


def test_a_link_that_ends_takes_the_vote_with_it(site: SlackSite) -> None:
    account = {"provider": "slack", "team_id": "T0HOME", "user_id": ALICE}
    assert site.post("alice", "identities/unlink", account).status_code == 200
    eventually(lambda: people_of(site) == ())


def test_a_group_that_slack_was_silent_about_for_too_long_is_empty(site: SlackSite) -> None:
    with down(site.slack):
        site.late = BELIEVED - timedelta(seconds=30)
        site.groups.refresh()
        assert people_of(site) == ("alice",)
        site.late = BELIEVED + timedelta(seconds=1)
        eventually(lambda: people_of(site) == ())
    site.late += timedelta(seconds=30)
    eventually(lambda: people_of(site) == ("alice",))


def test_a_group_that_slack_does_not_know_is_empty_and_named_in_the_log(
    site: SlackSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.policy_file.write_text(WITH_GROUP.replace(USERGROUP, "S0UNKNOWN"), encoding="utf-8")
    eventually(lambda: "no_such_subteam" in caplog.text)
    assert people_of(site) == ()
