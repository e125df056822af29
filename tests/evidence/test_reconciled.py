"""Whoever holds lineage against a ledger is told on whose word that ledger stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.keys import load_signer
from tests.evidence.conftest import ORIGIN, Made
from tests.marquez.local import LocalHandler, LocalServer

Told = pytest.CaptureFixture[str]
WARNING = "the key came with the ledger itself; give --key to hold it against one you know"


class _Quiet(LocalHandler, BaseHTTPRequestHandler):
    """A Marquez to which nobody has told anything."""

    def do_GET(self) -> None:
        self.say(200, b'{"events": [], "totalCount": 0}')


@pytest.fixture(scope="module")
def marquez() -> Iterator[str]:
    with LocalServer(_Quiet) as server:
        yield server.url


@pytest.fixture
def command(made: Made, marquez: str) -> list[str]:
    ledger = str(made.folder / "ledger.jsonl")
    return ["reconcile", "--marquez", marquez, "--ledger", ledger, "--destination", "file:///outbox/**"]


def known_key(made: Made, folder: Path) -> str:
    path = folder / "known.json"
    path.write_text(json.dumps(made.office.signer.public_key_json()), encoding="utf-8")
    return str(path)


def test_a_ledger_that_vouches_for_itself_is_said_to(
    made: Made, command: list[str], tmp_path: Path, capsys: Told
) -> None:
    assert main(command) == Exit.OK
    told = capsys.readouterr().out
    assert f"held against the ledger of {ORIGIN}, {made.package.report.entries} entries" in told
    assert f"signed by   key {made.office.signer.keyid}" in told
    assert WARNING in told
    assert main([*command, "--key", known_key(made, tmp_path)]) == Exit.OK
    assert WARNING not in capsys.readouterr().out


def test_programs_are_told_too(made: Made, command: list[str], tmp_path: Path, capsys: Told) -> None:
    def ledger(*more: str) -> Any:
        assert main([*command, "--output", "json", *more]) == Exit.OK
        return json.loads(capsys.readouterr().out)["ledger"]

    assert ledger() == {
        "origin": ORIGIN,
        "entries": made.package.report.entries,
        "signed_by": made.office.signer.keyid,
        "signed_at": "2026-03-03T19:06:00.000000Z",
        "trust_on_first_use": True,
    }
    assert ledger("--key", known_key(made, tmp_path))["trust_on_first_use"] is False


def test_a_ledger_by_another_key_than_the_given_one_is_not_held_against(
    command: list[str], tmp_path: Path, capsys: Told
) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(load_signer("", home=tmp_path).public_key_json()), encoding="utf-8")
    assert main([*command, "--key", str(other)]) == Exit.NOT_VERIFIED
    assert "held against" not in capsys.readouterr().out
