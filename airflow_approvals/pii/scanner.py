"""The engine's face: record batches in, findings out, every distinct text once."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_approvals.pii.analyzer import load_analyzer
from airflow_approvals.pii.cells import (
    ColumnTexts,
    Gate,
    TextGroup,
    check_length,
    rows_at_a_time,
    texts_of_batch,
)
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.disguises import found_beneath, undisguised
from airflow_approvals.pii.engine import PresidioEngine, Spans, TextEngine
from airflow_approvals.pii.findings import BatchFindings, ColumnFindings, Finding
from airflow_approvals.pii.self_check import check_sample, check_text

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

log = logging.getLogger(__name__)

REMEMBERED_CHARS = 2_000  # longer texts hardly come twice
CHECKED_SHARE = 4  # of the checks that are left, one in so many is done in a batch: early, and to the end

Context = tuple[str, ...]


class Found(NamedTuple):
    """What is in one text: Presidio's findings, and numbers in disguise beside them."""

    exact: Spans
    beneath: Spans = ()


class Scanner:
    """Finds in tables what Presidio finds in texts. The model is loaded when it is first needed."""

    def __init__(self, config: ScanConfig | None = None) -> None:
        self.config = config or ScanConfig()
        self._remembered: OrderedDict[tuple[Context, Gate, str], Found] = OrderedDict()
        self._checks_left = self.config.exact_check
        self._checks_now = 0

    @cached_property
    def analyzer(self) -> AnalyzerEngine:
        """The analyzer that all findings are measured against."""
        return load_analyzer(self.config)

    @property
    def entity_types(self) -> frozenset[str]:
        """Every type that a finding can have."""
        return frozenset(self.analyzer.get_supported_entities(self.config.language))

    @property
    def path(self) -> str:
        """How findings are come by, in words: it depends on the configuration and on what is installed."""
        return self._engine.path

    def scan_batches(self, batches: Iterable[Any]) -> Iterator[BatchFindings]:
        """Yield the findings of `pyarrow.RecordBatch`es in order, `config.batch_rows` rows at a time.

        Raise `CellTooLongError` for a cell that is too long, `SchemaMismatchError` for columns of one name,
        `FindingsDifferError` where a check fails, `WorkerLostError` where rows end worker after worker.
        """
        sliced = _sliced(batches, self.config.batch_rows)
        if self.config.workers > 1:
            from airflow_approvals.pii.workers import scan_in_workers

            yield from scan_in_workers(Scanner, self.config, sliced)
            return
        first_row = 0
        for batch in sliced:
            yield self.scan_batch(batch, first_row=first_row)
            first_row += batch.num_rows

    def scan_batch(self, batch: Any, *, first_row: int = 0) -> BatchFindings:
        """Return the findings of one `pyarrow.RecordBatch` whose first row is number `first_row`."""
        self._checks_now = -(-self._checks_left // CHECKED_SHARE)
        before = self._checks_left
        columns = tuple(
            self._scan_column(texts, first_row)
            for texts in texts_of_batch(batch, typed=self.config.typed, first_row=first_row)
        )
        return BatchFindings(
            first_row=first_row, rows=batch.num_rows, columns=columns, checked=before - self._checks_left
        )

    def scan_cells(self, column: str, values: Sequence[str]) -> list[list[Finding]]:
        """Return the findings of each text as if it stood in `column`; `row` counts from 0."""
        for row, value in enumerate(values):
            check_length(value, column, row)
        found = self._find(values, (column,), Gate.ANYTHING)
        return [list(_findings(column, row, found[value])) for row, value in enumerate(values)]

    def find(self, texts: Iterable[str], context: Context, gate: Gate = Gate.ANYTHING) -> dict[str, Spans]:
        """Return all spans of each text; `context` is the column's name, then the field names to the leaf."""
        distinct = list(dict.fromkeys(texts))
        for text in distinct:
            check_length(text, context[0])
        return {
            text: found.exact + found.beneath for text, found in self._find(distinct, context, gate).items()
        }

    @cached_property
    def _engine(self) -> TextEngine:
        from airflow_approvals.pii.exact import ExactEngine, find_obstacle

        language = self.config.language
        obstacle = find_obstacle(self.analyzer, language) if self.config.fast else "it was asked for"
        if obstacle is not None:
            log.info("every text goes through Presidio itself: %s", obstacle)
            return PresidioEngine(self.analyzer, language)
        engine = ExactEngine(self.analyzer, language)
        check_sample(engine, self.analyzer, language)
        return engine

    @cached_property
    def _gates(self) -> dict[Gate, frozenset[str] | None]:
        return _gates(self.analyzer, self.config.language)

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
            check_length(text, column, first_row + places[0].row)
        for text, found in self._find(group.places, group.context, group.gate).items():
            for place in group.places[text]:
                yield from _findings(column, first_row + place.row, found, place.path, place.leaf_key)

    def _find(self, texts: Iterable[str], context: Context, gate: Gate) -> dict[str, Found]:
        """Return what is in every distinct text, from memory where it came before with the same context."""
        known: dict[str, Found] = {}
        unknown: list[str] = []
        for text in dict.fromkeys(texts):
            found = self._remembered.get((context, gate, text))
            if found is None:
                unknown.append(text)
            else:
                self._remembered.move_to_end((context, gate, text))
                known[text] = found
        if unknown:
            for text, found in zip(unknown, self._find_new(unknown, context, gate), strict=True):
                known[text] = found
                if len(text) <= REMEMBERED_CHARS:
                    self._remembered[context, gate, text] = found
            while len(self._remembered) > self.config.remembered_values:
                self._remembered.popitem(last=False)
        return known

    def _find_new(self, texts: list[str], context: Context, gate: Gate) -> list[Found]:
        entities = self._gates[gate]
        exact = self._engine.spans(texts, context, entities)
        self._check_some(texts, exact, context, entities)
        if not self.config.normalise_digits:
            return [Found(spans) for spans in exact]
        return [
            Found(spans, self._beneath(text, spans, context))
            for text, spans in zip(texts, exact, strict=True)
        ]

    def _beneath(self, text: str, known: Spans, context: Context) -> Spans:
        plain = undisguised(text)
        if plain is None:
            return ()
        (spans,) = self._engine.spans([plain[0]], context, self._gates[Gate.NUMBERED])
        return found_beneath(spans, plain[1], known)

    def _check_some(
        self, texts: list[str], exact: list[Spans], context: Context, entities: frozenset[str] | None
    ) -> None:
        """Ask Presidio about a few of these texts, evenly spread."""
        wanted = min(self._checks_now, -(-self._checks_now // 4), len(texts))
        for step in range(wanted):
            number = step * len(texts) // wanted
            check_text(
                self.analyzer,
                self.config.language,
                texts[number],
                context,
                exact[number],
                f"column {context[0]!r}",
                entities,
            )
        self._checks_now -= wanted
        self._checks_left -= wanted


def _sliced(batches: Iterable[Any], most_rows: int) -> Iterator[Any]:
    for batch in batches:
        rows = min(most_rows, rows_at_a_time(batch.num_columns))
        for first in range(0, batch.num_rows, rows):
            yield batch.slice(first, rows)


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


def _findings(
    column: str, row: int, found: Found, path: str = "", leaf_key: bool = False
) -> Iterator[Finding]:
    for spans, normalised in ((found.exact, False), (found.beneath, True)):
        for span in spans:
            yield Finding(
                column=column,
                row=row,
                entity_type=span.entity_type,
                start=span.start,
                end=span.end,
                score=span.score,
                path=path,
                leaf_key=leaf_key,
                normalised=normalised,
            )
