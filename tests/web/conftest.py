"""A running site for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.site import Site, mounted, serving


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The API on a real uvicorn server and SQLite, for one test alone."""
    found = Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    with serving(mounted(found.app), found.port):
        found.wait_for_first_round()
        yield found
    found.store.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same for tests that use tasks and requests of their own, and leave the policy alone."""
    folder = tmp_path_factory.mktemp("site")
    found = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    with serving(mounted(found.app), found.port):
        found.wait_for_first_round()
        yield found
    found.store.close()
