"""What scanning, masking and verifying tell of their runs: classes found, columns masked, assertions held.

Operators call these from their `get_openlineage_facets_on_...` with what they have: counts and names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_approvals.core.model import Column, Snapshot
from airflow_approvals.lineage import facets
from airflow_approvals.lineage.names import dataset_of
from airflow_approvals.lineage.provided import Lineage, column_lineage, lineage, made, read
from airflow_approvals.lineage.tasks import writing

MASKED = "masked by airflow-approvals"
"""What a masked column says of itself, before the classes that were found in it."""


def scanned(source: str, columns: Iterable[Column], report: Mapping[str, Any]) -> Lineage:
    """Return what a scan tells: the classes of personal data in each column of what it read."""
    about = {
        "schema": facets.schema(columns),
        "tags": facets.pii_tags(facets.pii_classes(report)),
        facets.PII: facets.pii_summary(report),
    }
    return lineage(inputs=[read(dataset_of(source), about)])


def masked(
    source: str, columns: Iterable[Column], result: Snapshot, classes: Mapping[str, Iterable[str]]
) -> Lineage:
    """Return what masking tells: which column of `result` came from which, and which were masked.

    `columns` are those of the source; `classes` are the classes that were masked, by column.
    """
    columns = list(columns)
    there = dataset_of(source)
    known = {column.name for column in columns}
    how = {
        name: f"{MASKED}: {', '.join(sorted(found)) or 'the whole column'}" for name, found in classes.items()
    }
    kept = {each.name: each.name for each in result.columns if each.name in known}
    about = {
        "schema": facets.schema(result.columns),
        "version": facets.version(result.sha256),
        "columnLineage": column_lineage(facets.column_lineage(there, kept, how)),
        "lifecycleStateChange": facets.lifecycle("CREATE"),
    }
    before = {"schema": facets.schema(columns), "tags": facets.pii_tags(classes)}
    return lineage(
        inputs=[read(there, before)], outputs=[made(dataset_of(result.uri), about, writing(result))]
    )


def verified(result: str, report: Mapping[str, Any], *, source: str | None = None) -> Lineage:
    """Return what a verification tells: whether masking holds, as data quality assertions."""
    assertions = facets.masking_assertions(report)
    checked = read(
        dataset_of(result),
        {facets.PII: facets.pii_summary(report)},
        {"dataQualityAssertions": assertions} if assertions else {},
    )
    return lineage(inputs=[checked, *([read(dataset_of(source))] if source else [])])
