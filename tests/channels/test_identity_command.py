"""Linking from a terminal: the code that Slack told is repeated by whoever is logged in."""

from __future__ import annotations

import json

import pytest

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.core.model import Person
from tests.channels.site import ALICE, SlackSite, code_in, eventually


@pytest.fixture
def code(unlinked: SlackSite, monkeypatch: pytest.MonkeyPatch) -> str:
    """The code that alice's Slack account was told when she opened the app's Home tab."""
    monkeypatch.setenv("APPROVALS_URL", unlinked.base_url)
    monkeypatch.setenv("APPROVALS_TOKEN", "login-alice")
    assert unlinked.slack.open_home(ALICE).status_code == 200
    return code_in(json.dumps(eventually(lambda: unlinked.slack.homes.get(ALICE))))


def test_a_terminal_links_an_account_lists_it_and_ends_the_link(
    unlinked: SlackSite, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identity", "link", code, "--yes"]) == Exit.OK
    assert f"linked: slack:T0HOME/{ALICE} is alice" in capsys.readouterr().out
    assert main(["identity", "list"]) == Exit.OK
    assert f"slack:T0HOME/{ALICE}, linked to alice" in capsys.readouterr().out
    assert main(["identity", "unlink", f"slack:T0HOME/{ALICE}"]) == Exit.OK
    assert unlinked.channels.identities.links_of(Person("alice")) == []
    capsys.readouterr()
    assert main(["identity", "list"]) == Exit.OK
    assert "no account elsewhere is linked to alice" in capsys.readouterr().out


def test_programs_get_json_and_must_say_that_they_mean_it(
    unlinked: SlackSite, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identity", "link", code, "-o", "json"]) == Exit.USAGE
    assert "add --yes" in capsys.readouterr().err
    assert unlinked.channels.identities.links_of(Person("alice")) == []
    assert main(["identity", "link", code, "--yes", "-o", "json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["user_id"] == ALICE


@pytest.mark.parametrize(
    "words",
    [("link", "AAAA-BBBB-CCCC", "--yes"), ("unlink", "alice"), ("unlink", "slack:T0HOME/U0NOBODY")],
    ids=["a code that nobody was told", "no account", "an account that is not linked"],
)
def test_what_cannot_be_linked_or_unlinked_is_an_error(
    words: tuple[str, ...], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identity", *words]) == Exit.USAGE
    assert capsys.readouterr().err
