"""A real Airflow, a whole DAG, and Marquez: the graph shows the data, and the approval that let it move.

With `APPROVALS_TEST_MARQUEZ` (see `tools/with-marquez`) it is a real Marquez; without one, a stand-in that
does what was read in its sources, and the test says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

import httpx
import pytest

from airflow_approvals.cli.exits import Exit
from airflow_approvals.core.model import Evidence, State
from airflow_approvals.lineage.approval import Site as LineageSite
from airflow_approvals.lineage.events import event_of
from airflow_approvals.lineage.names import column_name, dataset_of
from airflow_approvals.lineage.remembered import remember
from airflow_approvals.lineage.transport import fitting
from airflow_approvals.operators.export import ApprovedExportOperator
from demo.calls import Stage
from demo.embedded import EmbeddedAirflow
from demo.places import CHECKOUT
from tests.lineage.samples import a_snapshot, answered
from tests.lineage.spec import Spec
from tests.lineage.test_facets import NOON, ODD, through_airflow
from tests.lineage.world import ROLES, Marquez, World, lay_out, openlineage_env, run_all, wait_for_quiet
from tests.marquez.relay import Relay
from tests.marquez.server import StandIn

pytestmark = pytest.mark.services

WIDE = {"2,000 columns": tuple(f"column_{number:04}" for number in range(2_000))}
APPROVAL = "airflowApprovals_approval"
RELEASE = "airflowApprovals_release"


@pytest.fixture(scope="module")
def marquez() -> Iterator[Marquez]:
    url = os.environ.get("APPROVALS_TEST_MARQUEZ")
    if url:
        yield Marquez(url=url, stand_in=None)
        return
    with StandIn() as stand_in:
        yield Marquez(url=stand_in.url, stand_in=stand_in)


@pytest.fixture(scope="module")
def world(marquez: Marquez, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Every run that the tests look at, made at once while Marquez is away; it comes back at the end."""
    places = lay_out(tmp_path_factory.mktemp("world"))
    folders = {"dags": CHECKOUT / "dags", "tests": places.root / "dags"}
    with Relay(marquez.url) as relay:
        env = openlineage_env(relay.url)
        with EmbeddedAirflow(places, roles=ROLES, dag_folders=folders, env=env) as airflow:
            world = World(stage=Stage(airflow), marquez=marquez)
            before = len(marquez.events())
            run_all(world.stage)
            assert relay.refused, "nobody has tried to tell anything"
            assert len(marquez.events()) == before, "Marquez was away"
            relay.is_open = True
            world.stage.wait_for(lambda: len(marquez.events()) > before, "the first event")
            wait_for_quiet(marquez)
            yield world


# --- what is seen ----------------------------------------------------------------------------------------


def test_the_graph_leads_from_the_raw_data_over_the_approval_to_what_was_exported(world: World) -> None:
    request = world.request("whole")
    staged, masked = (world.data / name / "customers.parquet" for name in ("staged", "masked"))
    exported = world.data / "outbox" / "customers" / "customers.parquet"
    receipt = f"dataset:approvals://default:receipt/{request.id}"
    path = [
        f"dataset:file:{staged}",
        "job:default:customer_export.mask",
        f"dataset:file:{masked}",
        "job:default:approval.customer_export.export",
        receipt,
        "job:default:customer_export.export",
        f"dataset:file:{exported}",
    ]
    edges = world.marquez.edges("job:default:customer_export.export")
    for edge in [*pairwise(path), (path[2], path[5])]:
        assert edge in edges, f"{edge} is not in the graph: {sorted(edges)}"


def test_upstream_of_the_export_is_the_run_that_approved_it(world: World) -> None:
    upstream = world.marquez.upstream(world.task_run("customer_export.export", "whole"))
    assert world.request("whole").id in upstream
    assert world.task_run("customer_export.mask", "whole") in upstream


def test_the_facets_of_the_export_hold_the_approval(world: World) -> None:
    request = world.request("whole")
    for run_id in (request.id, world.task_run("customer_export.export", "whole")):
        facet = world.marquez.run_facets(run_id)[APPROVAL]
        assert facet["requestId"] == request.id
        assert [vote["voter"] for vote in facet["votes"]] == ["alice"]
        assert facet["policy"] == {"name": request.policy, "digest": request.policy_digest}
        assert facet["ledgerIndex"] == request.decision_index
        assert len(facet["receiptDigest"]) == 64
        assert facet["approvalRun"]["runId"] == request.id
        assert "so it shall be" not in json.dumps(facet)
    exported = world.data / "outbox" / "customers" / "customers.parquet"
    release = world.marquez.dataset("file", str(exported))["facets"][RELEASE]
    assert release["sha256"] == request.evidence.datasets[0].sha256
    assert release["approvers"] == ["alice"]


def test_column_lineage_shows_which_columns_were_masked(world: World) -> None:
    masked = world.data / "masked" / "customers.parquet"
    graph = world.marquez.get("/column-lineage", nodeId=f"dataset:file:{masked}", depth=1)["graph"]
    kinds = {
        each["data"]["field"]: {found["transformationType"] for found in each["data"]["inputFields"]}
        for each in graph
        if each["type"] == "DATASET_FIELD" and each["data"] and each["data"].get("inputFields")
    }
    assert kinds["email"] == {"MASKED"}
    assert kinds["customer_id"] == {"IDENTITY"}


def test_personal_data_is_tagged_in_marquez(world: World) -> None:
    staged = world.data / "staged" / "customers.parquet"
    fields = world.marquez.dataset("file", str(staged))["fields"]
    tags = {field["name"]: field.get("tags", []) for field in fields}
    assert "EMAIL_ADDRESS" in tags["email"]
    assert tags["customer_id"] == []


def test_the_verification_is_told_as_assertions(world: World) -> None:
    masked = world.data / "masked" / "customers.parquet"
    facets = world.marquez.dataset("file", str(masked))["facets"]
    assert [each["success"] for each in facets["dataQualityAssertions"]["assertions"]] == [True]


def test_a_denied_run_looks_denied(world: World) -> None:
    request, run = world.request("denied"), world.task_run("lists.export", "denied")
    assert world.marquez.state(request.id) == "FAILED"
    assert world.marquez.state(run) == "FAILED"
    for each in (request.id, run):
        assert world.marquez.run_facets(each)[APPROVAL]["state"] == "denied"
    assert request.id not in world.marquez.upstream(run)


def test_an_expired_run_looks_expired(world: World) -> None:
    request, run = world.request("expired"), world.task_run("lists.export", "expired")
    assert world.marquez.state(request.id) == "ABORTED"
    assert world.marquez.state(run) == "FAILED"
    assert world.marquez.run_facets(run)[APPROVAL]["state"] == "expired"


def test_a_bypassed_run_is_complete_without_an_approval(world: World) -> None:
    request, run = world.request("bypassed"), world.task_run("lists.export", "bypassed")
    assert world.marquez.state(run) == "COMPLETED"
    assert APPROVAL not in world.marquez.run_facets(run)
    assert world.marquez.state(request.id) in ("RUNNING", "ABORTED"), "nobody has approved it"
    assert not (world.data / "outbox" / "bypassed.csv").exists()


def test_two_overlapping_approvals_of_one_gate_resolve_to_the_right_one(world: World) -> None:
    for run_id, other in (("first", "second"), ("second", "first")):
        run = world.task_run("lists.export", run_id)
        upstream = world.marquez.upstream(run)
        assert world.request(run_id).id in upstream
        assert world.request(other).id not in upstream
        assert world.marquez.run_facets(run)[APPROVAL]["requestId"] == world.request(run_id).id


def test_a_gated_foreign_operator_carries_its_approval(world: World) -> None:
    request, run = world.request("foreign", "copy"), world.task_run("foreign.copy", "foreign")
    assert world.marquez.run_facets(run)[APPROVAL]["requestId"] == request.id


def test_every_event_is_valid_and_told_once(world: World, spec: Spec) -> None:
    events = world.marquez.events()
    spec.check(events)
    keys = [(each["run"]["runId"], each["eventType"]) for each in events if each["eventType"] != "RUNNING"]
    assert len(keys) == len(set(keys))
    assert world.types(world.request("whole").id) == ["COMPLETE", "START"]
    text = json.dumps(events)
    assert "so it shall be" not in text
    source = (world.data / "source" / "customers.csv").read_text().splitlines()[1]
    name, email = _cells(source)
    assert name not in text
    assert email not in text


def test_reconcile_covers_what_was_approved_and_names_what_another_tool_moved(world: World) -> None:
    def reconciled() -> tuple[int, dict[str, Any]]:
        done = world.stage.command(
            *("reconcile", "--marquez", world.marquez.url, "--policy", str(world.stage.places.policy)),
            *("--output", "json"),
            user="alice",
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    status, found = reconciled()
    assert status == Exit.OK, found
    assert found["covered"] == found["gated"] == 3  # a BashOperator tells of no outputs
    rogue = {
        "eventType": "COMPLETE",
        "eventTime": datetime.now(UTC).isoformat(),
        "producer": "https://example.com/another-tool",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": str(uuid4())},
        "job": {"namespace": "elsewhere", "name": "copy"},
        "outputs": [{"namespace": "file", "name": str(world.data / "outbox" / "rogue.csv")}],
    }
    httpx.post(f"{world.marquez.url}/api/v1/lineage", json=rogue, timeout=120).raise_for_status()
    found = world.stage.wait_for(lambda: _if_broken(*reconciled()), "Marquez to tell of it")
    named = [(each["fault"], each["job"]) for each in found["findings"]]
    assert [each for each in named if each[1]] == [
        ("no approval", "elsewhere/copy"),
        ("ended without", "default/lists.export"),  # the bypassed run
    ]
    assert found["covered"] == 3


def _if_broken(status: int, found: dict[str, Any]) -> dict[str, Any] | None:
    return found if status == Exit.NOT_VERIFIED else None


def _cells(line: str) -> tuple[str, str]:
    cells = line.split(",")
    return next(cell for cell in cells if " " in cell), next(cell for cell in cells if "@" in cell)


@pytest.mark.parametrize("odd", [*ODD.values(), *WIDE.values()], ids=[*ODD, *WIDE])
def test_marquez_takes_odd_names_and_many_columns(odd: str | tuple[str, ...], marquez: Marquez) -> None:
    columns = odd if isinstance(odd, tuple) else ("id", odd)
    name = odd if isinstance(odd, str) else "wide"
    source = a_snapshot(f"file:///odd/{name}.parquet", columns=columns)
    request = replace(answered(State.APPROVED), id=str(uuid4()), evidence=Evidence(datasets=(source,)))
    operator = ApprovedExportOperator(task_id="export", source=source.uri, destination=f"/out/{name}.parquet")
    remember(operator, request)
    asked = event_of("request.approved", NOON, request, LineageSite(namespace="odd", base_url="http://a"))
    written = through_airflow(operator.lineage(succeeded=True))
    written |= {"eventType": "COMPLETE", "run": {**written["run"], "runId": str(uuid4())}}
    for event in (asked, written):
        answer = httpx.post(
            f"{marquez.url}/api/v1/lineage",
            content=fitting(event),
            headers={"Content-Type": "application/json"},
            timeout=120,
        )
        assert answer.status_code == 201, answer.text[:500]
    place = dataset_of(f"/out/{name}.parquet")
    fields = {each["name"] for each in marquez.dataset(place.namespace, place.name)["fields"]}
    assert fields == {column_name(each) for each in columns}
