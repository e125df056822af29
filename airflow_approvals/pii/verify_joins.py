"""Whether masked values still tell the same rows apart, and the same rows together, as the values did."""

from __future__ import annotations

from array import array

from airflow_approvals.pii.masking.operators import Hash, Pseudonym
from airflow_approvals.pii.masking.rules import ColumnRule, Treatment


class Joins:
    """Counts distinct values before and after, eight bytes each, and the distinct pairs of both."""

    def __init__(self) -> None:
        self._columns = (array("q"), array("q"), array("q"))  # before, after, both
        self._since = 0

    @staticmethod
    def are_promised_by(rule: ColumnRule) -> bool:
        """Return whether a rule keeps joins: other operators may make one of two values."""
        return rule.treatment is Treatment.CELL and isinstance(rule.operator, (Pseudonym, Hash))

    def add(self, before: str, after: str) -> None:
        """Count one row; `before` in joining form."""
        for values, value in zip(
            self._columns, (hash(before), hash(after), hash((before, after))), strict=True
        ):
            values.append(value)
        self._since += 1
        if self._since > max(1 << 18, len(self._columns[2]) // 2):
            self._compact()

    def hold(self) -> bool:
        """Return whether every value became one other, and no two became the same."""
        self._compact()
        before, after, both = map(len, self._columns)
        return before == after == both

    def _compact(self) -> None:
        import numpy as np

        packed = []
        for values in self._columns:
            made = array("q")
            made.frombytes(np.unique(np.frombuffer(values, dtype=np.int64)).tobytes() if values else b"")
            packed.append(made)
        self._columns = (packed[0], packed[1], packed[2])
        self._since = 0
