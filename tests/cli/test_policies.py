"""`policy check` and `policy explain`."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_approvals.cli.exits import Exit
from airflow_approvals.wiring import FilePolicySource
from tests.cli.conftest import Say
from tests.web.site import POLICY


def test_a_sound_file_is_told_with_its_digest(say: Say, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    told = say("policy", "check", "policy.yaml")
    assert told.code == Exit.OK
    assert "sound, 2 policies" in told.out


def test_every_problem_is_named_with_its_line(say: Say, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY.replace("group: security}", "group: nobody, surprise: 1}"))
    told = say("policy", "check", "policy.yaml")
    assert told.code == Exit.ERROR
    assert "policy.yaml:11:" in told.err
    assert "nobody" in told.err or "surprise" in told.err


def test_a_broken_file_is_told_to_programs_too(say: Say, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY.replace("group: security}", "group: nobody}"))
    told = say("policy", "check", "policy.yaml", "-o", "json")
    assert (told.code, told.json["valid"]) == (Exit.ERROR, False)
    assert told.json["problems"][0].startswith("policy.yaml:11:")


@pytest.mark.parametrize("command", [("check",), ("explain", "--file"), ("test",), ("diff", "policy.yaml")])
def test_a_file_that_is_no_utf_8_is_said(say: Say, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "wide.yaml").write_text(POLICY, encoding="utf-16")
    told = say("policy", *command, "wide.yaml")
    assert told.code == Exit.ERROR
    assert "wide.yaml: not UTF-8; save it as UTF-8" in told.err


def test_cases_that_are_not_there_are_said_where_they_are_expected(say: Say, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    told = say("policy", "test", "policy.yaml")
    assert told.code == Exit.ERROR
    assert "policy.cases.yaml" in told.err
    assert "--cases" in told.err


def test_an_action_is_explained_from_a_file_without_a_server(say: Say, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    told = say(
        *("policy", "explain", "--file", "policy.yaml", "--destination", "file:///outbox/secret/x.csv"),
        *("--requester", "alice"),
    )
    assert told.code == Exit.OK
    assert "two-person-export" in told.out
    assert "May not approve, because they ask: alice" in told.out


def test_an_action_is_explained_by_the_server_for_who_asks(say: Say) -> None:
    told = say("policy", "explain", "--destination", "file:///outbox/x.csv", "-o", "json", user="engineer")
    assert told.json["policy"] == "partner-export"


def test_what_no_policy_covers_is_said_to_be_refused(say: Say) -> None:
    assert "it is refused" in say("policy", "explain", "--destination", "s3://x/y", user="engineer").out


CHANNELS = """channels:
  chat: {kind: teams, conn_id: no_such_flow}
  mail: {kind: email, conn_id: mail_server, to: [alice@example.com]}
  notes: {kind: notifier, notifier: no_such_package.Notifier}
"""


@pytest.mark.airflow
def test_channels_that_cannot_be_used_are_named_with_their_lines(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MAIL_SERVER", '{"conn_type": "smtp", "host": "127.0.0.1"}')
    (tmp_path / "policy.yaml").write_text(POLICY.replace("policies:", f"{CHANNELS}policies:"))
    assert say("policy", "check", "policy.yaml").code == Exit.OK  # the file itself is sound
    told = say("policy", "check", "policy.yaml", "--channels")
    assert told.code == Exit.ERROR
    assert "policy.yaml:9: channels.chat: connection no_such_flow: there is none" in told.err
    assert "policy.yaml:11: channels.notes: no_such_package.Notifier cannot be imported" in told.err
    assert "channels.mail" not in told.err


@pytest.mark.airflow
def test_a_channel_that_cannot_be_used_never_keeps_a_file_from_coming_into_force(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("policies:", f"{CHANNELS}policies:"))
    assert FilePolicySource(path).current().channels["chat"].kind == "teams"
