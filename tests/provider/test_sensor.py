"""The sensor waits for what somebody else has asked, and fails on any no."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from uuid import uuid4

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

from airflow_approvals.client.api import RequestPage
from airflow_approvals.core.model import Action, ApprovalRequest, Evidence, State
from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.operators.names import REQUEST_ID_KEY
from airflow_approvals.operators.waiting import find_own_redeemed
from airflow_approvals.sensors.approval import ApprovalSensor
from airflow_approvals.service import Opening
from tests.provider.runs import Runs, approve, deny
from tests.provider.site import Site
from tests.store.samples import SLOT, a_request

pytestmark = pytest.mark.airflow

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "poke_interval": 0.2},
    "reschedule": {"mode": "reschedule", "poke_interval": 0.2},
    "deferrable": {"deferrable": True, "poke_interval": 0.2},
}


def open_by_api(site: Site) -> ApprovalRequest:
    opening = Opening(action=Action(kind="grant", destination="role://reader"), evidence=Evidence())
    with site.person("engineer") as engineer:
        request, created = engineer.open_request(opening, idempotency_key=str(uuid4()))
    assert created
    return request


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_a_request_opened_through_the_api_is_waited_for(runs: Runs, mode: dict[str, Any]) -> None:
    request = open_by_api(runs.site)
    with DAG("sensed") as dag:
        ApprovalSensor(task_id="wait", request_id=request.id, **mode)
    later = threading.Timer(2.0, approve, (runs.site, request))
    later.start()
    run = runs.test(dag)
    later.join()
    assert run.states == {"wait": "success"}
    assert run.xcom("wait") == request.id


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_a_no_fails_the_sensor(runs: Runs, mode: dict[str, Any]) -> None:
    request = open_by_api(runs.site)
    with DAG("sensed_no") as dag:
        ApprovalSensor(task_id="wait", request_id=request.id, retries=3, **mode)
    later = threading.Timer(1.0, deny, (runs.site, request))
    later.start()
    run = runs.test(dag)
    later.join()
    assert run.states == {"wait": "failed"}


def test_the_task_of_another_dag_is_waited_for_even_before_it_asks(runs: Runs) -> None:
    with DAG("asks") as asking:
        ApprovalGateOperator(task_id="gate", kind="grant", destination="role://reader")
    first = runs.test(asking)
    with DAG("waits_for_other") as dag:
        ApprovalSensor(
            task_id="wait",
            external_dag_id="asks",
            external_task_id="gate",
            external_run_id=first.run_id,
            deferrable=True,
        )
    run = runs.test(dag)
    assert run.states == {"wait": "success"}
    assert run.xcom("wait") == first.xcom("gate")


def test_a_sensor_that_waits_too_long_fails(runs: Runs) -> None:
    with DAG("sensed_too_long") as dag:
        ApprovalSensor(
            task_id="wait",
            external_dag_id="nobody",
            external_task_id="asks",
            external_run_id="ever",
            mode="poke",
            poke_interval=0.2,
            timeout=1,
        )
    began = time.monotonic()
    assert runs.test(dag).states == {"wait": "failed"}
    assert time.monotonic() - began < 60


def test_a_request_that_does_not_exist_fails_the_sensor(runs: Runs) -> None:
    with DAG("sensed_nothing") as dag:
        ApprovalSensor(task_id="wait", request_id=str(uuid4()), mode="poke", poke_interval=0.2)
    assert runs.test(dag).states == {"wait": "failed"}


WRONG: dict[str, dict[str, Any]] = {
    "nothing": {},
    "both": {"request_id": "x", "external_dag_id": "a", "external_task_id": "b", "external_run_id": "c"},
    "half a task": {"external_dag_id": "a", "external_task_id": "b"},
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_what_to_wait_for_is_named_in_one_way(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either request_id"):
        ApprovalSensor(task_id="wait", **arguments)


def test_a_pending_request_is_left_as_it_is_by_the_sensor(runs: Runs, tmp_path: Path) -> None:
    request = open_by_api(runs.site)
    with DAG("sensed_idle") as dag:
        ApprovalSensor(task_id="wait", request_id=request.id, mode="poke", poke_interval=0.2, timeout=1)
    assert runs.test(dag).states == {"wait": "failed"}
    with runs.site.person("admin") as admin:
        assert admin.get_request(request.id).request.state is State.PENDING


# --- which request it is, where a task has many ----------------------------------------------------------


class Listed:
    """Requests of tasks, newest first, and of them those that are asked for, as the service lists them."""

    def __init__(self, requests: list[ApprovalRequest]) -> None:
        self.requests = requests
        self.client = self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get_request(self, request_id: str) -> ApprovalRequest:
        return next(request for request in self.requests if request.id == request_id)

    def list_requests(self, *, limit: int, status: Sequence[State] = (), **wanted: Any) -> RequestPage:
        found = [
            request
            for request in self.requests
            if (not status or request.state in status)
            and all(value is None or getattr(request.origin, name) == value for name, value in wanted.items())
        ]
        return RequestPage(requests=tuple(found[:limit]), total=len(found))


class Instance:
    """The task instance, as far as the sensor speaks to it."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def sensor_of(listed: Listed, monkeypatch: pytest.MonkeyPatch, *, map_index: int = -1) -> ApprovalSensor:
    monkeypatch.setattr(ApprovalSensor, "_hook", lambda *_: listed)
    return ApprovalSensor(
        task_id="wait",
        external_dag_id=SLOT.dag_id,
        external_task_id=SLOT.task_id,
        external_run_id=SLOT.run_id,
        external_map_index=map_index,
    )


def test_the_request_of_any_index_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [a_request(replace(SLOT, map_index=index), state=State.APPROVED) for index in range(1100)]
    instance: Any = Instance()
    sensor = sensor_of(Listed(asked), monkeypatch, map_index=1050)
    assert sensor.poke({"ti": instance}).xcom_value == asked[1050].id
    assert sensor_of(Listed(asked), monkeypatch, map_index=1100).poke({"ti": instance}) is False


@pytest.mark.parametrize("index", [-1, 0, 1, None])
def test_a_later_try_finds_what_its_own_index_has_redeemed_and_no_gate(index: int | None) -> None:
    mapped = [replace(SLOT, map_index=each) for each in (-1, 0, 1)]
    gates = [a_request(replace(slot, gate="gate"), state=State.REDEEMED) for slot in mapped]
    asked = [a_request(slot, state=state) for state in (State.FAILED, State.REDEEMED) for slot in mapped]
    ti = SimpleNamespace(dag_id=SLOT.dag_id, run_id=SLOT.run_id, task_id=SLOT.task_id, map_index=index)
    listed: Any = Listed([*gates, *asked])
    context: Any = {"ti": ti}
    found = find_own_redeemed(listed, context)
    assert found is asked[3 + mapped.index(replace(SLOT, map_index=-1 if index is None else index))]
    ti.map_index = 2
    assert find_own_redeemed(listed, context) is None


@pytest.mark.parametrize("index", [None, "3"])
def test_an_index_is_a_number_or_any_would_do(index: Any) -> None:
    with pytest.raises(TypeError, match="external_map_index: expected a whole number"):
        ApprovalSensor(
            task_id="wait",
            external_dag_id="asks",
            external_task_id="gate",
            external_run_id="manual__1",
            external_map_index=index,
        )


def test_after_its_wait_too_the_newest_request_of_the_other_task_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = a_request(SLOT, state=State.SUPERSEDED)
    newest = a_request(SLOT, state=State.APPROVED)
    sensor = sensor_of(Listed([newest, first]), monkeypatch)
    instance: Any = Instance()
    assert sensor.approvals_resume({"ti": instance}, {"request_id": first.id}) == newest.id
    assert instance.pushed == {REQUEST_ID_KEY: newest.id}


@pytest.mark.parametrize("name", ["request_id", "external_run_id"])
def test_without_a_name_no_request_will_do(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    listed = Listed([a_request(SLOT, state=State.APPROVED)])
    sensor = sensor_of(listed, monkeypatch)
    if name == "request_id":
        sensor = ApprovalSensor(task_id="wait", request_id="{{ ti.xcom_pull('gate') }}")
    instance: Any = Instance()
    setattr(sensor, name, None)
    with pytest.raises(AirflowFailException, match=f"{name} was given, but is empty now"):
        sensor.poke({"ti": instance})
