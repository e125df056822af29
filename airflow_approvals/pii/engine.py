"""Texts in, spans out: what an engine promises, and the one that simply asks Presidio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from airflow_approvals.pii.findings import Span

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

BATCH = 256  # texts

Spans = tuple[Span, ...]
"""Ordered by place, then type, then score."""


class TextEngine(Protocol):
    """Finds exactly what `AnalyzerEngine.analyze(text, language, context=context)` finds."""

    path: str
    """How, in words for a report."""

    def spans(
        self, texts: Sequence[str], context: tuple[str, ...], entities: frozenset[str] | None = None
    ) -> list[Spans]:
        """Return the spans of each text; `entities` keeps only these types (None: all)."""


class PresidioEngine:
    """Presidio itself, one text at a time: the measure, and the way for whatever has no proven shortcut."""

    def __init__(self, analyzer: AnalyzerEngine, language: str) -> None:
        self._analyzer = analyzer
        self._language = language
        self.path = "presidio"

    def spans(
        self, texts: Sequence[str], context: tuple[str, ...], entities: frozenset[str] | None = None
    ) -> list[Spans]:
        """Return what `AnalyzerEngine.analyze` finds; the language model runs in batches."""
        with self._zone():
            prepared = self._analyzer.nlp_engine.process_batch(texts, self._language, batch_size=BATCH)
            return [
                in_order(
                    Span(result.entity_type, result.start, result.end, result.score)
                    for result in self._analyzer.analyze(
                        text, self._language, context=list(context), nlp_artifacts=artifacts
                    )
                    if entities is None or result.entity_type in entities
                )
                for text, (_, artifacts) in zip(texts, prepared, strict=True)
            ]

    def _zone(self) -> AbstractContextManager[object]:
        """Free what spaCy learns of new words along the way, where the engine is spaCy."""
        models = getattr(self._analyzer.nlp_engine, "nlp", None)
        nlp = models.get(self._language) if isinstance(models, dict) else None
        return nlp.memory_zone() if nlp is not None and hasattr(nlp, "memory_zone") else nullcontext()


def in_order(spans: Iterable[Span]) -> Spans:
    """Return the distinct spans in the one order that all engines share."""
    return tuple(sorted(set(spans), key=_place))


def _place(span: Span) -> tuple[int, int, str, float]:
    return span.start, span.end, span.entity_type, span.score
