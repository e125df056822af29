"""What a scan finds: places in cells, never the text that stands there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """One piece of one text: offsets count characters, as `text[start:end]`."""

    entity_type: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One span in one cell of a table."""

    column: str
    row: int  # from 0, counted over the whole dataset
    entity_type: str
    start: int
    end: int
    score: float
    path: str = ""  # JSON pointer of the leaf within a nested cell; offsets are then within that leaf
    leaf_key: bool = False  # the span is in the last key of `path` itself, not in the value there
    normalised: bool = False  # not Presidio's: a number behind other digits or invisible characters

    @property
    def span(self) -> Span:
        """The place alone."""
        return Span(self.entity_type, self.start, self.end, self.score)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnFindings:
    """What one batch holds in one column."""

    column: str
    type: str  # Arrow's word for it
    scanned: int  # cells that were looked at as text
    nulls: int
    skipped: int  # cells of a type that has no text (see `cells.py`)
    findings: tuple[Finding, ...]  # by row, then path, then place


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFindings:
    """What one record batch holds; batches come in the order of the input."""

    first_row: int
    rows: int
    columns: tuple[ColumnFindings, ...]  # in the order of the schema
    checked: int = 0  # texts that were given to Presidio as well, with the same result

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings of the batch, column by column."""
        return tuple(finding for column in self.columns for finding in column.findings)
