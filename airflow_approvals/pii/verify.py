"""The proof that masking holds: what was found in the input is looked for everywhere in the output.

Four things are done with every batch of rows, the input's beside the output's:
1. every known value is searched in every cell, leaf and key of the output, however it is written;
2. the output is scanned again, and what is found must be the operators' own making, not the input's;
3. cells that are masked whole must have changed, and with the keys at hand be exactly what the rules make of
   them; what is left alone must be what it was;
4. rows, columns, nulls and joins are held against what the rules promise.
It reads nothing that masking says of itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.pii.cells import Gate, check_length, text_of
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.cells import is_value, text_of_cell
from airflow_approvals.pii.masking.forms import joining_form
from airflow_approvals.pii.masking.known_values import ValueIndex, searching_form
from airflow_approvals.pii.masking.leaves import Leaf, parse_json, rebuild
from airflow_approvals.pii.masking.operators import (
    Generalise,
    own_shapes,
)
from airflow_approvals.pii.masking.rules import ANY, ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.masking.spans import settle
from airflow_approvals.pii.masking.tables import Columns, TableMasker
from airflow_approvals.pii.masking.texts import Finder
from airflow_approvals.pii.verify_joins import Joins
from airflow_approvals.pii.verify_report import ROWS_NAMED, Found, Leak, VerifyReport
from airflow_approvals.pii.verify_traces import Before, outside, texts_in


class _Cleared(NamedTuple):
    """Texts within one cell that need no search, or none for dates."""

    proven: set[str]  # computed again, and the same
    left: set[str]  # left alone by a rule, and as they were


class Verifier:
    """Holds masked rows against the rows they were made from, batch by batch, in order.

    `masker` has the rules; give it the keys that the data was masked under, and every cell that is masked
    whole is computed again. `known` holds what was found in the input.
    """

    def __init__(
        self, rules: MaskingRules, known: ValueIndex, finder: Finder, *, masker: TableMasker | None = None
    ) -> None:
        self._rules = rules
        self._known = known
        self._finder = finder
        self._masker = masker
        self._shapes = own_shapes(
            rules.entity_types | finder.entity_types | known.entity_types, rules.every_operator
        )
        self._rows = 0
        self._counts: Counter[tuple[str, str, Found]] = Counter()
        self._named: dict[tuple[str, str, Found], list[int]] = {}
        self._broken: dict[str, None] = {}
        self._joins = {rule.column: Joins() for rule in rules.columns if Joins.are_promised_by(rule)}

    def check_batch(self, source: Columns, masked: Columns) -> None:
        """Check some rows; both must hold the same rows in the same order."""
        self._rules.check_columns(list(source))
        kept = [name for name in source if self._rules.by_column[name].treatment is not Treatment.DROP]
        if list(masked) != kept:
            self.break_promise("the columns of the output are not those that the rules keep, in their order")
        sizes = {len(values) for values in (*source.values(), *masked.values())}
        if len(sizes) > 1:
            raise InvalidRequestError("a batch of the input was held against other rows of the output")
        rows = sizes.pop() if sizes else 0
        subjects = self._masker.subjects(source, rows) if self._masker else [""] * rows
        for name, values in masked.items():
            rule = self._rules.by_column.get(name)
            if rule is None or name not in source:
                self._search_column(name, values, [True] * rows)
                continue  # no rule allows it; every cell of it is suspect
            self._check_column(rule, source[name], values, subjects)
        self._rows += rows

    def break_promise(self, sentence: str) -> None:
        """Note a promise about the whole that does not hold; column names and counts only."""
        self._broken[sentence] = None

    def report(self) -> VerifyReport:
        """Return what was found so far."""
        for column, joins in self._joins.items():
            if not joins.hold():
                self.break_promise(f"column {column!r} does not join any more as it did")
        entities: Counter[str] = Counter()
        for (_, entity, _), count in self._counts.items():
            entities[entity] += count
        leaks = tuple(
            Leak(column=column, entity_type=entity, found=found, count=count, rows=tuple(self._named[key]))
            for key, count in sorted(self._counts.items())
            for column, entity, found in [key]
        )
        return VerifyReport(
            scanned=True,
            verified=not leaks and not self._broken and self._rows > 0,
            residual=sum(entities.values()),
            entities=dict(sorted(entities.items())),
            columns=tuple(sorted({leak.column for leak in leaks})),
            leaks=leaks,
            broken=tuple(self._broken),
            rows=self._rows,
            values_searched=len(self._known),
            values_too_short=self._known.short_values,
            rules_digest=self._rules.digest,
        )

    def _check_column(
        self, rule: ColumnRule, source: Sequence[Any], masked: Sequence[Any], subjects: Sequence[str]
    ) -> None:
        self._check_nulls(rule, source, masked)
        if rule.treatment is Treatment.LEAVE:
            changed = [not _same(one, other) for one, other in zip(source, masked, strict=True)]
            for row, is_changed in enumerate(changed):
                if is_changed:
                    self._note(rule.column, "UNKNOWN", Found.ALTERED, row)
            self._search_column(rule.column, masked, changed, rule, untouched=True)
            self._rescan(rule, source, masked)
        elif rule.treatment is Treatment.CELL:
            suspect = self._check_cells(rule, source, masked, subjects)
            self._search_column(rule.column, masked, suspect, rule)
            if self._masker is None:
                self._rescan(rule, source, masked)
        else:
            cleared = self._check_leaves(rule, source, masked, subjects)
            self._search_column(rule.column, masked, [True] * len(masked), rule, cleared=cleared)
            self._rescan(rule, source, masked)

    def _check_nulls(self, rule: ColumnRule, source: Sequence[Any], masked: Sequence[Any]) -> None:
        if any((one is None) != (other is None) for one, other in zip(source, masked, strict=True)):
            self.break_promise(f"column {rule.column!r} has nulls in other rows than before")

    def _check_cells(
        self, rule: ColumnRule, source: Sequence[Any], masked: Sequence[Any], subjects: Sequence[str]
    ) -> list[bool]:
        """Return for each cell whether it is not proven to be what the rules make of it."""
        suspect = []
        joins = self._joins.get(rule.column)
        for row, (before, after) in enumerate(zip(source, masked, strict=True)):
            one, other = text_of_cell(before) or "", text_of_cell(after) or ""
            if joins is not None and one:
                joins.add(joining_form(one), other)
            same = bool(one) and joining_form(one) == joining_form(other)
            is_fair = isinstance(rule.operator, Generalise) or not searching_form(one)
            if same and not is_fair and not self._shapes.fullmatch(other):
                self._note(rule.column, rule.entity_type, Found.UNCHANGED, row)
            is_expected = self._masker is not None and _same(
                after, self._masker.expected_cell(rule.column, before, subjects[row])
            )
            if self._masker is not None and not is_expected:
                self._note(rule.column, rule.entity_type, Found.ALTERED, row)
            suspect.append(not is_expected or (same and not is_fair))
        return suspect

    def _check_leaves(
        self, rule: ColumnRule, source: Sequence[Any], masked: Sequence[Any], subjects: Sequence[str]
    ) -> list[_Cleared]:
        """Return for each cell the texts of leaves that are what their own rule makes of them."""
        cleared = [_Cleared(set(), set()) for _ in masked]
        rules = {leaf.path: leaf for leaf in rule.leaves}
        if not rules:
            return cleared
        for row, (before, after) in enumerate(zip(source, masked, strict=True)):
            one, other = _leaves(before, rule), _leaves(after, rule)
            if [leaf.path for leaf in one] != [leaf.path for leaf in other]:
                self._note(rule.column, "UNKNOWN", Found.ALTERED, row)
                continue
            for leaf, made in zip(one, other, strict=True):
                own = rules.get(leaf.path)
                if leaf.is_key or own is None or not is_value(leaf.value):
                    continue
                if own.operator is not None:
                    entity = own.entity_type
                    self._check_leaf(rule, entity, (leaf, made), row, subjects[row], cleared[row].proven)
                elif _same(leaf.value, made.value):
                    cleared[row].left.add(text_of_cell(made.value) or "")
                else:
                    self._note(rule.column, "UNKNOWN", Found.ALTERED, row)
        return cleared

    def _check_leaf(
        self,
        rule: ColumnRule,
        entity: str,
        leaves: tuple[Leaf, Leaf],
        row: int,
        subject: str,
        proven: set[str],
    ) -> None:
        before, after = (text_of_cell(leaf.value) or "" for leaf in leaves)
        same = joining_form(before) == joining_form(after)
        if same and searching_form(before) and not self._shapes.fullmatch(after):
            self._note(rule.column, entity, Found.UNCHANGED, row)
        elif self._masker is not None:
            if self._masker.expected_leaf(rule.column, leaves[0], subject) in (after, after or None):
                proven.add(after)
            elif leaves[1].value is not None:  # a number within an Arrow type becomes null
                self._note(rule.column, entity, Found.ALTERED, row)

    # --- the exact search ----------------------------------------------------------------------------------

    def _search_column(
        self,
        column: str,
        masked: Sequence[Any],
        suspect: Sequence[bool],
        rule: ColumnRule | None = None,
        *,
        untouched: bool = False,
        cleared: Sequence[_Cleared] | None = None,
    ) -> None:
        """Search every cell that is suspect; of untouched columns the others too, but for dates.

        Dates are few: that one stands in what is left alone says nothing about a person.
        """
        may_stay = rule.leave_entities if rule else ()
        for row, value in enumerate(masked):
            if not is_value(value) or not (suspect[row] or untouched):
                continue
            found = self._entities_in(value, cleared[row] if cleared else _Cleared(set(), set()))
            for entity in found.difference(may_stay):
                if suspect[row] or entity != "DATE_TIME":
                    self._note(column, entity, Found.SURVIVES, row)

    def _entities_in(self, value: Any, cleared: _Cleared) -> set[str]:
        if isinstance(value, date):
            return set(self._known.find_whole(str(value)))
        found: set[str] = set()
        for text in texts_in(value):
            if text in cleared.left:
                found |= self._entities_of(text) - {"DATE_TIME"}
            elif text not in cleared.proven:
                found |= self._entities_of(text)
        return found

    def _entities_of(self, text: str) -> set[str]:
        """Search between what operators left behind: a value cannot reach across it."""
        found: set[str] = set()
        start = 0
        for shape in self._shapes.finditer(text):
            found.update(self._known.find_in_text(text[start : shape.start()]))
            start = shape.end()
        found.update(self._known.find_in_text(text[start:]))
        return found

    # --- the second scan ---------------------------------------------------------------------------------

    def _rescan(self, rule: ColumnRule, source: Sequence[Any], masked: Sequence[Any]) -> None:
        if ANY in rule.leave_entities:
            return
        wanted: dict[tuple[tuple[str, ...], Gate], dict[str, list[int]]] = {}
        skip = {leaf.path for leaf in rule.leaves}  # left alone, or held against their own rule
        for row, value in enumerate(masked):
            for leaf in _leaves(value, rule):
                text, gate = text_of(leaf.value)
                if text and (leaf.is_key or leaf.path not in skip):
                    check_length(text, rule.column, self._rows + row)
                    wanted.setdefault((leaf.context, gate), {}).setdefault(text, []).append(row)
        for (context, gate), texts in wanted.items():
            for text, spans in self._finder.find(texts, context, gate).items():
                left = settle((span for span in spans if self._counts_as_left(rule, span)), text)
                if left:
                    self._note_left(rule, text, left, [(row, source[row]) for row in texts[text]])

    def _note_left(
        self, rule: ColumnRule, text: str, left: Sequence[Span], sources: Sequence[tuple[int, Any]]
    ) -> None:
        """Note of every row what stood in it before, not what an operator put there."""
        shapes = [shape.span() for shape in self._shapes.finditer(text)]
        for row, source in sources:
            before = Before(source)
            for span in left:
                if before.holds(outside(text, span, shapes), rule, span.entity_type):
                    self._note(rule.column, span.entity_type, Found.RESCAN, row)

    def _counts_as_left(self, rule: ColumnRule, span: Span) -> bool:
        return span.score >= rule.least_score and span.entity_type not in rule.leave_entities

    def _note(self, column: str, entity: str, found: Found, row: int) -> None:
        key = column, entity, found
        self._counts[key] += 1
        rows = self._named.setdefault(key, [])
        number = self._rows + row
        if len(rows) < ROWS_NAMED and number not in rows:
            rows.append(number)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and bool(one == other)


def _leaves(value: Any, rule: ColumnRule) -> list[Leaf]:
    opened = value
    if rule.treatment is Treatment.LEAVES and isinstance(value, str):
        parsed = parse_json(value)
        opened = value if parsed is None else parsed
    found: list[Leaf] = []

    def visit(leaf: Leaf) -> Any:
        found.append(leaf)
        return leaf.value

    rebuild(opened, visit, (rule.column,))
    return found
