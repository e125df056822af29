"""All of Presidio's regular-expression recognizers over one text, each run only where it could match.

What `PatternRecognizer.analyze` does is done here without the explanations it builds along the way: find,
validate, invalidate, drop duplicates. A recognizer with an `analyze` of its own is called itself.

Source: presidio_analyzer/pattern_recognizer.py, `__analyze_patterns`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.pii.duplicates import without_duplicates
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.prefilter import PRINTABLE_ASCII, build_prefilter

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer


class Hit(NamedTuple):
    """A span, and the number of the recognizer that found it, before context and thresholds."""

    recognizer: int
    span: Span


class PatternScan:
    """The pattern recognizers among those of an analyzer."""

    def __init__(self, recognizers: Sequence[tuple[int, Any]], entities: Sequence[str]) -> None:
        """Take (number, recognizer) pairs for which `is_pattern_recognizer` holds."""
        self._recognizers = recognizers
        self._entities = list(entities)
        self._steps: list[tuple[int, int]] = []  # (place in self._recognizers, number of its pattern)
        expressions: list[tuple[str, int]] = []
        for place, (_, recognizer) in enumerate(recognizers):
            for number, pattern in enumerate(recognizer.patterns):
                self._steps.append((place, number))
                expressions.append((pattern.regex, int(recognizer.global_regex_flags)))
        self._prefilter = build_prefilter(expressions)
        self.prefilter = self._prefilter.name if self._prefilter else "none"

    def hits(self, text: str) -> list[Hit]:
        """Return what the recognizers find in one text."""
        steps: Sequence[int] = range(len(self._steps))
        if self._prefilter is not None and PRINTABLE_ASCII.match(text):
            steps = self._prefilter.candidates(text)
        if not steps:
            return []
        by_recognizer: dict[int, list[int]] = {}
        for step in steps:
            place, pattern = self._steps[step]
            by_recognizer.setdefault(place, []).append(pattern)
        found: list[Hit] = []
        for place, patterns in by_recognizer.items():
            number, recognizer = self._recognizers[place]
            found.extend(Hit(number, span) for span in self._spans(recognizer, patterns, text))
        return found

    def _spans(self, recognizer: Any, patterns: Sequence[int], text: str) -> Sequence[Span]:
        if not _is_plain(recognizer):
            return [
                Span(result.entity_type, result.start, result.end, result.score)
                for result in recognizer.analyze(text=text, entities=self._entities, nlp_artifacts=None)
            ]
        spans = [
            span for pattern in patterns for span in _matches(recognizer, recognizer.patterns[pattern], text)
        ]
        return without_duplicates(spans) if spans else spans


def is_pattern_recognizer(recognizer: EntityRecognizer) -> bool:
    """Tell whether this recognizer finds nothing in a text in which none of its patterns matches."""
    from presidio_analyzer import PatternRecognizer
    from presidio_analyzer.predefined_recognizers import IbanRecognizer

    # IBANs: its own `analyze` cuts what its pattern matched.
    return isinstance(recognizer, PatternRecognizer) and (
        _is_plain(recognizer) or type(recognizer) is IbanRecognizer
    )


def _is_plain(recognizer: Any) -> bool:
    from presidio_analyzer import PatternRecognizer

    return type(recognizer).analyze is PatternRecognizer.analyze and "analyze" not in vars(recognizer)


def _matches(recognizer: Any, pattern: Any, text: str) -> Iterator[Span]:
    flags = recognizer.global_regex_flags
    if not pattern.compiled_regex or pattern.compiled_with_flags != flags:
        import regex

        pattern.compiled_with_flags = flags
        pattern.compiled_regex = regex.compile(pattern.regex, flags=flags)
    for start, end in _places(recognizer, pattern, text):
        matched = text[start:end]
        if not matched:
            continue
        score = pattern.score
        valid = recognizer.validate_result(matched)
        if valid is not None:
            score = recognizer.MAX_SCORE if valid else recognizer.MIN_SCORE
        if recognizer.invalidate_result(matched):
            score = recognizer.MIN_SCORE
        if score > recognizer.MIN_SCORE:
            yield Span(recognizer.supported_entities[0], start, end, score)


def _places(recognizer: Any, pattern: Any, text: str) -> Iterator[tuple[int, int]]:
    from presidio_analyzer.pattern_recognizer import REGEX_TIMEOUT_SECONDS

    try:
        for match in pattern.compiled_regex.finditer(text, timeout=REGEX_TIMEOUT_SECONDS):
            yield match.span()
    except TimeoutError as error:
        # Presidio writes a log line and goes on without the pattern: a cell would pass that nobody has
        # looked at.
        raise ConfigurationError(
            f"pattern {pattern.name!r} of {recognizer.name} took longer than {REGEX_TIMEOUT_SECONDS} s "
            "for one text; simplify the pattern, or raise REGEX_TIMEOUT_SECONDS"
        ) from error
