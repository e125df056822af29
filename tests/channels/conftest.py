"""A site with Slack for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.channels.site import LINKED, SlackSite, running
from tests.store.conftest import database_url

__all__ = ["database_url", "site", "unlinked"]


@pytest.fixture(scope="session")
def airflow_is_loaded() -> None:
    """Airflow sets up logging when its hooks are first imported; amid a test, `caplog` would go."""
    import_module("airflow.providers.slack.hooks.slack")


@pytest.fixture
def unlinked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, airflow_is_loaded: None) -> Iterator[SlackSite]:
    """A site with Slack, where nobody has said who they are."""
    with running(SlackSite(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}"), monkeypatch) as site:
        yield site
        assert site.slack.problems == []


@pytest.fixture(params=["http", "socket"])
def transport(request: pytest.FixtureRequest) -> str:
    """How clicks come in."""
    return str(request.param)


@pytest.fixture
def site(
    tmp_path: Path,
    database_url: str,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
    airflow_is_loaded: None,
) -> Iterator[SlackSite]:
    """A site with Slack, where everybody has."""
    found = SlackSite(tmp_path, database_url)
    found.link_all(LINKED)
    with running(found, monkeypatch, transport) as site:
        yield site
        assert site.slack.problems == []
