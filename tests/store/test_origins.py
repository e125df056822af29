from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, insert, text

from airflow_approvals.core.errors import TaskInstanceRefusedError
from airflow_approvals.core.model import Origin
from airflow_approvals.store.engine import open_engine
from airflow_approvals.store.origins import CLEARS, AirflowOrigins

pytestmark = [
    pytest.mark.airflow,
    # Airflow 3.1 warns of an import that its own common.compat provider does.
    pytest.mark.filterwarnings("ignore:The .airflow.operators.branch:FutureWarning"),
]

MANUAL = UUID("0190c0de-0000-7000-8000-00000000000a")
SCHEDULED = UUID("0190c0de-0000-7000-8000-00000000000b")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database with Airflow's own tables, and two runs in them."""
    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()  # type: ignore[no-untyped-call]  # Airflow's
    plain = create_engine(database_url)
    Base.metadata.create_all(plain)
    with plain.begin() as connection:
        if plain.dialect.name == "postgresql":
            # The rows around a task instance (bundle, version, serialized DAG) are not what is read here.
            connection.execute(text("SET session_replication_role = replica"))
        for table, row in rows():
            connection.execute(insert(table).values(row))
    plain.dispose()
    found = open_engine(database_url)
    yield found
    found.dispose()


def rows() -> Iterator[tuple[Any, dict[str, Any]]]:
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

    ti_ids_are_text = "String" in type(TaskInstance.__table__.c.id.type).__name__  # Airflow 3.1
    yield (
        DagModel.__table__,
        {
            "dag_id": "export",
            "owners": "ann, Bob ,",
            "bundle_name": "dags-folder",
            "max_active_tasks": 16,
            "max_active_runs": 16,
            "max_consecutive_failed_dag_runs": 0,
            "has_task_concurrency_limits": False,
        },
    )
    for run_id, ti_id, run_type, user, state in (
        ("manual__1", MANUAL, "manual", "engineer", "running"),
        ("scheduled__1", SCHEDULED, "scheduled", None, None),
    ):
        dag_id = "export" if user else "removed"
        yield (
            DagRun.__table__,
            {
                "dag_id": dag_id,
                "run_id": run_id,
                "run_type": run_type,
                "state": "running",
                "run_after": NOW,
                "triggering_user_name": user,
            },
        )
        yield (
            TaskInstance.__table__,
            {
                "id": str(ti_id) if ti_ids_are_text else ti_id,
                "dag_id": dag_id,
                "run_id": run_id,
                "task_id": "publish",
                "map_index": 2,
                "try_number": 3,
                "state": state,
                "pool": "default_pool",
                "pool_slots": 1,
            },
        )


def test_who_and_what_is_behind_a_task_instance_comes_from_airflow(engine: Engine) -> None:
    assert AirflowOrigins(engine).origin_of(str(MANUAL)) == Origin(
        ti_id=str(MANUAL),
        dag_id="export",
        run_id="manual__1",
        task_id="publish",
        map_index=2,
        try_number=3,
        run_type="manual",
        state="running",
        triggering_user="engineer",
        owners=("ann", "Bob"),
    )


def test_a_task_instance_is_the_same_however_its_id_is_written(engine: Engine) -> None:
    origins = AirflowOrigins(engine)
    assert origins.origin_of(MANUAL.hex.upper()) == origins.origin_of(str(MANUAL))


def test_what_airflow_does_not_know_is_left_empty(engine: Engine) -> None:
    origin = AirflowOrigins(engine).origin_of(str(SCHEDULED))
    assert (origin.run_type, origin.state) == ("scheduled", "none")
    assert (origin.triggering_user, origin.owners) == (None, ())


def test_a_task_instance_that_does_not_exist_is_refused(engine: Engine) -> None:
    origins = AirflowOrigins(engine)
    for ti_id in ("", "publish", "1 OR 1=1", "0190c0de-0000-7000-8000-0000000000ff", "\x00", "é" * 36):
        with pytest.raises(TaskInstanceRefusedError):
            origins.origin_of(ti_id)


LATER, EARLIER = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
CLEARED: dict[str, tuple[dict[str, Any], bool]] = {
    "a task of the run": ({"run_id": "manual__1"}, True),
    "the whole run": ({"event": "clear_dag_run", "run_id": "manual__1"}, True),
    "a task of another run": ({"run_id": "manual__2", "extra": '{"dry_run": false}'}, False),
    "another run and those after it": ({"run_id": "manual__0", "extra": '{"include_future": true}'}, True),
    "another run and those before it": ({"run_id": "manual__2", "extra": '{"include_past": true}'}, True),
    "by dates": ({"extra": '{"start_date": "2026-01-01T00:00:00Z"}'}, True),
    "by dates, before there was such a run": ({"dttm": EARLIER}, False),
    "what nobody can read": ({"extra": "{"}, True),
    "many runs, this among them": (
        {"event": "clear_dag_runs", "extra": '{"dag_runs": [{"dag_run_id": "manual__1"}], "dry_run": false}'},
        True,
    ),
    "many runs of many DAGs": (
        {
            "event": "clear_dag_runs",
            "dag_id": "~",
            "extra": '{"dag_runs": [{"dag_id": "export", "dag_run_id": "manual__1"}]}',
        },
        True,
    ),
    "a run of that name of another DAG": (
        {
            "event": "clear_dag_runs",
            "dag_id": "~",
            "extra": '{"dag_runs": [{"dag_id": "import", "dag_run_id": "manual__1"}]}',
        },
        False,
    ),
    "many runs without this": (
        {"event": "clear_dag_runs", "extra": '{"dag_runs": [{"dag_run_id": "manual__2"}]}'},
        False,
    ),
    "nothing yet, to see what it would be": (
        {"event": "clear_dag_runs", "extra": '{"dag_runs": [{"dag_run_id": "manual__1"}], "dry_run": true}'},
        False,
    ),
    "a task of another DAG": ({"dag_id": "import", "run_id": "manual__1"}, False),
    "a note": ({"event": "patch_dag_run", "run_id": "manual__1"}, False),
}


def test_who_cleared_tasks_of_the_run_stands_behind_it_too(engine: Engine) -> None:
    """Each line of the table by somebody of its own; of the rows of nobody there is nothing to tell."""
    from airflow.models import Log

    row = {"event": "post_clear_task_instances", "dag_id": "export", "dttm": LATER}
    row |= {"run_id": None, "extra": None}
    logged = [{**row, **each, "owner": who} for who, (each, _) in CLEARED.items()]
    with engine.begin() as connection:
        connection.execute(insert(Log.__table__).values([*logged, *logged, {**logged[0], "owner": None}]))
    cleared_by = AirflowOrigins(engine).origin_of(str(MANUAL)).cleared_by
    assert cleared_by == tuple(sorted(who for who, (_, counts) in CLEARED.items() if counts))


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # what Airflow's API imports warns of its own imports
def test_airflow_still_logs_under_these_names_what_makes_tasks_run_again() -> None:
    """The audit log names a call by its function: one that is renamed would bar nobody any more."""
    from airflow.api_fastapi.core_api.routes.public import dag_run, task_instances

    found = {
        name
        for module in (dag_run, task_instances)
        for name, thing in vars(module).items()
        if "clear" in name and inspect.isfunction(thing) and thing.__module__ == module.__name__
    }
    assert found
    assert found <= set(CLEARS)
