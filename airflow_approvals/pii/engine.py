"""Texts in, spans out: what an engine promises, and the one that simply asks Presidio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from airflow_approvals.pii.findings import Span

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

Spans = tuple[Span, ...]
"""Ordered by place, then type, then score."""


class TextEngine(Protocol):
    """Finds exactly what `AnalyzerEngine.analyze(text, language, context=context)` finds."""

    def spans(
        self, texts: Sequence[str], context: tuple[str, ...], entities: frozenset[str] | None = None
    ) -> list[Spans]:
        """Return the spans of each text; `entities` keeps only these types (None: all)."""


class PresidioEngine:
    """Presidio itself, one text at a time: the measure, and the way for whatever has no proven shortcut."""

    def __init__(self, analyzer: AnalyzerEngine, language: str) -> None:
        self._analyzer = analyzer
        self._language = language

    def spans(
        self, texts: Sequence[str], context: tuple[str, ...], entities: frozenset[str] | None = None
    ) -> list[Spans]:
        """Return what `AnalyzerEngine.analyze` finds."""
        return [
            in_order(
                Span(result.entity_type, result.start, result.end, result.score)
                for result in self._analyzer.analyze(text, self._language, context=list(context))
                if entities is None or result.entity_type in entities
            )
            for text in texts
        ]


def in_order(spans: Iterable[Span]) -> Spans:
    """Return the distinct spans in the one order that all engines share."""
    return tuple(sorted(set(spans), key=_place))


def _place(span: Span) -> tuple[int, int, str, float]:
    return span.start, span.end, span.entity_type, span.score
