from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import yaml

from airflow_approvals.web.app import API
from airflow_approvals.web.slack import router
from tests.fake_slack.server import SCOPES

MANIFEST = Path(__file__).parents[2] / "docker" / "slack" / "manifest-http.yaml"


def test_the_app_asks_for_the_scopes_that_the_tests_run_with_and_sends_clicks_where_they_are_taken() -> None:
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    assert set(manifest["oauth_config"]["scopes"]["bot"]) == SCOPES
    interactivity = manifest["settings"]["interactivity"]
    assert interactivity["is_enabled"] is True
    paths = {f"/approvals{API}{getattr(route, 'path', '')}" for route in router.routes}
    assert {urlsplit(interactivity["request_url"]).path} == paths
    assert manifest["settings"]["socket_mode_enabled"] is False
    assert len(manifest["display_information"]["name"]) <= 35
    assert len(manifest["display_information"]["description"]) <= 140
