"""The API server publishes the ledger's heads by itself, and says loudly when the ledger does not go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from airflow_approvals.core.errors import LedgerTamperedError, VerificationError
from airflow_approvals.store.append_only import guard_names
from airflow_approvals.web import background
from airflow_approvals.web.backend import Backend
from airflow_approvals.web.background import Background
from airflow_approvals.witness import check_witness, open_witness
from tests.web.site import Site, utc_now


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    yield found
    found.store.close()


def loop_of(site: Site, witness: str) -> Background:
    return Background(Backend(lambda: site.service, replace(site.settings, witness=witness)))


def heads(witness: Path) -> list[int]:
    return sorted(int(path.name.partition(".")[0]) for path in witness.glob("*.checkpoint"))


def at(monkeypatch: pytest.MonkeyPatch, **later: float) -> None:
    moment = utc_now() + timedelta(**later)
    monkeypatch.setattr(background, "now", lambda: moment)


def test_heads_are_published_every_interval_and_only_if_something_is_new(
    still: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = tmp_path / "witness"
    loop = loop_of(still, str(witness))
    asyncio.run(loop.run_once())
    assert heads(witness) == [2]  # the key, and the policy
    still.service.record_refusal("mallory", None, "open", VerificationError("x"), now=utc_now())
    asyncio.run(loop.run_once())
    assert heads(witness) == [2]  # not yet
    at(monkeypatch, seconds=301)
    asyncio.run(loop.run_once())
    assert heads(witness) == [2, 3]
    at(monkeypatch, seconds=700)
    asyncio.run(loop.run_once())
    assert heads(witness) == [2, 3]
    assert "the ledger goes on" in check_witness(open_witness(str(witness)), still.store)


def test_without_the_setting_nothing_is_published(still: Site, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    asyncio.run(loop_of(still, "").run_once())
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {"airflow.db-wal", "airflow.db-shm"}


def test_a_ledger_that_was_cut_back_is_said_loudly_and_nothing_is_published_over_it(
    still: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    witness = tmp_path / "witness"
    loop = loop_of(still, str(witness))
    asyncio.run(loop.run_once())
    kept = {path.name: path.read_text() for path in witness.iterdir()}
    with still.store.engine.begin() as connection:
        for name in guard_names("sqlite"):
            connection.execute(text(f"DROP TRIGGER {name}"))
        for table in ("approvals_ledger_entry", "approvals_ledger_node", "approvals_checkpoint"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608  # our own table names
        connection.execute(text("UPDATE approvals_ledger_head SET size = 0, peaks = x''"))
    at(monkeypatch, seconds=301)
    with caplog.at_level(logging.CRITICAL):
        asyncio.run(loop_of(still, str(witness)).run_once())
    assert "the ledger" in caplog.text
    assert {path.name: path.read_text() for path in witness.iterdir()} == kept
    still.service.record_refusal("x", None, "open", VerificationError("x"), now=utc_now())
    with pytest.raises(LedgerTamperedError):
        check_witness(open_witness(str(witness)), still.store)
