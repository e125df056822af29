"""The facts about a task instance, from Airflow's own tables: a worker's word is not taken for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, Uuid, column, or_, select, table

from airflow_approvals.core.errors import TaskInstanceRefusedError
from airflow_approvals.core.model import Origin
from airflow_approvals.store.engine import Database

_TI = table(
    "task_instance",
    column("id"),
    column("dag_id"),
    column("run_id"),
    column("task_id"),
    column("map_index"),
    column("try_number"),
    column("state"),
)
_RUN = table(
    "dag_run",
    column("dag_id"),
    column("run_id"),
    column("run_type"),
    column("run_after"),
    column("triggering_user_name"),
)
_DAG = table("dag", column("dag_id"), column("owners"))
_LOG = table(
    "log",
    column("id"),
    column("dttm"),
    column("dag_id"),
    column("run_id"),
    column("event"),
    column("owner"),
    column("extra"),
)

CLEARS = (
    "post_clear_task_instances",
    "clear_dag_run",
    "clear_dag_runs",
    "clear_dag_run_partitions",
)
"""How Airflow's audit log (3.1 to 3.3) names what makes finished tasks run again."""
_MANY_DAGS = "~"


class AirflowOrigins:
    """Task instances as the metadata database knows them; whether their state will do, others judge."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)
        self._dialect = engine.dialect.name

    def origin_of(self, ti_id: str) -> Origin:
        """Return the task instance behind `ti_id`; raise `TaskInstanceRefusedError` when there is none."""
        try:
            known = UUID(ti_id)
        except ValueError:
            raise TaskInstanceRefusedError(
                "task instance: expected its UUID, found something else; send the id that Airflow gave it"
            ) from None
        query = (
            select(_TI, _RUN.c.run_type, _RUN.c.triggering_user_name, _DAG.c.owners)
            .join(_RUN, (_RUN.c.dag_id == _TI.c.dag_id) & (_RUN.c.run_id == _TI.c.run_id))
            .outerjoin(_DAG, _DAG.c.dag_id == _TI.c.dag_id)
            .where(self._is(known))
        )
        with self._database.reading() as connection:
            row = connection.execute(query).first()
            cleared_by = () if row is None else _cleared_by(connection, row.dag_id, row.run_id)
        if row is None:
            raise TaskInstanceRefusedError(
                f"task instance {known} does not exist, or was retried or cleared since; "
                "only a running task may ask"
            )
        return Origin(
            ti_id=str(known),
            dag_id=row.dag_id,
            run_id=row.run_id,
            task_id=row.task_id,
            map_index=row.map_index,
            try_number=row.try_number,
            run_type=row.run_type,
            state=row.state or "none",
            triggering_user=row.triggering_user_name or None,
            owners=tuple(owner for part in (row.owners or "").split(",") if (owner := part.strip())),
            cleared_by=cleared_by,
        )

    def _is(self, ti_id: UUID) -> ColumnElement[bool]:
        if self._dialect == "postgresql":
            return column("id", Uuid, _selectable=_TI) == ti_id
        # SQLite keeps text: with dashes since Airflow 3.1, without them in newer ones.
        return _TI.c.id.in_([str(ti_id), ti_id.hex])


def _cleared_by(connection: Connection, dag_id: str, run_id: str) -> tuple[str, ...]:
    """Return who cleared tasks of this run, each once, sorted; in doubt they did."""
    since = select(_RUN.c.run_after).where(_RUN.c.dag_id == dag_id, _RUN.c.run_id == run_id).scalar_subquery()
    query = select(_LOG.c.owner, _LOG.c.run_id, _LOG.c.extra).where(
        _LOG.c.dag_id.in_((dag_id, _MANY_DAGS)),
        _LOG.c.event.in_(CLEARS),
        or_(_LOG.c.run_id == run_id, _LOG.c.dttm >= since),
    )
    rows = connection.execute(query)
    return tuple(sorted({row.owner for row in rows if row.owner and _concerns(row, dag_id, run_id)}))


def _concerns(row: Any, dag_id: str, run_id: str) -> bool:
    """Return whether what somebody cleared, by the body of their call, can have been of this run."""
    told = _object_in(row.extra)
    if told.get("dry_run") is True:
        return False
    if row.run_id == run_id:
        return True
    if row.run_id is not None:
        return bool(told.get("include_past") or told.get("include_future"))
    named = list(_runs_named(told))
    # Without names it was by dates or partitions: this run may have been among them.
    return not named or any(run == run_id and dag in (None, dag_id) for dag, run in named)


def _runs_named(told: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    listed = told.get("dag_runs")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict):
            yield each.get("dag_id"), each.get("dag_run_id")


def _object_in(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text or "")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
