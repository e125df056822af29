"""An emergency in the evidence: who granted it alone, and who has looked at it since, or that nobody has."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from airflow_approvals.core.model import Person
from airflow_approvals.evidence.ledger_file import Period
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import create_store
from tests.evidence.conftest import NOON, Office, an_export, package_of


@pytest.mark.parametrize(
    ("remark", "told"),
    [
        (None, "nobody else had looked at it by the end of the period"),
        ("", "looked at by bob"),
        ("the partner confirmed it", "looked at by bob: “the partner confirmed it”"),
    ],
)
def test_an_emergency_says_who_has_looked_at_it_since(tmp_path: Path, remark: str | None, told: str) -> None:
    store = create_store(f"sqlite:///{tmp_path / 'airflow.db'}")
    create_tables(store.engine)
    office = Office(store, tmp_path)
    _, request = office.ask(an_export())
    office.glass(request)
    if remark is not None:
        office.service.review_glass(Person("bob"), request.id, remark=remark, now=office.now)
    period = Period(since=NOON - timedelta(days=1), until=office.now + timedelta(days=1))
    made = package_of(office, tmp_path / "package", period)
    store.close()
    (notable,) = made.summary.notable["break_glass"]
    assert notable.who == "dana"
    assert notable.what.endswith(f"reason: “outage”; from cli; {told}")
