"""`doctor` says what is wrong once, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from airflow_approvals.cli import doctor
from airflow_approvals.cli.exits import Exit
from airflow_approvals.core.errors import ConfigurationError
from tests.cli.conftest import Say


def test_a_database_without_our_tables_is_said_once(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_tables() -> NoReturn:
        raise ConfigurationError("missing tables; run `airflow db migrate`")

    monkeypatch.setattr(doctor, "_check_database", without_tables)
    told = say("doctor", "-o", "json")
    assert (told.code, told.json["ok"]) == (Exit.ERROR, False)
    checks = {check["subject"]: check for check in told.json["checks"]}
    assert checks["database"]["level"] == "wrong"
    assert not checks.keys() & {"deliveries", "lineage"}


def test_a_policy_file_that_is_not_there_is_said_with_what_to_do(
    say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__APPROVALS__POLICY_FILE", str(tmp_path / "none.yaml"))
    told = say("doctor", "-o", "json")
    (text,) = [check["text"] for check in told.json["checks"] if check["subject"] == "policy file"]
    assert "[approvals] policy_file" in text
