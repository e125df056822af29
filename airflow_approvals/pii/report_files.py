"""Reports beside the data: JSON that names the very bytes that it is about, fit for `Evidence.pii`.

They hold counts, column names, entity types and digests: never a value from the data.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from airflow_approvals.core.errors import DestinationError, InvalidRequestError, ReportMismatchError
from airflow_approvals.core.model import from_json, to_json
from airflow_approvals.core.pii_reports import DATASET
from airflow_approvals.pii.masking.datasets import MaskReport
from airflow_approvals.pii.masking.rules import MaskingRules, Treatment
from airflow_approvals.pii.plan import MaskingPlan
from airflow_approvals.pii.report import ColumnReport, EntityReport, ScanReport
from airflow_approvals.pii.scan_datasets import DatasetScan
from airflow_approvals.pii.verify_report import VerifyReport
from airflow_approvals.staging.locations import local_path
from airflow_approvals.whole_files import write_whole

Report = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A report, and the file that it is in."""

    report: Report
    path: Path
    sha256: str  # of the file


def place_beside(uri: str, suffix: str, given: str | None = None) -> Path:
    """Return where a report about the dataset at `uri` goes: `given`, or its own name and `suffix`."""
    path = local_path(given if given is not None else uri.rstrip("/"))
    if path is None:
        raise InvalidRequestError(
            f"{given or uri}: reports are written to local paths; name one that all workers see"
        )
    return path if given is not None else path.with_name(path.name + suffix)


def write_report(path: Path, report: Report) -> Written:
    """Write a report; it appears complete, or the one before stays."""
    content = json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content, mode=0o644)
    except OSError as error:
        raise DestinationError(f"{path}: cannot be written ({error.strerror}); give the rights") from error
    return Written(report=report, path=path, sha256=hashlib.sha256(content).hexdigest())


def report_of_scan(scan: DatasetScan) -> Report:
    """Return what stands in data as it is; nothing in it claims a verification."""
    columns = [column for column in scan.report.columns if column.strong]
    counts: Counter[str] = Counter()
    for entity in (entity for column in columns for entity in column.strong):
        counts[entity.entity_type] += entity.findings
    return {
        DATASET: scan.sha256,
        "scanned": True,
        "residual": sum(counts.values()),
        "entities": dict(sorted(counts.items())),
        "columns": [column.column for column in columns],
        "rows": scan.report.rows,
        "engine_digest": scan.report.engine_digest,
        "before": to_json(scan.report),
    }


def report_of_masking(made: MaskReport, *, plan_digest: str) -> Report:
    """Return what masking says of itself, which proves nothing: only a verification does."""
    told = to_json(made)
    return {DATASET: told.pop("sha256"), "plan_digest": plan_digest, **told}


def report_of_verification(verified: VerifyReport, plan: MaskingPlan, *, scan: Report | None) -> Report:
    """Return the proof that masking holds, or what is left, beside the scan of the source.

    Raise `ReportMismatchError` where `scan` is about another source.
    """
    report = {**verified.to_evidence(), "plan_digest": plan.digest}
    before = scan_in(scan, verified.source_sha256)
    if before is None:
        return report
    after = _after(before, verified, plan.rules())
    return {
        **report,
        "left_by_plan": [column.column for column in after.columns if column.strong],
        "engine_digest": before.engine_digest,
        "before": to_json(before),
        "after": to_json(_with_leaks(after, verified)),
    }


def scan_in(report: Mapping[str, Any] | None, source_sha256: str | None) -> ScanReport | None:
    """Return the scan in a report; raise `ReportMismatchError` where it is of another source."""
    if report is None:
        return None
    refusal = ReportMismatchError(
        f"the scan report is not one about the source with sha256 {source_sha256}; scan what is staged now, "
        "and give that report"
    )
    if report.get(DATASET) != source_sha256:
        raise refusal
    try:
        return from_json(ScanReport, report.get("before"))
    except ValidationError:  # its message repeats what it found
        raise refusal from None


def _after(before: ScanReport, verified: VerifyReport, rules: MaskingRules) -> ScanReport:
    """Return what the plan lets stay: columns that it leaves alone, and types that it leaves in a text."""
    columns = []
    for column in before.columns:
        rule = rules.by_column.get(column.column)
        if rule is None or rule.treatment is Treatment.LEAVE:
            columns.append(column)
        elif rule.treatment is not Treatment.DROP:
            kept = tuple(one for one in column.entities if one.entity_type in rule.leave_entities)
            columns.append(_with_entities(column, kept))
    return replace(before, mode="verification", columns=tuple(columns), checked_cells=0)


def _with_leaks(after: ScanReport, verified: VerifyReport) -> ScanReport:
    """Return what stays, and what the verification found left beside it."""
    counts: dict[str, dict[str, int]] = {}
    for leak in verified.leaks:
        entities = counts.setdefault(leak.column, {})
        # One cell can be noticed in several ways.
        entities[leak.entity_type] = max(entities.get(leak.entity_type, 0), leak.count)
    known = {column.column for column in after.columns}
    more = (
        ColumnReport(
            column=name,
            type="",
            scanned=verified.rows,
            nulls=0,
            skipped=0,
            cells_with_findings=0,
            entities=(),
        )
        for name in counts
        if name not in known
    )
    columns = tuple(_with_counts(column, counts.get(column.column, {})) for column in (*after.columns, *more))
    findings = sum(entity.findings for column in columns for entity in column.entities)
    return replace(after, columns=columns, findings=findings)


def _with_counts(column: ColumnReport, counts: dict[str, int]) -> ColumnReport:
    left = [
        EntityReport(
            entity_type=entity,
            findings=count,
            cells=min(count, column.scanned),
            share=round(min(1.0, count / column.scanned), 6) if column.scanned else 0.0,
            score_min=1.0,
            score_max=1.0,
        )
        for entity, count in sorted(counts.items())
    ]
    stays = [entity for entity in column.entities if entity.entity_type not in counts]
    return _with_entities(column, (*stays, *left))


def _with_entities(column: ColumnReport, entities: tuple[EntityReport, ...]) -> ColumnReport:
    most = max((entity.cells for entity in entities), default=0)
    return replace(column, cells_with_findings=most, entities=entities)
