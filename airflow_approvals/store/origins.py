"""The facts about a task instance, from Airflow's own tables: a worker's word is not taken for them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, Engine, Uuid, column, select, table

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
    "dag_run", column("dag_id"), column("run_id"), column("run_type"), column("triggering_user_name")
)
_DAG = table("dag", column("dag_id"), column("owners"))


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
        )

    def _is(self, ti_id: UUID) -> ColumnElement[bool]:
        if self._dialect == "postgresql":
            return column("id", Uuid, _selectable=_TI) == ti_id
        # SQLite keeps text: with dashes since Airflow 3.1, without them in newer ones.
        return _TI.c.id.in_([str(ti_id), ti_id.hex])
