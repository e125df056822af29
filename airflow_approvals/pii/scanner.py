"""The engine's face: record batches in, findings out, every distinct text once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import CellTooLongError
from airflow_approvals.pii.analyzer import load_analyzer
from airflow_approvals.pii.cells import ColumnTexts, Gate, TextGroup, texts_of_batch
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.engine import PresidioEngine, Spans, TextEngine
from airflow_approvals.pii.findings import BatchFindings, ColumnFindings, Finding, Span

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

LONGEST_CELL = 1_000_000  # characters; spaCy refuses more (E088), because memory grows with them
REMEMBERED_CHARS = 2_000  # longer texts hardly come twice


class Scanner:
    """Finds in tables what Presidio finds in texts."""

    def __init__(self, config: ScanConfig | None = None) -> None:
        self.config = config or ScanConfig()
        self.analyzer = load_analyzer(self.config)
        self._engine: TextEngine = PresidioEngine(self.analyzer, self.config.language)
        self._gates = _gates(self.analyzer, self.config.language)
        self._remembered: OrderedDict[tuple[tuple[str, ...], Gate, str], Spans] = OrderedDict()

    def scan_batches(self, batches: Iterable[Any]) -> Iterator[BatchFindings]:
        """Yield the findings of each `pyarrow.RecordBatch`, in order.

        Raise `CellTooLongError` for a cell that is too long, `SchemaMismatchError` for columns of one name.
        """
        first_row = 0
        for batch in batches:
            yield self.scan_batch(batch, first_row=first_row)
            first_row += batch.num_rows

    def scan_batch(self, batch: Any, *, first_row: int = 0) -> BatchFindings:
        """Return the findings of one `pyarrow.RecordBatch` whose first row is number `first_row`."""
        columns = tuple(
            self._scan_column(texts, first_row) for texts in texts_of_batch(batch, typed=self.config.typed)
        )
        return BatchFindings(first_row=first_row, rows=batch.num_rows, columns=columns)

    def scan_cells(self, column: str, values: Sequence[str]) -> list[list[Finding]]:
        """Return the findings of each text as if it stood in `column`; `row` counts from 0."""
        for row, value in enumerate(values):
            _check_length(value, column, row)
        spans = self._spans((column,), Gate.ANYTHING, values)
        return [[_finding(column, row, span) for span in spans[value]] for row, value in enumerate(values)]

    def _scan_column(self, texts: ColumnTexts, first_row: int) -> ColumnFindings:
        findings = [
            finding for group in texts.groups for finding in self._scan_group(texts.column, group, first_row)
        ]
        findings.sort(
            key=lambda found: (found.row, found.path, found.leaf_key)
        )  # stable: spans stay in order
        return ColumnFindings(
            column=texts.column,
            type=texts.type,
            scanned=texts.scanned,
            nulls=texts.nulls,
            skipped=texts.skipped,
            findings=tuple(findings),
        )

    def _scan_group(self, column: str, group: TextGroup, first_row: int) -> Iterator[Finding]:
        for text, places in group.places.items():
            _check_length(text, column, first_row + places[0].row)
        spans = self._spans(group.context, group.gate, group.places)
        for text, places in group.places.items():
            for place in places:
                for span in spans[text]:
                    yield _finding(column, first_row + place.row, span, place.path, leaf_key=place.leaf_key)

    def _spans(self, context: tuple[str, ...], gate: Gate, texts: Iterable[str]) -> dict[str, Spans]:
        """Return the spans of every distinct text, from memory where it came before with the same context."""
        known: dict[str, Spans] = {}
        unknown: list[str] = []
        for text in dict.fromkeys(texts):
            found = self._remembered.get((context, gate, text))
            if found is None:
                unknown.append(text)
            else:
                self._remembered.move_to_end((context, gate, text))
                known[text] = found
        if unknown:
            for text, spans in zip(
                unknown, self._engine.spans(unknown, context, self._gates[gate]), strict=True
            ):
                known[text] = spans
                if len(text) <= REMEMBERED_CHARS:
                    self._remembered[context, gate, text] = spans
            while len(self._remembered) > self.config.remembered_values:
                self._remembered.popitem(last=False)
        return known


def _gates(analyzer: AnalyzerEngine, language: str) -> dict[Gate, frozenset[str] | None]:
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    supported = frozenset(analyzer.get_supported_entities(language))
    named = {
        entity
        for recognizer in analyzer.registry.get_recognizers(language=language, all_fields=True)
        if isinstance(recognizer, SpacyRecognizer)
        for entity in recognizer.supported_entities
    }
    return {
        Gate.ANYTHING: None,
        Gate.NUMBERED: supported - named - {"DATE_TIME"},
        Gate.TEMPORAL: supported & {"DATE_TIME"},
    }


def _check_length(text: str, column: str, row: int) -> None:
    if len(text) > LONGEST_CELL:
        raise CellTooLongError(
            f"column {column!r}, row {row}: {len(text)} characters in one cell; "
            f"at most {LONGEST_CELL} can be scanned; split it, or let the masking plan drop the column"
        )


def _finding(column: str, row: int, span: Span, path: str = "", *, leaf_key: bool = False) -> Finding:
    return Finding(
        column=column,
        row=row,
        entity_type=span.entity_type,
        start=span.start,
        end=span.end,
        score=span.score,
        path=path,
        leaf_key=leaf_key,
    )
