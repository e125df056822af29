"""Cells that are masked as a whole, in the type that the column has or that its rule says it gets."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from datetime import date
from typing import Any

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.pii.cells import text_of
from airflow_approvals.pii.masking import dates
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.operators import (
    Fake,
    Generalise,
    Operator,
    ShiftDate,
    compile_operator,
    needs_subject,
)
from airflow_approvals.pii.masking.rules import ColumnRule

_WIDTHS = (7, 8, 15, 16, 31, 32, 63, 64)  # bits of integers, without and with the place of a sign
REMEMBERED = 10_000  # distinct values per column whose replacement is kept


class CellMasker:
    """One column whose values are masked whole; distinct values are masked once, as far as memory goes."""

    def __init__(self, rule: ColumnRule, keys: KeyRing) -> None:
        if rule.operator is None:
            raise InvalidRequestError(f"column {rule.column!r}: masking whole cells needs an operator")
        self._rule = rule
        self._operator: Operator = rule.operator
        self._apply = compile_operator(rule.operator, keys)
        self._shift_key = (
            keys.key_for(rule.operator.domain, "shift_date") if isinstance(rule.operator, ShiftDate) else b""
        )
        self._remembered: dict[Hashable, Any] = {}

    def mask(self, value: Any, subject: str) -> Any:
        """Return what stands there instead; null, NaN and the empty text stay what they are.

        In a column that becomes text, NaN is the text of it, and no bytes are the empty text.
        """
        if not is_value(value):
            return _blank_text(value) if self._rule.becomes else value
        key: Hashable = None
        if isinstance(value, (str, int)) and not needs_subject(self._operator):
            key = type(value), value
            if key in self._remembered:
                return self._remembered[key]
        masked = self._mask(value, subject)
        if key is not None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = masked
        return masked

    def _mask(self, value: Any, subject: str) -> Any:
        rule = self._rule
        if not isinstance(value, str) and rule.becomes is None:
            return self._mask_in_type(value, subject)
        # What has no text of its own (a struct, a flag) is masked all the same.
        return self._apply(text_of_cell(value) or "", rule.entity_type, subject)

    def _mask_in_type(self, value: Any, subject: str) -> Any:
        operator = self._operator
        if isinstance(value, date):
            if isinstance(operator, ShiftDate):
                return dates.shift_day(value, dates.days_of(subject, self._shift_key, operator.most_days))
            if isinstance(operator, Generalise) and operator.to in ("year", "month"):
                return dates.generalise_day(value, to_month=operator.to == "month")
        if isinstance(value, int) and not isinstance(value, bool) and isinstance(operator, Fake):
            return _fitting(int(self._apply(str(value), self._rule.entity_type, subject)), value)
        raise InvalidRequestError(
            f"column {self._rule.column!r} holds {type(value).__name__} values, which {operator.op} turns "
            "into text; expected a rule that says so: becomes: string"
        )


def keeps_type(operator: Operator, *, is_date: bool, is_integer: bool) -> bool:
    """Return whether an operator leaves a column that is no text in its own type."""
    if isinstance(operator, ShiftDate) or (
        isinstance(operator, Generalise) and operator.to in ("year", "month")
    ):
        return is_date
    return is_integer and isinstance(operator, Fake)


def _blank_text(value: Any) -> str | None:
    if value is None:
        return None
    return "NaN" if isinstance(value, float) else ""


def _fitting(made: int, value: int) -> int:
    """Return a number that has room in every integer type in which the value has, and is not the value."""
    bits = (value if value >= 0 else ~value).bit_length()
    width = next((width for width in _WIDTHS if bits <= width), bits)
    if made.bit_length() > width:
        made = made % (1 << width) * (-1 if value < 0 else 1)
    # There are two numbers at least in every type.
    return made if made != value else value ^ 1


def is_value(value: Any) -> bool:
    """Return whether a cell holds anything: null, NaN and the empty text do not."""
    if value is None or value == "" or value == b"":
        return False
    return not (isinstance(value, float) and math.isnan(value))


def text_of_cell(value: Any) -> str | None:
    """Return the text of any cell as masking and verification see it, None for null and NaN."""
    if not is_value(value):
        return "" if value in ("", b"") else None
    text, _ = text_of(value)
    if text is not None:
        return text
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=str, ensure_ascii=False, sort_keys=True)
    return value.hex() if isinstance(value, bytes) else str(value)
