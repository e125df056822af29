"""What waits for one person's answer, with more open requests than one page of the database holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_approvals.channels.waiting import waiting_for
from airflow_approvals.core.model import Person
from airflow_approvals.core.policy import parse_policy_file
from airflow_approvals.ports import Page, RequestFilter
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from tests.store.samples import NOON, a_request

POLICY = parse_policy_file(
    """
version: 1
groups: {stewards: {users: [alice]}}
policies:
  - name: partner-export
    match: {action: [export]}
    require: [{group: stewards}]
""",
    name="policy.yaml",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    found = create_store(f"sqlite:///{tmp_path / 'airflow.db'}")
    create_tables(found.engine)
    yield found
    found.close()


def test_a_request_that_comes_between_two_pages_makes_no_other_one_wait_twice(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = a_request()
    with store.begin() as tx:
        for _ in range(600):
            tx.insert_request(replace(pattern, id=str(uuid4())))
    listed = store.list_requests

    def while_others_ask(wanted: RequestFilter) -> Page:
        page = listed(wanted)
        with store.begin() as tx:
            tx.insert_request(replace(pattern, id=str(uuid4())))
        return page

    monkeypatch.setattr(store, "list_requests", while_others_ask)
    waits = waiting_for(store, Person("alice"), POLICY, RequestFilter(), now=NOON + timedelta(minutes=1))
    assert len(waits) == len({request.id for request in waits}) == 600
