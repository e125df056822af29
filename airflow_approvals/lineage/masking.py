"""What scanning, masking and verifying tell of their runs: classes found, columns masked, assertions held.

The operators keep their reports with `remembered.keep`: counts, names and digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_approvals.core.model import Column
from airflow_approvals.core.pii_reports import DATASET
from airflow_approvals.lineage import facets
from airflow_approvals.lineage.facets import Facets
from airflow_approvals.lineage.names import dataset_of
from airflow_approvals.lineage.provided import Lineage, lineage, made, read
from airflow_approvals.lineage.remembered import kept

MASKED = "masked by airflow-approvals"
"""What a masked column says of itself, before the classes that were found in it."""


def begun(operator: Any) -> Lineage:
    """Return what a task that scans, masks or verifies tells at its start: what it reads, by name."""
    source = getattr(operator, "source", None)
    return lineage(inputs=[read(dataset_of(source))] if isinstance(source, str) else [])


def told(operator: Any) -> Lineage:
    """Return what it tells at its end, by what it has kept."""
    match kept(operator):
        case {"source": source, "masked": result, "mask": report, "columns": columns, **more}:
            return masked(source, columns, result, report, more.get("verification"))
        case {"source": source, "masked": result, "verification": report}:
            return verified(result, report, source=source)
        case {"source": source, "scan": report}:
            return scanned(source, report)
        case _:
            return begun(operator)


def scanned(source: str, report: Mapping[str, Any]) -> Lineage:
    """Return what a scan tells: the classes of personal data in each column of what it read."""
    return lineage(inputs=[read(dataset_of(source), {**_version(report), **_found(report)})])


def masked(
    source: str,
    columns: Iterable[Column],
    result: str,
    report: Mapping[str, Any],
    verification: Mapping[str, Any] | None = None,
) -> Lineage:
    """Return what masking tells: which column of the result came from which, and which were masked.

    `columns` are those of the source; `report` is the one of the masking.
    """
    columns, there = list(columns), dataset_of(source)
    classes = {column: list(found) for column, found in report["masked"].items() if found}
    remaining = [
        Column(name=each.name, type="string" if each.name in report["became_text"] else each.type)
        for each in columns
        if each.name not in report["dropped"]
    ]
    how = {column: f"{MASKED}: {', '.join(sorted(found))}" for column, found in classes.items()}
    about: dict[str, Any] = {
        "schema": facets.schema(remaining),
        "columnLineage": facets.column_lineage(there, {each.name: each.name for each in remaining}, how),
        "lifecycleStateChange": facets.lifecycle("OVERWRITE"),
        **_version(report),
    }
    if verification is not None:
        about[facets.PII] = facets.pii_summary(verification)
    before = {"schema": facets.schema(columns), "tags": facets.pii_tags(classes)}
    return lineage(
        inputs=[read(there, before)],
        outputs=[made(dataset_of(result), about, {"outputStatistics": facets.rows_written(report["rows"])})],
    )


def verified(result: str, report: Mapping[str, Any], *, source: str) -> Lineage:
    """Return what a verification tells: whether masking holds, as data quality assertions."""
    assertions = facets.masking_assertions(report)
    checked = read(
        dataset_of(result),
        {facets.PII: facets.pii_summary(report)},
        {"dataQualityAssertions": assertions} if assertions else {},
    )
    return lineage(inputs=[checked, read(dataset_of(source))])


def _found(report: Mapping[str, Any]) -> Facets:
    """Return schema, tags and summary, as far as a report has them."""
    about = {
        "tags": facets.pii_tags(facets.pii_classes(report)),
        facets.PII: facets.pii_summary(report),
    }
    if columns := facets.scanned_columns(report):
        about["schema"] = facets.schema(columns)
    return about


def _version(report: Mapping[str, Any]) -> Facets:
    sha256 = report.get(DATASET)
    return {"version": facets.version(sha256)} if isinstance(sha256, str) else {}
