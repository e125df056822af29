"""Whether what a second scan finds in the output stood in the same cell of the input already."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.cells import is_value, text_of_cell
from airflow_approvals.pii.masking.forms import words_of
from airflow_approvals.pii.masking.leaves import parse_json
from airflow_approvals.pii.masking.operators import Fake, Generalise, Mask, Operator, ShiftDate
from airflow_approvals.pii.masking.rules import ColumnRule
from airflow_approvals.pii.masking.spans import Place

_COARSE = re.compile(r"\d{4}(?:-\d{2})?|\d+-\d+|90\+")


class Before:
    """The words of a cell of the input, taken once and only if they are asked for."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._known: dict[str, bool] = {}  # what was asked: the same words are found again and again

    def holds(self, pieces: Iterable[str], rule: ColumnRule, entity_type: str) -> bool:
        """Return whether a finding, of which these pieces are no operator's making, stood here already."""
        operator = rule.operator or rule.by_entity.get(entity_type, rule.otherwise)
        for piece in pieces:
            words = words_of(piece)
            form = "".join(words)
            if len(form) < 2 or _is_allowed_rest(operator, piece.strip(), form):
                continue
            if form not in self._known:
                self._known[form] = form in self._joined
            if self._known[form]:
                return True
            if isinstance(operator, (Fake, ShiftDate)):
                continue  # these keep some words of what they replace
            kept = sum(len(word) for word in words if word in self._words)
            if 2 * kept >= len(form):
                return True
        return False

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(self._all)

    @cached_property
    def _joined(self) -> str:
        return "".join(self._all)

    @cached_property
    def _all(self) -> list[str]:
        return [word for text in texts_in(self._value) for word in words_of(text)]


def outside(text: str, span: Span, shapes: Sequence[Place]) -> Iterator[str]:
    """Yield what a span covers beside what operators left in its text; `shapes` are these places in order."""
    start = span.start
    for first, last in shapes[bisect_right(shapes, start, key=lambda shape: shape[1]) :]:
        if first >= span.end:
            break
        yield text[start : max(start, first)]
        start = last
    yield text[start : max(start, span.end)]


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text of a cell: itself, or the leaves and keys of what is nested or JSON."""
    # Of a key that comes twice, other readers may see the other value: objects are read as pairs.
    nested = parse_json(value, pairs=True) if isinstance(value, str) else value
    if isinstance(nested, (dict, list)):
        yield from _nested_texts(nested)
        return
    text = text_of_cell(value)
    if text:
        yield text


def _nested_texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _nested_texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _nested_texts(inner)
    elif isinstance(value, str):
        yield from texts_in(value)  # JSON within JSON
    elif is_value(value):
        yield text_of_cell(value) or ""


def _is_allowed_rest(operator: Operator, piece: str, form: str) -> bool:
    """Return whether an operator leaves this much of what it replaces on purpose."""
    if isinstance(operator, Generalise):
        return bool(_COARSE.fullmatch(piece))
    return isinstance(operator, Mask) and len(form) <= operator.keep_last
