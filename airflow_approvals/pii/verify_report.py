"""The report of a verification: what is left, where and of which type, and never the thing itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from airflow_approvals.core.errors import VerificationError
from airflow_approvals.core.model import to_json

ROWS_NAMED = 20  # per leak; the count says how many there are


class Found(StrEnum):
    """How it was noticed that masking does not hold."""

    SURVIVES = "survives"  # a value that is known from the input stands in the output
    RESCAN = "rescan"  # a scan of the output finds what stood in the input already
    UNCHANGED = "unchanged"  # a cell that is masked whole is what it was
    ALTERED = "altered"  # a cell is not what the rules make of it


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One kind of trouble in one column."""

    column: str
    entity_type: str
    found: Found
    count: int
    rows: tuple[int, ...]  # the first few, from 0


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """One masked dataset held against its source; has the words that a policy's `pii` asks for."""

    scanned: bool
    verified: bool
    residual: int  # all that is left
    entities: dict[str, int]  # what is left by type
    columns: tuple[str, ...]  # where it is left
    leaks: tuple[Leak, ...]
    broken: tuple[str, ...]  # promises about rows, schema, nulls and joins that do not hold
    rows: int
    values_searched: int  # distinct values that were looked for
    values_too_short: int  # findings of fewer than five letters and digits, which cannot be looked for
    rules_digest: str
    dataset_sha256: str | None = None  # of the masked dataset; None where it was not one that has bytes
    source_sha256: str | None = None

    def check(self) -> None:
        """Raise `VerificationError` naming columns, types and rows unless masking holds."""
        if self.verified:
            return
        places = [
            f"column {leak.column!r}: {leak.count} x {leak.entity_type} ({leak.found}), "
            f"rows {', '.join(map(str, leak.rows[:5]))}{' ...' if leak.count > 5 else ''}"
            for leak in self.leaks[:10]
        ]
        raise VerificationError(
            f"masking does not hold: {'; '.join([*self.broken, *places])}; "
            "correct the masking plan and mask again; nothing of this may leave"
        )

    def to_evidence(self) -> dict[str, Any]:
        """Return the report as JSON, fit for `Evidence.pii`."""
        evidence: dict[str, Any] = to_json(self)
        return evidence
