"""The objects that Airflow's OpenLineage provider takes from operators, made of our facets.

Facets are plain JSON: the client writes them out as they are. Those with an entry for every column are in
objects that nobody looks into.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset

from airflow_approvals.lineage.facets import Facets
from airflow_approvals.lineage.names import PRODUCER, DatasetName
from airflow_approvals.lineage.wide import ColumnLineage, Schema

Lineage = OperatorLineage[Any, Any]
"""Inputs, outputs and facets of one event."""


_WIDE: dict[str, Any] = {"columnLineage": ColumnLineage, "schema": Schema}


def lineage(*, inputs: Any = (), outputs: Any = (), run_facets: Any = None) -> Lineage:
    """Return what one event of a task tells."""
    return OperatorLineage(
        inputs=list(inputs), outputs=list(outputs), run_facets=run_facets or {}, job_facets={}
    )


def read(name: DatasetName, about: Facets | None = None, reading: Any = None) -> InputDataset:
    """Return a dataset that was read, with its facets and those of having read it."""
    return InputDataset(
        namespace=name.namespace, name=name.name, facets=_kept(about), inputFacets=reading or {}
    )


def made(name: DatasetName, about: Facets | None = None, writing: Any = None) -> OutputDataset:
    """Return a dataset that was written, with its facets and those of having written it."""
    return OutputDataset(
        namespace=name.namespace, name=name.name, facets=_kept(about), outputFacets=writing or {}
    )


def _kept(about: Facets | None) -> dict[str, Any]:
    return {
        key: _WIDE[key](fields=facet["fields"], producer=PRODUCER) if key in _WIDE else facet
        for key, facet in (about or {}).items()
    }
