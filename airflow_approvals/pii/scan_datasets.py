"""Staged datasets scanned and planned; what each part holds is the same whichever engine runs."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import SourceEmptyError
from airflow_approvals.pii.engine_identity import engine_digest, engine_words
from airflow_approvals.pii.findings import BatchFindings
from airflow_approvals.pii.json_rows import batch_of_rows
from airflow_approvals.pii.masking.operators import Operator
from airflow_approvals.pii.masking.reading import DatasetReader, about
from airflow_approvals.pii.masking.rules import Treatment
from airflow_approvals.pii.plan import MaskingPlan, PlannedColumn
from airflow_approvals.pii.planning import ENOUGH, SAMPLE, plan_masking
from airflow_approvals.pii.report import ColumnReport, EntityReport, ScanReport, Tally
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.staging.locations import Part, locate

Progress = Callable[[int], None]
"""Is told how many rows are done."""


@dataclass(frozen=True, kw_only=True)
class PartScan:
    """One part: what it holds, and a digest of every finding in it (place, type and score)."""

    name: str
    rows: int
    findings: int
    findings_sha256: str


@dataclass(frozen=True, kw_only=True)
class DatasetScan:
    """One dataset: the report of the whole, its parts, and the digest of the bytes that were scanned."""

    report: ScanReport
    parts: tuple[PartScan, ...]
    sha256: str


def scan_dataset(
    uri: str,
    scanner: Scanner,
    *,
    conn_id: str | None = None,
    format: str | None = None,  # the word that users know
    progress: Progress | None = None,
) -> DatasetScan:
    """Scan every cell of the dataset at `uri`, in bounded memory.

    Raises a `DatasetError` that names part or dataset, row (the first is 0) and column, never a value.
    """
    reader = DatasetReader(locate(uri, conn_id), format)
    counts = [PartCount(part.name) for part in reader.listing.parts]
    starts: list[int] = []

    def batches() -> Iterator[Any]:
        rows = 0
        for part in reader.listing.parts:
            starts.append(rows)
            for batch in arrow_batches(reader, part):
                rows += batch.num_rows
                yield batch

    done = 0
    with about(reader):
        for found in scanner.scan_batches(batches()):
            number = bisect_right(starts, found.first_row) - 1
            counts[number].add(found, starts[number])
            done += found.rows
            if progress is not None:
                progress(done)
    return finished_scan(uri, reader.sha256, [count.finished(scanner) for count in counts])


def finished_scan(uri: str, sha256: str, parts: Sequence[tuple[PartScan, ScanReport]]) -> DatasetScan:
    """Return what all parts of a dataset hold together; raise `SourceEmptyError` where there is no row."""
    report = merged_reports([report for _, report in parts])
    if not report.rows:
        raise SourceEmptyError(f"{uri}: holds no rows; there is nothing to scan")
    return DatasetScan(report=report, parts=tuple(part for part, _ in parts), sha256=sha256)


def plan_dataset(
    uri: str,
    scanner: Scanner,
    *,
    conn_id: str | None = None,
    format: str | None = None,  # the word that users know
    operators: Mapping[str, Operator] | None = None,
    otherwise: Operator | None = None,
    sample: int = SAMPLE,
) -> MaskingPlan:
    """Return a masking plan for the dataset at `uri`, from a sample of its rows.

    Of JSON Lines the first few rows in which each key has a value are always in the sample, so that the plan
    knows every key. Raise `SourceEmptyError` where there is no row.
    """
    reader = DatasetReader(locate(uri, conn_id), format)
    mixed: frozenset[str] = frozenset()
    with about(reader):
        batches = reader.batches()
        if reader.layout.format == "jsonl":
            rows = _sampled_rows(batches, sample)
            if not rows:
                raise SourceEmptyError(f"{uri}: holds no rows; there is nothing to plan from")
            batches, sample = iter([batch_of_rows(rows)]), max(sample, len(rows))
            mixed = frozenset(key for row in rows for key, value in row.items() if not isinstance(value, str))
        plan = plan_masking(scanner, batches, operators=operators, otherwise=otherwise, sample=sample)
    columns = (_becoming_text(column) if column.column in mixed else column for column in plan.columns)
    return plan.model_copy(update={"columns": tuple(columns)})


def _becoming_text(column: PlannedColumn) -> PlannedColumn:
    """Say of whole cells that all of them become text: of JSON, some in this column may be no text yet."""
    if column.treatment is not Treatment.CELL:
        return column
    return column.model_copy(update={"becomes": "string"})


def arrow_batches(reader: DatasetReader, part: Part) -> Iterator[Any]:
    """Yield the batches of one part as `pyarrow.RecordBatch`."""
    names: dict[str, None] = {}
    for batch in reader.batches_of(part):
        if not isinstance(batch, list):
            yield batch
            continue
        made = batch_of_rows(batch, names)
        names.update(dict.fromkeys(made.schema.names))
        yield made


class PartCount:
    """Counts and digests the findings of one part, batch by batch, however its rows are cut into batches."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tally = Tally()
        self._digests: dict[str, Any] = {}

    def add(self, found: BatchFindings, first_row: int) -> None:
        """Take in one batch; `first_row` is the number of the part's own first row."""
        self._tally.add(replace(found, first_row=found.first_row - first_row))
        for column in found.columns:
            digest = self._digests.setdefault(column.column, hashlib.sha256())
            for one in column.findings:
                place = (one.row - first_row, one.path, one.leaf_key, *one.span, one.normalised)
                digest.update(repr(place).encode("utf-8", "surrogatepass"))

    def finished(self, scanner: Scanner) -> tuple[PartScan, ScanReport]:
        """Return the part, and the report of its findings alone."""
        report = self._tally.report(engine=engine_words(scanner), engine_digest=engine_digest(scanner))
        findings = digest_of({name: digest.hexdigest() for name, digest in self._digests.items()})
        part = PartScan(name=self._name, rows=report.rows, findings=report.findings, findings_sha256=findings)
        return part, report


def merged_reports(reports: Sequence[ScanReport]) -> ScanReport:
    """Return one report of several parts, as if they had been one."""
    columns: dict[str, list[ColumnReport]] = {}
    for report in reports:
        for column in report.columns:
            columns.setdefault(column.column, []).append(column)
    return replace(
        reports[0],
        rows=sum(report.rows for report in reports),
        columns=tuple(map(_merged_columns, columns.values())),
        findings=sum(report.findings for report in reports),
        checked_cells=sum(report.checked_cells for report in reports),
    )


def _merged_columns(columns: Sequence[ColumnReport]) -> ColumnReport:
    scanned = sum(column.scanned for column in columns)
    entities: dict[str, list[EntityReport]] = {}
    for column in columns:
        for entity in column.entities:
            entities.setdefault(entity.entity_type, []).append(entity)
    types = dict.fromkeys(column.type for column in columns)
    return ColumnReport(
        column=columns[0].column,
        type=" or ".join(types),
        scanned=scanned,
        nulls=sum(column.nulls for column in columns),
        skipped=sum(column.skipped for column in columns),
        cells_with_findings=sum(column.cells_with_findings for column in columns),
        entities=tuple(_merged_entities(found, scanned) for _, found in sorted(entities.items())),
    )


def _merged_entities(found: Sequence[EntityReport], scanned: int) -> EntityReport:
    cells = sum(one.cells for one in found)
    return EntityReport(
        entity_type=found[0].entity_type,
        findings=sum(one.findings for one in found),
        cells=cells,
        share=round(cells / scanned, 6) if scanned else 0.0,
        score_min=min(one.score_min for one in found),
        score_max=max(one.score_max for one in found),
    )


def _sampled_rows(batches: Iterable[Sequence[dict[str, Any]]], rows: int) -> list[dict[str, Any]]:
    """Return `rows` objects from all over, each with the same chance, and the first few with each key."""
    dice = random.Random(0)  # noqa: S311  # a sample that can be drawn again
    kept: list[dict[str, Any]] = []
    first: list[dict[str, Any]] = []
    seen = 0
    with_key: dict[str, int] = {}
    for batch in batches:
        for row in batch:
            new = [key for key, value in row.items() if value is not None and with_key.get(key, 0) < ENOUGH]
            for key in new:
                with_key[key] = with_key.get(key, 0) + 1
            if new or row.keys() - with_key.keys():
                with_key.update((key, 0) for key in row.keys() - with_key.keys())
                first.append(row)
                continue
            place = len(kept) if len(kept) < rows else dice.randrange(seen + 1)
            if place < rows:
                kept[place : place + 1] = [row]
            seen += 1
    return first + kept
