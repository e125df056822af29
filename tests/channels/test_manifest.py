from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from airflow_approvals.web.app import API
from airflow_approvals.web.slack import router
from tests.fake_slack.workspace import SCOPES

FOLDER = Path(__file__).parents[2] / "docker" / "slack"


def manifest(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize("name", ["manifest-http.yaml", "manifest-socket.yaml"])
def test_the_app_asks_for_the_scopes_that_the_tests_run_with_and_shows_its_home_tab(name: str) -> None:
    found = manifest(name)
    assert set(found["oauth_config"]["scopes"]["bot"]) == SCOPES
    assert found["settings"]["interactivity"]["is_enabled"] is True
    assert found["settings"]["event_subscriptions"]["bot_events"] == ["app_home_opened"]
    assert found["features"]["app_home"]["home_tab_enabled"] is True
    assert len(found["display_information"]["name"]) <= 35
    assert len(found["display_information"]["description"]) <= 140


def test_over_http_clicks_and_events_are_sent_where_they_are_taken() -> None:
    settings = manifest("manifest-http.yaml")["settings"]
    asked = (settings[part]["request_url"] for part in ("interactivity", "event_subscriptions"))
    paths = {f"/approvals{API}{getattr(route, 'path', '')}" for route in router.routes}
    assert {urlsplit(url).path for url in asked} == paths
    assert settings["socket_mode_enabled"] is False


def test_in_socket_mode_nothing_is_sent_to_an_address() -> None:
    settings = manifest("manifest-socket.yaml")["settings"]
    assert settings["socket_mode_enabled"] is True
    assert "request_url" not in str(settings)
