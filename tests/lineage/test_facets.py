"""What facets say, what they never say, and that names fit whatever they are made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter
from openlineage.client.serde import Serde

from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import Grant, GrantKind, State
from airflow_approvals.lineage import facets, masking
from airflow_approvals.lineage.approval import Site, input_of, release_facet, run_facet
from airflow_approvals.lineage.backend import run_event
from airflow_approvals.lineage.events import MOVES, event_of
from airflow_approvals.lineage.names import (
    MAX_COLUMN,
    MAX_NAME,
    DatasetName,
    approval_job,
    column_name,
    dataset_of,
    receipt_of,
)
from tests.lineage.samples import a_folder, a_masking, a_report, a_snapshot, answered
from tests.lineage.spec import SPEC, Spec, own_schemas
from tests.marquez.server import NAMESPACE, StandIn
from tests.store.samples import EVIDENCE, a_request

pytestmark = pytest.mark.airflow

SITE = Site(namespace="default", base_url="http://airflow.example")
NOON = "2026-03-01T12:00:00.000000Z"

NAMES = {
    "/staged/customers.csv": DatasetName(namespace="file", name="/staged/customers.csv"),
    "file:///staged/customers.csv": DatasetName(namespace="file", name="/staged/customers.csv"),
    "file://nas/staged/a.csv": DatasetName(namespace="file://nas", name="/staged/a.csv"),
    "s3://partner/in/a.csv": DatasetName(namespace="s3://partner", name="in/a.csv"),
    "s3://aws_default@partner/in/a.csv": DatasetName(namespace="s3://partner", name="in/a.csv"),
    "s3a://key:pass@partner/a.csv": DatasetName(namespace="s3://partner", name="a.csv"),
    "sql://warehouse/sales.customers": DatasetName(namespace="sql://warehouse", name="sales.customers"),
    "file:///a:b/c:d.csv": DatasetName(namespace="file", name="/a%3Ab/c%3Ad.csv"),
}


@pytest.mark.parametrize(("uri", "name"), NAMES.items(), ids=NAMES.keys())
def test_datasets_are_named_as_openlineage_names_them(uri: str, name: DatasetName) -> None:
    assert dataset_of(uri) == name


ODD = {
    "unicode": "größe-данные-顧客",
    "NUL": "a\x00b",
    "lone surrogate": "a\ud800b",
    "300 characters": "x" * 300,
    "colon": "a:b",
    "line break": "a\nb",
    "redacted word": "password",
    "quotes": "a\"b'c\\d",
    "emoji": "💥" * 100,
    "empty": "",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_odd_column_and_dataset_names_make_events_that_are_taken(
    odd: str, backend: StandIn, spec: Spec
) -> None:
    snapshot = a_snapshot(f"file:///staged/{odd}.parquet", columns=("id", odd))
    evidence = replace(EVIDENCE, datasets=(snapshot,))
    request = replace(a_request(), evidence=evidence)
    event = event_of("request.opened", NOON, request, SITE)
    spec.check([event])
    assert backend.take(event) == 201
    (told,) = event["inputs"]
    assert NAMESPACE.fullmatch(told["namespace"])
    assert ":" not in told["name"]
    assert all(len(each["name"]) <= MAX_COLUMN for each in told["facets"]["schema"]["fields"])


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_odd_column_names_keep_their_lineage_through_airflow(odd: str, spec: Spec) -> None:
    source = a_snapshot(columns=("id", odd))
    told = masking.masked(source.uri, source.columns, "/masked/customers.parquet", a_masking(odd))
    event = through_airflow(told)
    spec.check([event])
    column = event["outputs"][0]["facets"]["columnLineage"]["fields"][column_name(odd)]
    assert column["transformationType"] == "MASKED"
    assert column["inputFields"][0]["field"] == column_name(odd)
    assert column["inputFields"][0]["transformations"][0]["masking"] is True
    names = {each["name"] for each in event["outputs"][0]["facets"]["schema"]["fields"]}
    assert column_name(odd) in names


def through_airflow(told: Any) -> dict[str, Any]:
    """Return the event that the provider makes of what an operator tells: redacted and written out."""
    kept: list[dict[str, Any]] = []

    class Client:
        transport = type("Transport", (), {"kind": "test"})

        def emit(self, event: Any) -> None:
            kept.append(Serde.to_dict(event))

    adapter = OpenLineageAdapter(client=Client())  # type: ignore[arg-type]  # all that it is asked for
    event = run_event(event_of("request.opened", NOON, a_request(), SITE))
    event.inputs, event.outputs = told.inputs, told.outputs
    event.run.facets = {**(event.run.facets or {}), **told.run_facets}
    adapter.emit(event)
    return json.loads(json.dumps(kept[0]))  # type: ignore[no-any-return]


def test_long_names_stay_apart() -> None:
    one, other = column_name("x" * 300 + "1"), column_name("x" * 300 + "2")
    assert one != other
    assert len(one) == len(other) == MAX_COLUMN
    assert column_name("x" * 300 + "1") == one
    assert len(dataset_of("/" + "x" * 5000).name) == MAX_NAME


def test_jobs_of_approvals_are_named_by_their_gate() -> None:
    assert approval_job("export", "publish", "", "partner") == "approval.export.publish"
    assert approval_job("export", "publish", "second", "partner") == "approval.export.publish.second"
    assert approval_job(None, None, "", "partner") == "approval.partner"
    assert receipt_of("prod", "1f") == DatasetName(namespace="approvals://prod", name="receipt/1f")
    assert NAMESPACE.fullmatch(receipt_of("prod: größe", "1f").namespace)


@pytest.mark.parametrize("kind", MOVES)
def test_every_move_of_a_request_is_an_event_that_is_valid(kind: str, spec: Spec) -> None:
    event_type, state = MOVES[kind]
    request = answered(state) if state is not State.PENDING else a_request()
    event = event_of(kind, NOON, request, SITE)
    spec.check([event])
    assert event["eventType"] == event_type
    assert event["run"]["facets"][facets.APPROVAL]["state"] == state
    assert bool(event["outputs"]) == (state is State.APPROVED)
    assert event["inputs"], "a backend hides the edges of a job whose last event has no input"
    assert "parent" not in event["run"]["facets"]


BREAKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another type": lambda event: event.update(eventType="DONE"),
    "a time without zone": lambda event: event.update(eventTime="2026-03-01T12:00:00"),
    "no UUID": lambda event: event["run"].update(runId="1"),
    "no job": lambda event: event.pop("job"),
    "a vote without voter": lambda event: event["run"]["facets"][facets.APPROVAL]["votes"][0].pop("voter"),
    "a digest too short": lambda event: event["run"]["facets"][facets.APPROVAL].update(actionDigest="abc"),
    "an unnamed field": lambda event: event["run"]["facets"][facets.APPROVAL].update(typo=1),
    "no producer": lambda event: event["run"]["facets"][facets.APPROVAL].pop("_producer"),
    "an unknown schema": lambda event: event["run"]["facets"][facets.APPROVAL].update(_schemaURL="urn:x"),
}


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS.keys())
@pytest.mark.parametrize("folder", [SPEC, None], ids=["whole", "frame"])
def test_the_check_finds_what_is_wrong(broken: Any, folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        pytest.skip(f"NOT CHECKED: the OpenLineage schemas are not at {folder}")
    event = json.loads(json.dumps(event_of("request.approved", NOON, answered(State.APPROVED), SITE)))
    checks = Spec(folder)
    assert not checks.problems(event)
    broken(event)
    assert checks.problems(event)


def test_no_reason_is_told_unless_the_policy_allows_it() -> None:
    denied = answered(State.DENIED, reason="they owe us money")
    silent = event_of("request.denied", NOON, denied, SITE)
    assert "they owe us money" not in json.dumps(silent)
    told = event_of("request.denied", NOON, denied, SITE, with_reasons=True)
    assert told["run"]["facets"][facets.APPROVAL]["votes"][0]["reason"] == "they owe us money"


def test_what_people_write_and_parameters_stay_out_of_lineage() -> None:
    text = json.dumps([event_of(kind, NOON, answered(state), SITE) for kind, (_, state) in MOVES.items()])
    assert a_request().action.justification not in text
    assert "größe" not in text  # a parameter's name
    assert "because" not in text


def test_no_field_of_ours_is_starred_out_by_airflow(spec: Spec) -> None:
    request = answered(State.APPROVED)
    data = request.evidence.datasets[0]
    told = masking.scanned(data.uri, a_report(verified=False))
    told.run_facets = {facets.APPROVAL: run_facet(request, SITE)}
    told.inputs[0].facets[facets.RELEASE] = release_facet(request, data, SITE)
    event = through_airflow(told)
    spec.check([event])
    assert "***" not in json.dumps(event)


def test_an_emergency_stands_out(spec: Spec) -> None:
    grant = Grant(kind=GrantKind.BREAK_GLASS, by=(person_named("carol"),), reason="the site is down")
    request = replace(answered(State.APPROVED), votes=(), granted=grant)
    event = event_of("request.approved", NOON, request, SITE)
    spec.check([event])
    facet = event["run"]["facets"][facets.APPROVAL]
    assert (facet["grant"]["kind"], facet["grant"]["by"], facet["votes"]) == ("break_glass", ["carol"], [])
    assert "BREAK GLASS" in event["outputs"][0]["facets"]["documentation"]["description"]
    assert "the site is down" not in json.dumps(event)
    assert release_facet(request, request.evidence.datasets[0], SITE)["approvers"] == ["carol"]


def test_a_standing_approval_is_told_as_what_it_is(spec: Spec) -> None:
    stands = str(uuid4())
    grant = Grant(kind=GrantKind.STANDING, by=(person_named("alice"),), reason="monthly", standing_id=stands)
    event = event_of(
        "request.approved", NOON, replace(answered(State.APPROVED), votes=(), granted=grant), SITE
    )
    spec.check([event])
    told = event["run"]["facets"][facets.APPROVAL]["grant"]
    assert told == {"kind": "standing", "by": ["alice"], "standingRequestId": stands}


def test_a_verification_is_told_as_assertions() -> None:
    told = facets.masking_assertions(a_report(verified=False))
    assert told is not None
    whole, leak = told["assertions"]
    assert (whole["success"], whole["actual"]) == (False, "3")
    assert (leak["column"], leak["success"]) == ("email", False)
    held = facets.masking_assertions(a_report())
    assert held is not None
    assert [each["success"] for each in held["assertions"]] == [True]
    assert facets.masking_assertions({"columns": []}) is None, "a scan alone verifies nothing"


def test_tags_and_summary_tell_the_classes_of_each_column() -> None:
    report = a_report(verified=False)
    assert facets.pii_classes(report) == {"email": ["EMAIL_ADDRESS"]}
    (tag,) = facets.pii_tags(facets.pii_classes(report))["tags"]
    assert (tag["key"], tag["value"], tag["field"]) == ("pii", "EMAIL_ADDRESS", "email")
    summary = facets.pii_summary(report)
    assert summary["columns"] == [{"column": "email", "classes": [{"class": "EMAIL_ADDRESS", "cells": 3}]}]
    assert (summary["verified"], summary["residual"]) == (False, 3)


BROKEN_REPORTS = {
    "nothing": {},
    "columns are text": {"columns": "email"},
    "a column without name": {"columns": [{"entities": [{"entity_type": "X", "cells": 1}]}]},
    "cells are text": {"columns": [{"column": "a", "entities": [{"entity_type": "X", "cells": "many"}]}]},
    "verified is text": {"scanned": True, "verified": "yes", "residual": -1},
    "leaks are text": {"scanned": True, "verified": True, "leaks": "none"},
}


@pytest.mark.parametrize("report", BROKEN_REPORTS.values(), ids=BROKEN_REPORTS.keys())
def test_a_report_of_another_shape_is_told_as_nothing_found(report: dict[str, Any], spec: Spec) -> None:
    spec.check([through_airflow(masking.scanned("/staged/a.csv", report))])
    spec.check([through_airflow(masking.verified("/m/a.csv", report, source="/a.csv"))])
    assert facets.pii_classes(report) == {}


def test_folders_tell_which_files_were_read() -> None:
    _, _, reading = input_of(a_folder(3))
    condition = reading["subset"]["inputCondition"]
    assert condition["locations"] == [f"file:///staged/customers/part-{n}.parquet" for n in range(3)]
    assert reading["inputStatistics"]["fileCount"] == 3


PUBLISHED = {
    "AirflowApprovalsApprovalRunFacet": "0854756e2f3f5662e6622d01f7c7c96c7dcb1f722411e45b55aae26766b94f96",
    "AirflowApprovalsCheckpointRunFacet": "fda99a3fc7f4d22f43f9d5e0e6911e478d62563fa3ba9ca6d2ef8970bab214d5",
    "AirflowApprovalsPiiDatasetFacet": "acdcd0dcdd23a44bb52c0a2893447b21ebbd2b9c4462d52bec5290b69d4c4653",
    "AirflowApprovalsReleaseDatasetFacet": "879cedd6efa57c72a5076b89706eca92170005c6c7e300ab42518bae2800fe28",
}


@pytest.mark.parametrize(("name", "sha256"), PUBLISHED.items(), ids=PUBLISHED.keys())
def test_a_published_schema_never_changes(name: str, sha256: str) -> None:
    file = files("airflow_approvals.lineage") / "schemas" / "1-0-0" / f"{name}.json"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256, "add a version, leave this one alone"


def test_schemas_are_named_by_the_rule_of_the_specification() -> None:
    found = {schema["$id"].rpartition("/")[2] for schema in own_schemas()}
    assert found == {f"{name}.json" for name in PUBLISHED}
    for schema in own_schemas():
        ((key, place),) = schema["properties"].items()
        name = place["$ref"].rpartition("/")[2]
        prefix, _, word = key.partition("_")
        entity = "Run" if name.endswith("RunFacet") else "Dataset"
        assert name == f"{prefix[0].upper()}{prefix[1:]}{word.capitalize()}{entity}Facet"
        assert schema["$id"].endswith(f"/1-0-0/{name}.json")
