"""A running site, and the command line as a person would use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.cli.main import main
from tests.web.site import Site, mounted, serving


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Say = Callable[..., Told]


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The API on a real server, for all tests of the command line; each opens requests of its own."""
    folder = tmp_path_factory.mktemp("site")
    found = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    with serving(mounted(found.app), found.port):
        yield found
    found.store.close()


@pytest.fixture
def say(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Say:
    """Return what runs one command as a user; without one, as nobody."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("APPROVALS_URL", site.base_url)
    for name in ("APPROVALS_TOKEN", "APPROVALS_USERNAME", "APPROVALS_PASSWORD"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str, user: str | None = None) -> Told:
        token = ["--token", f"login-{user}"] if user else []
        capsys.readouterr()
        try:
            code = main([*words, *token])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Told(code=code, out=said.out, err=said.err)

    return run
