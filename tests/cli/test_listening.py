"""`slack-listen` says what it needs, and ends with a code that a supervisor can act on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_approvals import wiring
from airflow_approvals.channels.slack.groups import LinkedGroups
from airflow_approvals.channels.slack.workspace import AirflowWorkspace, Workspaces
from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.service import Service
from airflow_approvals.store.identities import SqlIdentities
from tests.web.site import POLICY, Site, utc_now

CHANNEL = "channels:\n  data-approvals: {kind: slack, conn_id: slack_approvals, channel: C0DATA}\npolicies:"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose service is the one that the command builds."""
    found = Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    source, identities = found.service.policies, SqlIdentities(found.store.engine)
    found.service.policies = LinkedGroups(source, identities, Workspaces(AirflowWorkspace), clock=utc_now)

    def build(_: object) -> Service:
        return found.service

    monkeypatch.setattr(wiring, "build_service", build)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")  # the command sets it: put it back afterwards
    return found


def connect(monkeypatch: pytest.MonkeyPatch, **extra: str) -> None:
    connection = {"conn_type": "slack", "password": "xoxb-secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_APPROVALS", json.dumps(connection))


def test_a_policy_file_without_a_slack_channel_is_nothing_to_listen_for(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slack-listen"]) == Exit.ERROR
    assert "none is named" in capsys.readouterr().err


def test_a_connection_without_an_app_token_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.policy_file.write_text(POLICY.replace("policies:", CHANNEL), encoding="utf-8")
    connect(monkeypatch, signing_secret="hush-hush")
    assert main(["slack-listen"]) == Exit.ERROR
    said = capsys.readouterr().err
    assert "slack_approvals" in said
    assert "app_token" in said
    assert "hush" not in said


def test_a_connection_that_is_not_there_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    text = POLICY.replace("policies:", CHANNEL.replace("slack_approvals", "slack_missing"))
    site.policy_file.write_text(text, encoding="utf-8")
    assert main(["slack-listen"]) == Exit.ERROR
    assert "slack_missing" in capsys.readouterr().err
