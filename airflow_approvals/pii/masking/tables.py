"""Rows in, masked rows out: every column as its rule says, the same rows in the same order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_approvals.core.errors import SchemaMismatchError
from airflow_approvals.pii.masking.cells import CellMasker, text_of_cell
from airflow_approvals.pii.masking.forms import words_of
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.leaves import Leaf
from airflow_approvals.pii.masking.operators import own_shapes
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment, check_types
from airflow_approvals.pii.masking.texts import Finder, Known, OwnValues, TextMasker

SHORTEST_OF_ROW = 3  # letters and digits: what a row's own columns say is looked for from here on
LOOKS = 3  # at most, at a text that keeps changing
Columns = Mapping[str, Sequence[Any]]


class TableMasker:
    """Applies one set of rules under one set of keys, batch by batch; what it is given is never changed.

    `collect` takes in every value that is masked, for the search that proves that none is left. `known`
    holds values of the whole dataset: they are masked wherever they stand in texts, found there or not.
    `shapes` is what was masked before; by default what these rules' operators make.
    Without `typed`, numbers within texts' columns may become texts, as JSON has it.
    """

    def __init__(
        self,
        rules: MaskingRules,
        keys: KeyRing,
        finder: Finder,
        *,
        known: ValueIndex | None = None,
        collect: ValueIndex | None = None,
        looks: int = LOOKS,
        shapes: re.Pattern[str] | None = None,
        typed: bool = True,
    ) -> None:
        known_types = rules.entity_types_of_values | finder.entity_types
        for rule in rules.columns:
            check_types(f"column {rule.column!r}: by_entity", rule.by_entity, known_types)
        self.rules = rules
        self.rows = 0
        self._collect = collect
        self._masked: Counter[tuple[str, str]] = Counter()
        shapes = shapes or shapes_of(rules, finder)
        self._cells = {
            rule.column: CellMasker(rule, keys) for rule in rules.columns if rule.treatment is Treatment.CELL
        }
        self._texts = {
            rule.column: TextMasker(
                rule, keys, finder, Known(known, collect), shapes=shapes, looks=looks, typed=typed
            )
            for rule in rules.columns
            if rule.treatment in (Treatment.TEXT, Treatment.LEAVES)
        }

    @property
    def masked(self) -> dict[str, dict[str, int]]:
        """How often each entity type was masked, by column."""
        found: dict[str, dict[str, int]] = {rule.column: {} for rule in self.rules.columns}
        for (column, entity), count in self._masked.items():
            found[column][entity] = count
        for column, texts in self._texts.items():
            found[column] = dict(texts.masked)
        return found

    def mask_columns(self, columns: Columns) -> dict[str, Sequence[Any]]:
        """Return the masked columns of some rows in their order, dropped ones left out.

        Columns that are left alone are the very objects that were given.
        """
        self.rules.check_columns(list(columns))
        sizes = {len(values) for values in columns.values()}
        if len(sizes) > 1:
            raise SchemaMismatchError("the columns of a batch have different numbers of rows")
        rows = sizes.pop() if sizes else 0
        subjects = self.subjects(columns, rows)
        own = own_values(self.rules, columns, rows) if self._texts else []
        made: dict[str, Sequence[Any]] = {}
        for name, values in columns.items():
            rule = self.rules.by_column[name]
            if name in self._texts:
                made[name] = self._texts[name].mask(values, subjects, own)
            elif name in self._cells:
                made[name] = self._mask_cells(rule, values, subjects)
            elif rule.treatment is Treatment.LEAVE:
                made[name] = values
            else:
                self._collect_cells(rule, values)
        self.rows += rows
        return made

    def expected_cell(self, column: str, value: Any, subject: str) -> Any:
        """Return what a cell of a column that is masked whole becomes."""
        return self._cells[column].mask(value, subject)

    def expected_leaf(self, column: str, leaf: Leaf, subject: str) -> str | None:
        """Return what a leaf that has an operator of its own becomes, as text."""
        return self._texts[column].expected_leaf(leaf, subject)

    def subjects(self, columns: Columns, rows: int) -> list[str]:
        """Return whose row each of them is."""
        if self.rules.subject_column is None:
            return [""] * rows
        return [text_of_cell(value) or "" for value in columns[self.rules.subject_column]]

    def _mask_cells(self, rule: ColumnRule, values: Sequence[Any], subjects: Sequence[str]) -> list[Any]:
        mask = self._cells[rule.column].mask
        made = [mask(value, subject) for value, subject in zip(values, subjects, strict=True)]
        count = sum(1 for value in values if text_of_cell(value))
        self._masked[rule.column, rule.entity_type] += count
        self._collect_cells(rule, values)
        return made

    def _collect_cells(self, rule: ColumnRule, values: Sequence[Any]) -> None:
        if self._collect is None or not rule.entity_type:
            return
        for text in {text_of_cell(value) for value in values}:
            if text:
                self._collect.add(text, rule.entity_type)


def shapes_of(rules: MaskingRules, finder: Finder) -> re.Pattern[str]:
    """Return what the rules' operators make, as far as its shape tells it."""
    return own_shapes(rules.entity_types | finder.entity_types, rules.every_operator)


def own_values(rules: MaskingRules, columns: Columns, rows: int) -> list[OwnValues]:
    """Return, row by row, what its own columns say: values that are masked or dropped, and words of names."""
    found: list[dict[str, str]] = [{} for _ in range(rows)]
    for rule in rules.columns:
        if rule.treatment not in (Treatment.CELL, Treatment.DROP) or not rule.entity_type:
            continue
        for row, value in enumerate(columns[rule.column]):
            text = text_of_cell(value)
            if text:
                _add_own(found[row], words_of(text), rule.entity_type)
    return list(found)


def _add_own(own: dict[str, str], words: Sequence[str], entity: str) -> None:
    whole = "".join(words)
    if len(whole) >= SHORTEST_OF_ROW:
        own.setdefault(whole, entity)
    if entity == "PERSON":
        for word in words:
            if len(word) >= SHORTEST_OF_ROW and word.isalpha():
                own.setdefault(word, entity)
