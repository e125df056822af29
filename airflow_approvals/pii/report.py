"""The report of a scan: counts, column names and entity types, never a value from the data.

It is made from findings as they stream by, and turned into JSON by `core.model.to_json`, so that it can stand
in an approval request and be digested with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.pii.findings import BatchFindings, ColumnFindings
from airflow_approvals.pii.masking.rules import LEAST_SCORE


@dataclass(frozen=True, kw_only=True)
class EntityReport:
    """One entity type in one column."""

    entity_type: str
    findings: int
    cells: int  # cells with at least one such finding
    share: float  # of the scanned cells
    score_min: float
    score_max: float


@dataclass(frozen=True, kw_only=True)
class ColumnReport:
    """One column."""

    column: str
    type: str
    scanned: int
    nulls: int
    skipped: int
    cells_with_findings: int
    entities: tuple[EntityReport, ...]  # by entity type

    @property
    def strong(self) -> tuple[EntityReport, ...]:
        """What scores high enough to be masked."""
        return tuple(entity for entity in self.entities if entity.score_max >= LEAST_SCORE)


@dataclass(frozen=True, kw_only=True)
class ScanReport:
    """One dataset, scanned from end to end."""

    mode: str  # exact: every cell was scanned; verification: what a verification says is there
    rows: int
    columns: tuple[ColumnReport, ...]
    findings: int
    engine: str  # Presidio's version, the model and the paths that were in use
    engine_digest: str  # of the configuration in force: recognizers, model, thresholds
    checked_cells: int = 0  # cells that were also given to AnalyzerEngine.analyze, with the same findings


@dataclass(kw_only=True)
class _EntityCount:
    findings: int = 0
    cells: int = 0
    last_row: int = -1
    score_min: float = 1.0
    score_max: float = 0.0


@dataclass(kw_only=True)
class _ColumnCount:
    type: str
    scanned: int = 0
    nulls: int = 0
    skipped: int = 0
    cells_with_findings: int = 0
    last_row: int = -1
    entities: dict[str, _EntityCount] = field(default_factory=dict)


class Tally:
    """Counts findings batch by batch; its memory grows with columns and entity types, not with rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.checked = 0
        self._columns: dict[str, _ColumnCount] = {}

    def add(self, batch: BatchFindings) -> None:
        """Count one batch; batches must come in order, each once."""
        if batch.first_row != self.rows:
            raise InvalidRequestError(
                f"findings of rows from {batch.first_row} were counted after {self.rows} rows; "
                "expected every batch once and in order"
            )
        self.rows += batch.rows
        self.checked += batch.checked
        for column in batch.columns:
            self._count(column)

    def add_all(self, batches: Iterable[BatchFindings]) -> Tally:
        """Count all of them, and return self."""
        for batch in batches:
            self.add(batch)
        return self

    def report(self, *, engine: str, engine_digest: str) -> ScanReport:
        """Return what was counted so far."""
        columns = tuple(_column_report(name, count) for name, count in self._columns.items())
        return ScanReport(
            mode="exact",
            rows=self.rows,
            columns=columns,
            findings=sum(entity.findings for column in columns for entity in column.entities),
            engine=engine,
            engine_digest=engine_digest,
            checked_cells=self.checked,
        )

    def _count(self, column: ColumnFindings) -> None:
        count = self._columns.setdefault(column.column, _ColumnCount(type=column.type))
        count.scanned += column.scanned
        count.nulls += column.nulls
        count.skipped += column.skipped
        for finding in column.findings:
            if finding.row != count.last_row:
                count.cells_with_findings += 1
                count.last_row = finding.row
            entity = count.entities.setdefault(finding.entity_type, _EntityCount())
            entity.findings += 1
            if finding.row != entity.last_row:
                entity.cells += 1
                entity.last_row = finding.row
            entity.score_min = min(entity.score_min, finding.score)
            entity.score_max = max(entity.score_max, finding.score)


def _column_report(name: str, count: _ColumnCount) -> ColumnReport:
    return ColumnReport(
        column=name,
        type=count.type,
        scanned=count.scanned,
        nulls=count.nulls,
        skipped=count.skipped,
        cells_with_findings=count.cells_with_findings,
        entities=tuple(
            EntityReport(
                entity_type=entity_type,
                findings=entity.findings,
                cells=entity.cells,
                share=round(entity.cells / count.scanned, 6) if count.scanned else 0.0,
                score_min=entity.score_min,
                score_max=entity.score_max,
            )
            for entity_type, entity in sorted(count.entities.items())
        ),
    )
