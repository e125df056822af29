"""The objects that Airflow's OpenLineage provider takes from operators, made of our facets.

Facets are plain JSON: the client writes them out as they are. The one exception has columns for keys, and
Airflow's redactor would star out a column that is called `password`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.generated.column_lineage_dataset import ColumnLineageDatasetFacet

from airflow_approvals.lineage.facets import Facet
from airflow_approvals.lineage.names import PRODUCER, DatasetName

Lineage = OperatorLineage[Any, Any]
"""Inputs, outputs and facets of one event."""


@attrs.define
class ColumnLineage(ColumnLineageDatasetFacet):
    """The standard facet, whose fields are no secrets."""

    _additional_skip_redact: ClassVar[list[str]] = ["fields"]


def lineage(*, inputs: Any = (), outputs: Any = (), run_facets: Any = None) -> Lineage:
    """Return what one event of a task tells."""
    return OperatorLineage(
        inputs=list(inputs), outputs=list(outputs), run_facets=run_facets or {}, job_facets={}
    )


def read(name: DatasetName, about: Any = None, reading: Any = None) -> InputDataset:
    """Return a dataset that was read, with its facets and those of having read it."""
    return InputDataset(
        namespace=name.namespace, name=name.name, facets=about or {}, inputFacets=reading or {}
    )


def made(name: DatasetName, about: Any = None, writing: Any = None) -> OutputDataset:
    """Return a dataset that was written, with its facets and those of having written it."""
    return OutputDataset(
        namespace=name.namespace, name=name.name, facets=about or {}, outputFacets=writing or {}
    )


def column_lineage(told: Facet) -> ColumnLineage:
    """Return the facet as an object that keeps its fields from being redacted."""
    return ColumnLineage(fields=told["fields"], producer=PRODUCER)
