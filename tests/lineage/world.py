"""What the tests of lineage look at: a whole Airflow whose runs are told to a Marquez, and that Marquez."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from airflow_approvals.core.errors import ServiceUnavailableError
from airflow_approvals.core.model import ApprovalRequest, State, Verdict
from demo.calls import Stage
from demo.customers import write_customers
from demo.embedded import DemoError
from demo.places import Places
from demo.promises.following import OVER, settled
from tests.marquez.server import StandIn

ROLES = {"engineer": "user", "alice": "viewer", "bob": "viewer"}

POLICY = """
version: 1
groups:
  data-stewards: {{users: [alice, bob]}}
  auditors: {{users: [alice]}}
policies:
  - name: soon-over
    match: {{action: [export], destination: ["{folder}/outbox/expiring/**"]}}
    require: [{{group: data-stewards}}]
    expires_after: 20s
  - name: customer-export
    match: {{action: [export], destination: ["{folder}/outbox/customers/**"]}}
    deny_if: ["pii.verified == false"]
    require: [{{group: data-stewards}}]
  - name: any-export
    match: {{action: ["*"], destination: ["{folder}/outbox/**"]}}
    require: [{{group: data-stewards}}]
"""

DAGS = """
from airflow.sdk import DAG, Asset, Param
from airflow.providers.standard.operators.bash import BashOperator
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.gated import gated

FOLDER = "{{ var.value.customer_folder }}"

with DAG("lists", schedule=None, params={"into": Param("", type="string")}):
    # Marquez 0.51.1 cannot tell what is upstream of data that no run wrote.
    stage = BashOperator(task_id="stage", bash_command="true", outlets=[Asset("file://%(folder)s/staged/list.csv")])
    stage >> ApprovedExportOperator(
        task_id="export",
        source=FOLDER + "/staged/list.csv",
        destination=FOLDER + "/outbox/{{ params.into }}{{ run_id }}.csv",
    )
with DAG("foreign", schedule=None):
    gated(
        BashOperator(task_id="copy", bash_command="true"),
        source=FOLDER + "/staged/list.csv",
        destination=FOLDER + "/outbox/foreign.csv",
    )
"""


@dataclass(frozen=True, kw_only=True)
class Marquez:
    """Either of the two, asked over HTTP."""

    url: str
    stand_in: StandIn | None

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of an answer; None for not found."""
        answer = httpx.get(f"{self.url}/api/v1{path}", params=query, timeout=120)
        if answer.status_code == 404:
            return None
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    def events(self) -> list[dict[str, Any]]:
        """Return every event that was taken."""
        if self.stand_in is not None:
            return list(self.stand_in.events)
        found = self.get("/events/lineage", limit=1000, after="2000-01-01T00:00:00Z")
        return [_without_nulls(event) for event in found["events"]]

    def run_facets(self, run_id: str) -> dict[str, Any]:
        facets: dict[str, Any] = self.get(f"/jobs/runs/{run_id}/facets", type="run")["facets"]
        return facets

    def state(self, run_id: str) -> str:
        return str(self.get(f"/jobs/runs/{run_id}")["state"])

    def dataset(self, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/namespaces/{_quoted(namespace)}/datasets/{_quoted(name)}")
        assert found is not None, f"Marquez does not know the dataset {namespace} {name}"
        return found

    def edges(self, node: str) -> set[tuple[str, str]]:
        """Return the edges of everything that hangs together with a node."""
        graph = self.get("/lineage", nodeId=node, depth=20)["graph"]
        return {(edge["origin"], edge["destination"]) for each in graph for edge in each["outEdges"]}

    def upstream(self, run_id: str) -> set[str]:
        """Return the runs whose outputs a run has read, and so on."""
        found = self.get("/runlineage/upstream", runId=run_id, depth=20)
        return {each["run"]["id"] for each in found["runs"]}


@dataclass(frozen=True, kw_only=True)
class World:
    """Airflow, Marquez, and the runs that were made in them."""

    stage: Stage
    marquez: Marquez

    @property
    def data(self) -> Path:
        return self.stage.places.data

    def request(self, run_id: str, task_id: str = "export") -> ApprovalRequest:
        found = self.stage.request_of(run_id, task_id)
        assert found is not None, f"{run_id} has not asked"
        return found

    def task_run(self, job: str, run_id: str) -> str:
        """Return the OpenLineage run of a task in a DAG run."""
        for event in self.marquez.events():
            airflow = event["run"].get("facets", {}).get("airflow", {})
            if event["job"]["name"] == job and airflow.get("dagRun", {}).get("run_id") == run_id:
                return str(event["run"]["runId"])
        raise AssertionError(f"no event of {job} in {run_id}")

    def types(self, run_id: str) -> list[str]:
        """Return the types of a run's events, sorted."""
        return sorted(each["eventType"] for each in self.marquez.events() if each["run"]["runId"] == run_id)


def openlineage_env(url: str) -> dict[str, str]:
    """Return the environment of an Airflow whose lineage goes through the spool to `url`."""
    host, _, port = url.removeprefix("http://").partition(":")
    return {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {
                "type": "airflow_approvals.lineage.transport.SpoolTransport",
                "backend": {"type": "http", "url": url},
            }
        ),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "default",
        "AIRFLOW__OPENLINEAGE__CUSTOM_RUN_FACETS": "airflow_approvals.lineage.tasks.approval_run_facet",
        "AIRFLOW_CONN_MARQUEZ_DEFAULT": json.dumps({"conn_type": "http", "host": host, "port": int(port)}),
    }


def lay_out(root: Path) -> Places:
    """Make the folders, the data, the policy, the passwords and the DAGs of these runs."""
    places = Places(root=root)
    for folder in (places.airflow, places.logs, places.outbox / "customers", places.outbox / "expiring"):
        folder.mkdir(parents=True)
    write_customers(places.data / "source" / "customers.csv", 200)
    (places.data / "staged").mkdir()
    (places.data / "staged" / "list.csv").write_text("id,city\n1,Graz\n2,Linz\n")
    places.policy.write_text(POLICY.format(folder=places.data.as_uri()))
    places.passwords.write_text(json.dumps({name: name * 3 for name in ROLES}))
    (root / "dags").mkdir()
    (root / "dags" / "lists.py").write_text(DAGS % {"folder": places.data})
    return places


def run_all(stage: Stage) -> None:
    """Make every run, answer what asks, and return when all of them are over."""
    whole, foreign = Run(stage, "customer_export", "whole"), Run(stage, "foreign", "foreign", task_id="copy")
    names = ("denied", "expired", "bypassed", "first", "second")
    denied, expired, bypassed, first, second = lists = [Run(stage, "lists", name) for name in names]
    for run in (whole, *lists, foreign):
        run.trigger({"into": "expiring/"} if run is expired else {})
    for run in (denied, bypassed, first, second):
        run.wait_until_settled()
    stage.mark_success("lists", "bypassed", "export")
    denied.answer(Verdict.DENY)
    first.answer(Verdict.APPROVE)
    second.answer(Verdict.APPROVE)
    for run in (foreign, whole):
        run.wait_until_settled()
        run.answer(Verdict.APPROVE)
    for run in (*lists, foreign, whole):
        run.wait_until_over()
    ends = [(denied, State.DENIED), (expired, State.EXPIRED)]
    for run, state in [*ends, *((each, State.COMPLETED) for each in (first, second, whole))]:
        found = stage.request_of(run.run_id)
        assert found is not None, run.so_far()
        assert found.state is state, run.so_far()


@dataclass(frozen=True)
class Run:
    """One run of a DAG, and the task in it that asks; what goes wrong says what was logged of it."""

    stage: Stage
    dag_id: str
    run_id: str
    task_id: str = "export"

    def trigger(self, conf: dict[str, str]) -> None:
        self.stage.trigger(self.dag_id, self.run_id, conf)

    def wait_until_settled(self) -> None:
        """Return when the task waits, and the scheduler must have noticed."""
        self._wait(self._waits, "to wait")
        settled(self.stage, self._request())

    def answer(self, verdict: Verdict) -> None:
        request = self._request()
        with self.stage.client("alice") as alice:
            alice.vote(request.id, verdict, revision=request.revision, reason="so it shall be")

    def wait_until_over(self) -> None:
        self._wait(self._is_over, "to end")

    def so_far(self) -> str:
        """Return the states of the run's tasks, and the end of what they and Airflow's processes said."""
        told = [f"{self.dag_id} {self.run_id}"]
        with suppress(ServiceUnavailableError, DemoError):
            path = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances"
            found = self.stage.call("engineer", "GET", path)["task_instances"]
            told += [f"{each['task_id']} is {each['state']}" for each in found]
        logs = self.stage.places.logs
        told += _tails((logs / "tasks" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}").rglob("*.log"))
        told += _tails(logs.glob("*.log"), about=(self.run_id, "error", "warning", "Error"))
        return "\n".join(told)

    def _wait(self, look: Callable[[], bool], what: str) -> None:
        try:
            self.stage.wait_for(look, f"{self.run_id} {what}")
        except DemoError as error:
            raise AssertionError(f"{error}; {self.so_far()}") from error

    def _waits(self) -> bool:
        state = self.stage.task_state(self.dag_id, self.run_id, self.task_id)
        assert state not in (*OVER, "up_for_retry"), f"it is {state} and should wait; {self.so_far()}"
        return state == "deferred"

    def _is_over(self) -> bool:
        found = self.stage.call("engineer", "GET", f"/dags/{self.dag_id}/dagRuns/{self.run_id}")
        return found["state"] in ("success", "failed")

    def _request(self) -> ApprovalRequest:
        found = self.stage.request_of(self.run_id, self.task_id)
        assert found is not None, f"it has not asked; {self.so_far()}"
        return found


def _tails(logs: Iterable[Path], *, about: tuple[str, ...] = ("",), lines: int = 25) -> Iterator[str]:
    """Yield the last lines of each file that have one of these words in them."""
    for log in sorted(logs):
        yield f"--- {log}"
        told = log.read_text(errors="replace").splitlines()
        yield from [line for line in told if any(word in line for word in about)][-lines:]


def wait_for_quiet(marquez: Marquez) -> None:
    """Return when no event has come for ten seconds."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 10:
        count = len(marquez.events())
        if count != seen:
            seen, since = count, time.monotonic()
        time.sleep(0.5)


def _without_nulls(value: Any) -> Any:
    """Return an event as it was sent: Marquez fills fields that it knows with null."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _quoted(name: str) -> str:
    return quote(name, safe="")
