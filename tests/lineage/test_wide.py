"""Facets with an entry for every column: the JSON that the client would make of them, at less cost."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from airflow.utils.state import TaskInstanceState
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    documentation_dataset,
    nominal_time_run,
    output_statistics_output_dataset,
)
from openlineage.client.serde import Serde

from airflow_approvals.core.model import Evidence, State
from airflow_approvals.lineage.provided import Lineage
from airflow_approvals.lineage.remembered import remember
from airflow_approvals.lineage.wide import as_json
from airflow_approvals.operators.export import ApprovedExportOperator
from tests.lineage.samples import a_snapshot, answered

pytestmark = pytest.mark.airflow


def an_export(columns: int) -> Lineage:
    """Return what an export of so many columns tells at its end."""
    data = a_snapshot(columns=tuple(f"column_{number:04}" for number in range(columns)))
    operator = ApprovedExportOperator(task_id="export", source=data.uri, destination="file:///outbox/a")
    remember(operator, replace(answered(State.APPROVED), evidence=Evidence(datasets=(data,))))
    found: Lineage = operator.get_openlineage_facets_on_complete(
        SimpleNamespace(state=TaskInstanceState.SUCCESS)
    )
    return found


def an_event(inputs: Any, outputs: Any, run_facets: Any) -> RunEvent:
    return RunEvent(
        eventType=RunState.COMPLETE,
        eventTime="2026-03-01T12:00:00Z",
        run=Run(runId=str(uuid4()), facets=run_facets),
        job=Job(namespace="default", name="export.publish"),
        inputs=inputs,
        outputs=outputs,
        producer="https://example.test",
    )


def of_others() -> RunEvent:
    """Return an event with facets of the client's, and what JSON would not have."""
    about: dict[str, Any] = {
        "documentation": documentation_dataset.DocumentationDatasetFacet(description="theirs"),
        "own": {"kept": 1, "left out": None, "entries": [{}, None, {"state": RunState.START}]},
    }
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=1)
    written: dict[str, Any] = {"outputStatistics": statistics}
    return an_event(
        inputs=[InputDataset(namespace="a", name="b", facets=about, inputFacets=None)],
        outputs=[OutputDataset(namespace="a", name="c", facets={}, outputFacets=written)],
        run_facets={"nominalTime": nominal_time_run.NominalTimeRunFacet("2026-03-01T12:00:00Z")},
    )


def of_ours() -> RunEvent:
    told = an_export(3)
    return an_event(told.inputs, told.outputs, told.run_facets)


EVENTS = {"ours": of_ours, "others'": of_others, "no datasets": lambda: an_event([], None, {})}


@pytest.mark.parametrize("make", EVENTS.values(), ids=EVENTS.keys())
def test_an_event_is_the_json_that_the_client_would_make_of_it(make: Any) -> None:
    event = make()
    assert as_json(event) == Serde.to_dict(event)


def test_what_it_costs_does_not_grow_with_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    look = Serde.remove_nulls_and_enums

    def counted(_: Any, value: Any) -> Any:
        looked_at.append(type(value))
        return look(value)

    monkeypatch.setattr(Serde, "remove_nulls_and_enums", classmethod(counted))
    counts = []
    for columns in (2, 2_000):
        told = an_export(columns)
        looked_at.clear()
        as_json(an_event(told.inputs, told.outputs, told.run_facets))
        counts.append(len(looked_at))
    assert counts[0] == counts[1] > 0
