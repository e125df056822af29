"""Facets as JSON: standard ones wherever the specification has one, ours for what no standard says.

Counts, names, types and digests only: never a value from the data. Shapes: OpenLineage 2-0-2, notes on each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from airflow_approvals.core.model import Column, Snapshot
from airflow_approvals.lineage.names import BASE, PRODUCER, DatasetName, clean, column_name

Facet = dict[str, Any]
Facets = dict[str, Facet]

MAX_LOCATIONS = 100
"""Files of a dataset that are named one by one."""
OPENED = "tokens opened by airflow-approvals"
"""What a column says of itself whose tokens were turned back into what they stand for."""

_STANDARD = "https://openlineage.io/spec/facets"
_OWN = f"{BASE}/lineage/1-0-0"

APPROVAL = "airflowApprovals_approval"
RELEASE = "airflowApprovals_release"
PII = "airflowApprovals_pii"
CHECKPOINT = "airflowApprovals_checkpoint"


def own(name: str, **facts: Any) -> Facet:
    """Return a facet of ours; `name` is its definition, published in `lineage/schemas`."""
    return {"_producer": PRODUCER, "_schemaURL": f"{_OWN}/{name}.json#/$defs/{name}", **facts}


def standard(version: str, name: str, **facts: Any) -> Facet:
    """Return a facet of the specification, in the version that it is written in here.

    `name` is `File` or, where a file defines several, `File/Definition`.
    """
    file, _, definition = name.partition("/")
    url = f"{_STANDARD}/{version}/{file}.json#/$defs/{definition or file}"
    return {"_producer": PRODUCER, "_schemaURL": url, **facts}


# --- about a dataset -----------------------------------------------------------------------------------


def schema(columns: Iterable[Column]) -> Facet:
    fields = [{"name": column_name(each.name), "type": clean(each.type)} for each in columns]
    return standard("1-2-0", "SchemaDatasetFacet", fields=fields)


def version(digest: str) -> Facet:
    return standard("1-0-1", "DatasetVersionDatasetFacet", datasetVersion=digest)


def documentation(description: str) -> Facet:
    return standard("1-1-0", "DocumentationDatasetFacet", description=clean(description))


def lifecycle(change: str) -> Facet:
    return standard("1-0-1", "LifecycleStateChangeDatasetFacet", lifecycleStateChange=change)


def pii_tags(classes: Mapping[str, Iterable[str]]) -> Facet:
    """Return one tag per column and class of personal data: `pii=EMAIL_ADDRESS` on `email`."""
    tags = [
        {"key": "pii", "value": clean(entity), "source": "PRESIDIO", "field": column_name(column)}
        for column, entities in classes.items()
        for entity in sorted(entities)
    ]
    return standard("1-0-0", "TagsDatasetFacet", tags=tags)


def column_lineage(
    source: DatasetName,
    columns: Mapping[str, str],
    masked: Mapping[str, str] | None = None,
    opened: Collection[str] = (),
) -> Facet:
    """Return which column came from which: as it was, masked as `masked` says of it, or `opened` again.

    `columns` has the columns of the source by those that were made of them. `transformationType` is
    deprecated, and the only word of it that Marquez keeps in its graph.
    """
    changed = {**(masked or {}), **dict.fromkeys(opened, OPENED)}
    place = {"namespace": source.namespace, "name": source.name}
    # One object for all columns of a kind: thousands of them would be looked through for garbage.
    ways: dict[tuple[str | None, bool], tuple[Facet, list[Facet]]] = {}
    fields: dict[str, Any] = {}
    for made, column in columns.items():
        key = changed.get(made), made in opened
        if key not in ways:
            ways[key] = _way(*key)
        told, steps = ways[key]
        inputs = [{**place, "field": column_name(column), "transformations": steps}]
        fields[column_name(made)] = {**told, "inputFields": inputs}
    return standard("1-2-0", "ColumnLineageDatasetFacet", fields=fields)


def input_statistics(data: Snapshot) -> Facet:
    return standard("1-0-0", "InputStatisticsInputDatasetFacet", **_statistics(data))


def output_statistics(data: Snapshot) -> Facet:
    return standard("1-0-2", "OutputStatisticsOutputDatasetFacet", **_statistics(data))


def rows_written(rows: int) -> Facet:
    return standard("1-0-2", "OutputStatisticsOutputDatasetFacet", rowCount=rows)


def input_subset(data: Snapshot) -> Facet:
    """Return which files of a folder were read."""
    condition = {"type": "location", "locations": _locations(data)}
    return standard("1-0-0", "BaseSubsetDatasetFacet/InputSubsetInputDatasetFacet", inputCondition=condition)


def output_subset(data: Snapshot) -> Facet:
    """Return which files of a folder were written."""
    condition = {"type": "location", "locations": _locations(data)}
    return standard(
        "1-0-0",
        "BaseSubsetDatasetFacet/OutputSubsetOutputDatasetFacet",
        outputCondition=condition,
    )


def masking_assertions(report: Mapping[str, Any]) -> Facet | None:
    """Return what a verification of masking found as data quality assertions; None without one."""
    if report.get("scanned") is not True or not isinstance(report.get("verified"), bool):
        return None
    residual = report.get("residual")
    whole = {
        "assertion": "no_personal_data_left",
        "name": "masking verification",
        "success": report["verified"],
        "severity": "error",
        "expected": "0",
        "actual": str(residual) if isinstance(residual, int) else "unknown",
    }
    return standard(
        "1-1-0",
        "DataQualityAssertionsDatasetFacet",
        assertions=[whole, *_leak_assertions(report.get("leaks"))],
    )


def pii_summary(report: Mapping[str, Any]) -> Facet:
    """Return the PII report of a dataset in short: counts by column and class."""
    columns = [
        {
            "column": column_name(column),
            "classes": [{"class": clean(name), "cells": cells} for name, cells in found],
        }
        for column, found in _findings(report)
        if found
    ]
    facts: dict[str, Any] = {"columns": columns}
    facts |= {key: report[key] for key in ("scanned", "verified") if isinstance(report.get(key), bool)}
    facts |= {key: report[key] for key in ("residual", "rows") if _is_count(report.get(key))}
    for key, told in (
        ("engine_digest", "engineDigest"),
        ("plan_digest", "planDigest"),
        ("rules_digest", "rulesDigest"),
    ):
        if isinstance(report.get(key), str):
            facts[told] = clean(report[key])
    return own("AirflowApprovalsPiiDatasetFacet", **facts)


def pii_classes(report: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Return the classes of personal data found in each column of what a report is about."""
    if not isinstance(report, Mapping):
        return {}
    return {column: [name for name, _ in found] for column, found in _findings(report) if found}


def scanned_columns(report: Mapping[str, Any]) -> list[Column]:
    """Return the columns that a scan has seen, with their types."""
    found = []
    for column in _scan_of(report):
        match column:
            case {"column": str(name), "type": str(kind)}:
                found.append(Column(name=name, type=kind))
    return found


# --- about a run ---------------------------------------------------------------------------------------


def job_dependency(namespace: str, job: str, run_id: str) -> Facet:
    """Return that a run could begin only after another one was done."""
    upstream = {
        "job": {"namespace": namespace, "name": job},
        "run": {"runId": run_id},
        "dependency_type": "IMPLICIT_DEPENDENCY",
        "sequence_trigger_rule": "FINISH_TO_START",
        "status_trigger_rule": "EXECUTE_ON_SUCCESS",
    }
    return standard("1-0-1", "JobDependenciesRunFacet", upstream=[upstream])


def job_documentation(description: str) -> Facet:
    return standard("1-1-0", "DocumentationJobFacet", description=clean(description))


def job_type() -> Facet:
    return standard(
        "2-0-4",
        "JobTypeJobFacet",
        processingType="BATCH",
        integration="AIRFLOW_APPROVALS",
        jobType="APPROVAL",
    )


# --- parts ---------------------------------------------------------------------------------------------


def _way(how: str | None, is_opened: bool) -> tuple[Facet, list[Facet]]:
    """Return what a column says of how it was made, and the steps that it names."""
    if how is None:
        step = {"type": "DIRECT", "subtype": "IDENTITY", "masking": False}
        return {"transformationType": "IDENTITY"}, [step]
    told = clean(how)
    step = {"type": "DIRECT", "subtype": "TRANSFORMATION", "description": told, "masking": not is_opened}
    kind = "DECRYPTED" if is_opened else "MASKED"
    return {"transformationType": kind, "transformationDescription": told}, [step]


def _statistics(data: Snapshot) -> dict[str, int]:
    return {"rowCount": data.rows, "size": data.size, "fileCount": len(data.files)}


def _locations(data: Snapshot) -> list[str]:
    base = data.uri.rstrip("/")
    return [clean(f"{base}/{file.name}") for file in data.files[:MAX_LOCATIONS]]


def _leak_assertions(leaks: object) -> Sequence[dict[str, Any]]:
    found = []
    for leak in leaks if isinstance(leaks, list) else ():
        match leak:
            case {"column": str(column), "entity_type": str(entity), "count": int(count)}:
                found.append(
                    {
                        "assertion": "no_personal_data_left",
                        "name": f"no {clean(entity)}",
                        "column": column_name(column),
                        "success": False,
                        "severity": "error",
                        "expected": "0",
                        "actual": str(count),
                    }
                )
    return found


def _findings(report: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return column, and cells by class, of the scan in a report."""
    found = []
    for column in _scan_of(report):
        match column:
            case {"column": str(name), "entities": list(entities)}:
                found.append((name, list(_cells(entities))))
    return found


def _scan_of(report: Mapping[str, Any]) -> list[Any]:
    """Return the columns of the scan in a report: of what was masked, or of what was not yet."""
    scan: object = report.get("after")
    if not isinstance(scan, Mapping):
        scan = report if "verified" in report else report.get("before", report)
    columns = scan.get("columns") if isinstance(scan, Mapping) else None
    return columns if isinstance(columns, list) else []


def _cells(entities: list[Any]) -> Iterable[tuple[str, int]]:
    for entity in entities:
        match entity:
            case {"entity_type": str(name), "cells": int(cells)} if cells > 0:
                yield name, cells


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
