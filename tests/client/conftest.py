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
        yield found
    found.store.close()
