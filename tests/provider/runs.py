"""Running DAGs as `dag.test()` does, a step at a time, while people answer through the API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Self

from airflow.sdk import DAG

from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.core.errors import ServiceUnavailableError
from airflow_approvals.core.model import ApprovalRequest, State, Verdict
from tests.provider.site import LOADED, Site

Answer = Callable[[Site, ApprovalRequest], None]


def approve(site: Site, request: ApprovalRequest, *, who: str = "alice") -> None:
    _vote(site, request, who, Verdict.APPROVE)


def deny(site: Site, request: ApprovalRequest) -> None:
    _vote(site, request, "bob", Verdict.DENY, reason="not this month")


def _vote(site: Site, request: ApprovalRequest, who: str, verdict: Verdict, *, reason: str = "") -> None:
    """Vote, and again if the server was too busy to count it, as a person does."""
    deadline = time.monotonic() + LOADED
    with site.person(who) as person:
        while True:
            try:
                person.vote(request.id, verdict, revision=request.revision, reason=reason)
            except ServiceUnavailableError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(0.5)
            if person.get_request(request.id).request.state is not State.PENDING:
                return


class Runs:
    """Answers whatever is asked while DAGs run, and keeps what was asked."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.answer: Answer | None = approve
        self.asked: list[ApprovalRequest] = []
        self.faults: list[BaseException] = []
        self.dag_id = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._answer_all, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=LOADED)
        assert not self.faults, self.faults

    def test(self, dag: DAG, answer: Answer | None = approve, **kwargs: Any) -> Run:
        """Run the whole DAG once by `dag.test()`."""
        self.answer, self.dag_id = answer, dag.dag_id
        self.asked.clear()
        _sync(dag)
        return Run(dag, dag.test(logical_date=datetime.now(UTC), **kwargs))

    def again(self, run: Run, *task_ids: str, answer: Answer | None = approve) -> Run:
        """Clear these tasks of the run, and run it to its end again."""
        self.answer = answer
        run.clear(*task_ids)
        return run.go_on()

    def _answer_all(self) -> None:
        seen: set[str] = set()
        with self.site.person("admin") as admin:
            while not self._ended.wait(0.1):
                if not self.dag_id:
                    continue
                try:
                    page = admin.list_requests(status=[State.PENDING], dag_id=self.dag_id)
                    for request in page.requests:
                        if request.id not in seen:
                            seen.add(request.id)
                            self.asked.append(request)
                            self._answer(admin, request)
                except ServiceUnavailableError:
                    continue  # busy: looked at again in the next round
                except Exception as fault:  # noqa: BLE001  # told to the test that runs
                    self.faults.append(fault)

    def _answer(self, admin: ApprovalsClient, request: ApprovalRequest) -> None:
        if self.answer is None:
            return
        try:
            self.answer(self.site, request)
        except Exception as fault:  # noqa: BLE001  # told to the test that runs
            self.faults.append(fault)
            # Nobody else will answer, and the run would wait for ever.
            admin.cancel(request.id, reason="its answer failed")


class Run:
    """One DAG run in the metadata database."""

    def __init__(self, dag: DAG, dag_run: Any) -> None:
        self.dag = dag
        self.run_id: str = dag_run.run_id

    @property
    def states(self) -> dict[str, str | None]:
        """Return the state of every task, mapped ones as `task[index]`."""
        return {_name(ti): ti.state and str(ti.state) for ti in self._task_instances()}

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        query = select(XComModel).where(
            XComModel.run_id == self.run_id,
            XComModel.dag_id == self.dag.dag_id,
            XComModel.task_id == task_id,
            XComModel.key == key,
            XComModel.map_index == map_index,
        )
        with create_session() as session:
            found = session.scalar(query)
            return None if found is None else XComModel.deserialize_value(found)

    def set_state(self, task_id: str, state: str) -> None:
        """Mark the task by hand, as the UI does."""
        from airflow.utils.session import create_session

        with create_session() as session:
            for ti in self._task_instances():
                if ti.task_id == task_id:
                    merged = session.merge(ti)
                    merged.state = state

    def clear(self, *task_ids: str) -> None:
        from airflow.models.taskinstance import clear_task_instances
        from airflow.utils.session import create_session

        with create_session() as session:
            tis = [session.merge(ti) for ti in self._task_instances() if ti.task_id in task_ids]
            clear_task_instances(tis, session)

    def go_on(self) -> Run:
        """Run what is to be run until the run is over: the loop of `dag.test()`."""
        from airflow.sdk.definitions.dag import _run_task
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState, TaskInstanceState

        while True:
            with create_session() as session:
                dag_run = self._dag_run(session)
                dag_run.state = DagRunState.RUNNING if dag_run.state == DagRunState.QUEUED else dag_run.state
                dag_run.dag = self._scheduler_dag()
                schedulable, _ = dag_run.update_state(session=session)
                for ti in schedulable:
                    ti.try_number += ti.state != TaskInstanceState.UP_FOR_RESCHEDULE
                    ti.state = TaskInstanceState.SCHEDULED
                    ti.scheduled_dttm = datetime.now(UTC)
                session.commit()
                ready = [ti for ti in dag_run.get_task_instances(session=session) if ti.state == "scheduled"]
                if dag_run.state != DagRunState.RUNNING:
                    return self
                for ti in ready:
                    with suppress(Exception):
                        _run_task(ti=ti, task=self.dag.task_dict[ti.task_id], run_triggerer=True)

    def _scheduler_dag(self) -> Any:
        from airflow.serialization import serialized_objects

        # Airflow 3.1 has one class for both.
        names = vars(serialized_objects)
        ways: Any = names.get("DagSerialization") or names["SerializedDAG"]
        return ways.deserialize_dag(ways.serialize_dag(self.dag))

    def _dag_run(self, session: Any) -> Any:
        from airflow.models.dagrun import DagRun
        from sqlalchemy import select

        return session.scalar(
            select(DagRun).where(DagRun.dag_id == self.dag.dag_id, DagRun.run_id == self.run_id)
        )

    def _task_instances(self) -> list[Any]:
        from airflow.utils.session import create_session

        with create_session() as session:
            return list(self._dag_run(session).get_task_instances(session=session))


def _sync(dag: DAG) -> None:
    """Put the DAG into the metadata database, as parsing its file would."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    try:
        where: Any = import_module("airflow.dag_processing.dagbag")
    except ImportError:  # Airflow 3.1
        where = import_module("airflow.models.dagbag")
    manager: Any = DagBundlesManager
    manager().sync_bundles_to_db()
    bag = SimpleNamespace(
        dags={dag.dag_id: dag}, import_errors={}, dag_warnings=set(), bundle_path=None, file_last_changed={}
    )
    where.sync_bag_to_db(bag, "dags-folder", None)


def _name(ti: Any) -> str:
    return str(ti.task_id) if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
