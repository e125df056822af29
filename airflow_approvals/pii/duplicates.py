"""Presidio's rule for overlapping results of one type.

Source: presidio_analyzer/entity_recognizer.py, `remove_duplicates`.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_approvals.pii.findings import Span


def without_duplicates(spans: Iterable[Span]) -> list[Span]:
    """Drop spans of score 0, and spans inside one of the same type that scores as high or higher."""
    kept: list[Span] = []
    active: list[Span] = []
    for span in sorted(set(spans), key=_by_type_then_widest):
        if span.score == 0:
            continue
        active = [
            other for other in active if other.entity_type == span.entity_type and other.end >= span.start
        ]
        if any(
            span.start >= other.start and span.end <= other.end and span.score <= other.score
            for other in active
        ):
            continue
        kept.append(span)
        active.append(span)
    return kept


def _by_type_then_widest(span: Span) -> tuple[str, int, int, float]:
    return span.entity_type, span.start, span.start - span.end, -span.score
