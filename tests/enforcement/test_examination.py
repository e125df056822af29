"""What `doctor` says of task instances without an approval, where a task has many indexes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_approvals.core.model import State
from airflow_approvals.enforcement import examination
from airflow_approvals.enforcement.examination import find_unapproved
from airflow_approvals.enforcement.in_force import EndedRun
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from tests.store.samples import NOON, SLOT, a_request

INDEXES = 1030
UNAPPROVED = (7, 1029)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlStore:
    """A store in which all indexes of a mapped task but two have used an approval."""
    made = create_store(f"sqlite:///{tmp_path / 'airflow.db'}")
    create_tables(made.engine)
    with made.begin() as tx:
        for index in range(INDEXES):
            state = State.PENDING if index in UNAPPROVED else State.COMPLETED
            tx.insert_request(a_request(replace(SLOT, map_index=index), state=state))

    @contextmanager
    def open_store() -> Iterator[SqlStore]:
        yield made

    monkeypatch.setattr(examination, "open_store", open_store)
    return made


def test_a_task_of_many_indexes_is_told_apart_index_by_index(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = [
        EndedRun(
            dag_id=SLOT.dag_id,
            run_id=SLOT.run_id,
            task_id=SLOT.task_id,
            map_index=index,
            was_started=True,
        )
        for index in range(INDEXES)
    ]
    monkeypatch.setattr(examination, "ended_runs", lambda rules, since: iter(ended))
    assert tuple(run.map_index for run in find_unapproved((), since=NOON)) == UNAPPROVED
