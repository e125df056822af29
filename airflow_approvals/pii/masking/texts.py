"""Texts in which only what is personal is masked: plain text, and every leaf of nested values and JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from airflow_approvals.core.errors import SourceUnreadableError
from airflow_approvals.pii.cells import Gate, check_length, text_of
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.forms import placed_words
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex, find_few
from airflow_approvals.pii.masking.leaves import Leaf, parse_json, rebuild, write_json
from airflow_approvals.pii.masking.operators import Apply, compile_operator
from airflow_approvals.pii.masking.rules import ColumnRule, Treatment
from airflow_approvals.pii.masking.spans import Place, replace_regions, settle

OwnValues = Mapping[str, str]
"""What a row's own columns say, by searching form, and the entity type of each."""


Places = list[list[Place]]
"""What operators put where, leaf by leaf of one cell."""


class Finder(Protocol):
    """What finds personal data in texts: the scanner."""

    @property
    def entity_types(self) -> frozenset[str]: ...

    def find(
        self, texts: Iterable[str], context: tuple[str, ...], gate: Gate = Gate.ANYTHING
    ) -> Mapping[str, Sequence[Span]]:
        """Return the spans of each text."""


class Known(NamedTuple):
    """What is known beyond a column, and where what is learnt in it goes."""

    values: ValueIndex | None  # of the whole dataset: masked wherever they stand, found or not
    collect: ValueIndex | None


class TextMasker:
    """One column of texts.

    Found spans, what the row's own columns say, and values known from elsewhere are replaced in one step, so
    that nothing is masked twice. A number within an Arrow type that must be masked becomes null, because
    its type has no place for a word; within JSON (not `typed`) it becomes a string.
    """

    def __init__(
        self,
        rule: ColumnRule,
        keys: KeyRing,
        finder: Finder,
        known: Known,
        *,
        shapes: re.Pattern[str],
        looks: int,
        typed: bool,
    ) -> None:
        self.masked: Counter[str] = Counter()
        self._rows = 0
        self._typed = typed
        self._rule = rule
        self._finder = finder
        self._known = known
        self._shapes = shapes
        self._more_looks = looks - 1
        self._otherwise = compile_operator(rule.otherwise, keys)
        self._by_entity = {entity: compile_operator(op, keys) for entity, op in rule.by_entity.items()}
        self._leaf_rules = {
            leaf.path: (leaf.entity_type, compile_operator(leaf.operator, keys) if leaf.operator else None)
            for leaf in rule.leaves
        }

    def mask(self, values: Sequence[Any], subjects: Sequence[str], own: Sequence[OwnValues]) -> list[Any]:
        """Return the masked cells; every distinct text is looked at once, and what has changed once more.

        A model reads a masked text differently, and may now see what it missed before.
        """
        rows = range(self._rows, self._rows + len(values))
        self._rows = rows.stop
        made, places = self._look(values, rows, subjects, own, None)
        changed = [row for row, value in enumerate(made) if value != values[row]]
        for _ in range(self._more_looks):
            if not changed:
                break
            before = [made[row] for row in changed]
            earlier = [places[row] for row in changed]
            numbers, whose = [rows[row] for row in changed], [subjects[row] for row in changed]
            after, now = self._look(before, numbers, whose, [{}] * len(changed), earlier)
            for row, value, its in zip(changed, after, now, strict=True):
                made[row], places[row] = value, its
            looked = zip(changed, before, after, strict=True)
            changed = [row for row, one, other in looked if one != other]
        return made

    def _look(
        self,
        values: Sequence[Any],
        rows: Sequence[int],
        subjects: Sequence[str],
        own: Sequence[OwnValues],
        earlier: Sequence[Places] | None,
    ) -> tuple[list[Any], list[Places]]:
        """Return the masked cells and what operators put where; `earlier` says so of the look before."""
        cells = [self._opened(value) for value in values]
        found = self._find(cells, rows)
        made: list[Any] = []
        places: list[Places] = []
        for row, (value, opened) in enumerate(zip(values, cells, strict=True)):
            masking = _LeafMasking(
                self,
                found,
                rows[row],
                subjects[row],
                own[row],
                typed=self._typed and opened is value,
                earlier=earlier[row] if earlier else None,
            )
            rebuilt = rebuild(opened, masking, (self._rule.column,))
            if opened is value:
                made.append(rebuilt)
            else:
                made.append(write_json(rebuilt, value) if masking.changed else value)
            places.append(masking.places)
        return made, places

    def leaf_rule(self, leaf: Leaf) -> tuple[str, Apply | None] | None:
        """Return type and operator of a leaf that has a rule of its own."""
        return None if leaf.is_key else self._leaf_rules.get(leaf.path)

    def expected_leaf(self, leaf: Leaf, subject: str) -> str | None:
        """Return what a leaf that has an operator of its own becomes, as text."""
        whole = self.leaf_rule(leaf)
        text, _ = text_of(leaf.value)
        return whole[1](text, whole[0], subject) if whole and whole[1] and text else None

    def mask_whole(self, text: str, entity: str, apply: Apply, subject: str) -> str:
        """Return what stands for a leaf that is masked whatever is found in it."""
        if self._known.collect is not None:
            self._known.collect.add(text, entity)
        self.masked[entity] += 1
        return apply(text, entity, subject)

    def mask_found(
        self,
        text: str,
        found: Sequence[Span],
        subject: str,
        own: OwnValues,
        *,
        earlier: Sequence[Place] | None,
    ) -> tuple[str, list[Place]]:
        """Return a text without what was found in it and what is known of it, and where operators wrote."""
        rule = self._rule
        spans = [
            span
            for span in found
            if span.score >= rule.least_score and span.entity_type not in rule.leave_entities
        ]
        written = list(earlier or ())
        # A second look takes more for names than there are: these are masked here, and nowhere else.
        if self._known.collect is not None and earlier is None:
            # What lies within something longer (the domain of an address) is not a value by itself.
            for span in self._outside_written(text, settle(spans, text), written):
                self._known.collect.add(text[span.start : span.end], span.entity_type)
        regions = settle([*spans, *self._known_spans(text, own)], text)
        regions = self._outside_written(text, regions, written)
        self.masked.update(region.entity_type for region in regions)

        def replacement(piece: str, region: Span) -> str:
            apply = self._by_entity.get(region.entity_type, self._otherwise)
            return apply(piece, region.entity_type, subject)

        return replace_regions(text, regions, replacement, written)

    def _opened(self, value: Any) -> Any:
        if self._rule.treatment is Treatment.LEAVES and isinstance(value, str):
            parsed = parse_json(value)
            return value if parsed is None else parsed
        return value

    def _find(
        self, cells: Sequence[Any], rows: Sequence[int]
    ) -> Mapping[tuple[tuple[str, ...], Gate], Mapping[str, Sequence[Span]]]:
        wanted: dict[tuple[tuple[str, ...], Gate], dict[str, None]] = {}
        row = 0

        def note(leaf: Leaf) -> Any:
            text, gate = text_of(leaf.value)
            if text and self.leaf_rule(leaf) is None:
                check_length(text, self._rule.column, row)  # while it is known where it stands
                wanted.setdefault((leaf.context, gate), {})[text] = None
            return leaf.value

        for row, cell in zip(rows, cells, strict=True):  # noqa: B007  # `note` reads it
            rebuild(cell, note, (self._rule.column,))
        return {place: self._finder.find(texts, *place) for place, texts in wanted.items()}

    def _known_spans(self, text: str, own: OwnValues) -> Iterator[Span]:
        if not own and self._known.values is None:
            return
        words = placed_words(text)
        hits = list(find_few(words.words, own))
        if self._known.values is not None:
            hits += self._known.values.find(words.words)
        for first, last, entity in hits:
            if entity not in self._rule.leave_entities:
                yield Span(entity, words.starts[first], words.ends[last], 1.0)

    def _outside_written(self, text: str, regions: list[Span], written: Sequence[Place]) -> list[Span]:
        """Leave out what was masked before: masking a masked table changes nothing."""
        taken = sorted([*written, *(match.span() for match in self._shapes.finditer(text))])
        if not taken:
            return regions
        return [piece for region in regions for piece in _pieces(text, region, taken)]


def _pieces(text: str, region: Span, taken: Sequence[Place]) -> Iterator[Span]:
    """Yield what is left of a region beside what is taken: all, or at least two letters or digits."""
    start = region.start
    for first, last in [*taken, (region.end, region.end)]:
        if last < region.start or first > region.end:
            continue
        end = max(start, min(first, region.end))
        piece = text[start:end]
        if (start, end) == (region.start, region.end):
            yield region
        elif sum(map(str.isalnum, piece)) > 1:
            blanks = len(piece) - len(piece.lstrip())
            yield region._replace(start=start + blanks, end=start + len(piece.rstrip()))
        start = max(start, last)


class _LeafMasking:
    """Masks the leaves of one cell, and knows afterwards whether any of them changed, and where."""

    def __init__(
        self,
        column: TextMasker,
        found: Mapping[tuple[tuple[str, ...], Gate], Mapping[str, Sequence[Span]]],
        row: int,
        subject: str,
        own: OwnValues,
        *,
        typed: bool,
        earlier: Places | None,
    ) -> None:
        self.changed = False
        self.places: Places = []
        self._column = column
        self._found = found
        self._row = row
        self._subject = subject
        self._own = own
        self._typed = typed
        self._earlier = earlier

    def __call__(self, leaf: Leaf) -> Any:
        number = len(self.places)  # leaves come in the same order each time
        self.places.append([])
        text, gate = text_of(leaf.value)
        if text is None and isinstance(leaf.value, bytes):
            raise SourceUnreadableError(
                f"column {leaf.context[0]!r}, row {self._row} (the first is 0): holds bytes that are no "
                "text, in which nothing is found; let its rule drop it, leave it alone, or mask whole cells"
            )
        if not text:
            return leaf.value
        whole = self._column.leaf_rule(leaf)
        if whole is None:
            masked, self.places[number] = self._column.mask_found(
                text,
                self._found[leaf.context, gate].get(text, ()),
                self._subject,
                self._own,
                earlier=self._earlier[number] if self._earlier is not None else None,
            )
        elif whole[1] is None or self._earlier is not None:
            return leaf.value
        else:
            masked = self._column.mask_whole(text, whole[0], whole[1], self._subject)
        if masked == text:
            return leaf.value
        self.changed = True
        return self._in_type(leaf.value, masked)

    def _in_type(self, value: Any, masked: str) -> Any:
        if isinstance(value, str) or not self._typed:
            return masked
        return masked.encode() if isinstance(value, bytes) else None
