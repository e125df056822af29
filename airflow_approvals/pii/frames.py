"""Pandas data frames scanned and masked in memory; what is given is never changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import (
    InvalidRequestError,
    PiiFoundError,
    SourceEmptyError,
    SourceUnreadableError,
)
from airflow_approvals.core.model import to_json
from airflow_approvals.pii.cells import Gate, text_of
from airflow_approvals.pii.engine_identity import engine_digest, engine_words
from airflow_approvals.pii.masking.arrow import mask_batch
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.operators import Operator
from airflow_approvals.pii.masking.reading import columns_of
from airflow_approvals.pii.masking.rules import LEAST_SCORE, MaskingRules, Treatment
from airflow_approvals.pii.masking.tables import TableMasker
from airflow_approvals.pii.plan import MaskingPlan
from airflow_approvals.pii.planning import plan_masking
from airflow_approvals.pii.report import ScanReport, Tally
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.verify import Verifier
from airflow_approvals.pii.verify_report import VerifyReport

if TYPE_CHECKING:
    import pandas as pd

REPORT = "pii"
"""Where a masked frame has its report: `frame.attrs["pii"]`."""


def scan_pii(frame: pd.DataFrame, *, scanner: Scanner | None = None) -> ScanReport:
    """Return what stands in every column of a frame: counts and types, never a value."""
    scanner = scanner or Scanner()
    _check_index(frame, scanner)
    found = Tally().add_all(scanner.scan_batches(_table(frame).to_batches()))
    return found.report(engine=engine_words(scanner), engine_digest=engine_digest(scanner))


def mask_pii(
    frame: pd.DataFrame,
    *,
    plan: MaskingPlan | None = None,
    keys: KeyRing | None = None,
    operators: Mapping[str, Operator] | None = None,
    otherwise: Operator | None = None,
    scanner: Scanner | None = None,
) -> pd.DataFrame:
    """Return a masked copy of a frame: same rows, index, column order and types, where the plan keeps them.

    Without a `plan` one is drawn up from a sample, with `operators` by entity type, and `otherwise`
    (`replace`) for all others. The result is verified before it is returned; the report is in `attrs["pii"]`.
    Raise `VerificationError` where anything is left, `SchemaMismatchError` where the plan does not fit,
    `SourceEmptyError` for no rows, `InvalidRequestError` for a frame whose columns have no names, or whose
    index says more than which row is which.
    """
    scanner, keys = scanner or Scanner(), keys or KeyRing()
    table = _table(frame)
    _check_index(frame, scanner)
    if not table.num_rows:
        raise SourceEmptyError("a data frame holds no rows; there is nothing to mask")
    if plan is None:
        plan = plan_masking(scanner, table.to_batches(), operators=operators, otherwise=otherwise)
    rules = plan.rules()
    known = ValueIndex()
    # Twice: a value that is found in one row is masked in the texts of all others.
    _masked(table, TableMasker(rules, keys, scanner, collect=known))
    made = _masked(table, TableMasker(rules, keys, scanner, known=known, collect=known))
    report = _verified(table, made, rules, known, keys, scanner)
    report.check()
    masked = _like(frame, made, rules)
    masked.attrs = {REPORT: {**to_json(report), "plan_digest": plan.digest}}  # others can hold anything
    return masked


def check_clean_frame(report: ScanReport) -> None:
    """Raise `PiiFoundError` where a scan found anything that is worth masking."""
    found = {
        column.column: [one.entity_type for one in column.strong]
        for column in report.columns
        if column.strong
    }
    if found:
        raise PiiFoundError(f"personal data in a data frame, by column: {found}; mask it, or leave it out")


def _table(frame: pd.DataFrame) -> Any:
    import pyarrow as pa

    if not all(isinstance(name, str) for name in frame.columns):
        raise InvalidRequestError("a data frame's columns are not all named by text; rename them")
    if not len(frame.columns) == len(set(frame.columns)):
        raise InvalidRequestError("two columns of a data frame have the same name; rename them")
    arrays = []
    for name in frame.columns:
        try:
            arrays.append(pa.Array.from_pandas(frame[name]))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            # Arrow's message repeats the value.
            raise SourceUnreadableError(
                f"column {name!r} of a data frame holds values of several types, or of one that Arrow does "
                "not know; give it one type"
            ) from None
    arrays = [array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array for array in arrays]
    return pa.Table.from_arrays(arrays, names=list(frame.columns))


def _check_index(frame: pd.DataFrame, scanner: Scanner) -> None:
    """Refuse an index that could be about somebody: no plan has a rule for it, and it would stay as it is."""
    import pandas as pd

    if isinstance(frame.index, pd.RangeIndex):
        return
    for number in range(frame.index.nlevels):
        level = frame.index.get_level_values(number)
        is_time = isinstance(level, (pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex))
        is_number = pd.api.types.is_numeric_dtype(level.dtype)
        name = "index" if level.name is None else str(level.name)
        if not (is_time or is_number) or (is_number and _looks_personal(level, name, scanner)):
            raise InvalidRequestError(
                f"a data frame's index ({name!r}) holds more than numbers of rows, and would not be masked; "
                "make it a column (reset_index), or drop it (reset_index(drop=True))"
            )


def _looks_personal(numbers: Iterable[Any], name: str, scanner: Scanner) -> bool:
    texts = [text for text, _ in map(text_of, dict.fromkeys(numbers)) if text]
    found = scanner.find(texts, (name,), Gate.NUMBERED)
    return any(span.score >= LEAST_SCORE for spans in found.values() for span in spans)


def _masked(table: Any, masker: TableMasker) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches([mask_batch(masker, batch) for batch in table.to_batches()])


def _verified(
    table: Any, made: Any, rules: MaskingRules, known: ValueIndex, keys: KeyRing, scanner: Scanner
) -> VerifyReport:
    verifier = Verifier(rules, known, scanner, masker=TableMasker(rules, keys, scanner))
    for before, after in zip(table.to_batches(), made.to_batches(), strict=True):
        source, masked = (columns_of(batch, rules) for batch in (before, after))
        verifier.check_batch(source, masked)
    return verifier.report()


def _like(frame: pd.DataFrame, made: Any, rules: MaskingRules) -> pd.DataFrame:
    """Return a copy of `frame` with the masked columns in it; all others are what they were."""
    masked = frame.copy()
    for name in frame.columns:
        rule = rules.by_column[name]
        if rule.treatment is Treatment.DROP:
            del masked[name]
        elif rule.treatment is not Treatment.LEAVE:
            masked[name] = _series(
                frame[name], made.column(name).to_pylist(), becomes_text=bool(rule.becomes)
            )
    return masked


def _series(old: pd.Series[Any], values: list[Any], *, becomes_text: bool) -> pd.Series[Any]:
    import pandas as pd

    # Null has several faces in pandas: each cell keeps its own.
    kept = [one if value is None else value for one, value in zip(old, values, strict=True)]
    if isinstance(old.dtype, pd.CategoricalDtype):
        return pd.Series(kept, index=old.index, dtype=object).astype("category")
    return pd.Series(kept, index=old.index, dtype=object if becomes_text else old.dtype)
