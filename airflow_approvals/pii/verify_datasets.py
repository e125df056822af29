"""Two staged datasets held against each other: the masked one, and the one that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from airflow_approvals.core.errors import SourceChangedError
from airflow_approvals.core.model import to_json
from airflow_approvals.pii.masking.arrow import masked_schema
from airflow_approvals.pii.masking.datasets import collect_values
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.reading import DatasetReader, about, columns_of
from airflow_approvals.pii.masking.recorded import RecordedFinder, identity_of, identity_of_keys
from airflow_approvals.pii.masking.rules import MaskingRules, Treatment
from airflow_approvals.pii.masking.tables import TableMasker
from airflow_approvals.pii.masking.texts import Finder
from airflow_approvals.pii.pace import Pace
from airflow_approvals.pii.resuming import open_work
from airflow_approvals.pii.verify import Verifier
from airflow_approvals.pii.verify_report import VerifyReport
from airflow_approvals.staging.locations import LocalLocation, Location, locate
from airflow_approvals.staging.snapshot import take_snapshot

Columns = dict[str, list[Any]]


def verify_masked(
    source_uri: str,
    masked_uri: str,
    rules: MaskingRules,
    finder: Finder,
    *,
    keys: KeyRing | None = None,
    known: ValueIndex | None = None,
    source_conn_id: str | None = None,
    masked_conn_id: str | None = None,
    format: str | None = None,  # the word that users know
    pace: Pace | None = None,
) -> VerifyReport:
    """Return whether masking holds, both datasets read batch by batch.

    `known` is what was found in the source; without it the source is scanned. With the `keys`, cells are
    computed again. Where the masked dataset is a local one, a run that was killed is taken up by the next:
    what the scans found is not looked for again. Raises a `DatasetError` where either cannot be read; all
    else that is wrong is reported.
    """
    places = locate(source_uri, source_conn_id), locate(masked_uri, masked_conn_id)
    return verify_located(*places, rules, finder, keys=keys, known=known, format=format, pace=pace)


def verify_located(
    source_location: Location,
    masked_location: Location,
    rules: MaskingRules,
    finder: Finder,
    *,
    keys: KeyRing | None = None,
    known: ValueIndex | None = None,
    format: str | None = None,  # the word that users know
    pace: Pace | None = None,
) -> VerifyReport:
    """Return the same of two datasets wherever they are: the masked one may not have appeared yet."""
    source, masked = (
        DatasetReader(place, format, rules=rules) for place in (source_location, masked_location)
    )
    before, after = (take_snapshot(reader.location, format=format) for reader in (source, masked))
    pair = _Pair(source=source, masked=masked, rows=before.rows, pace=pace or Pace(lambda _: None))
    if not isinstance(masked_location, LocalLocation):
        report = _verify(pair, rules, finder, keys, known)
    else:
        state = {
            "source": to_json(before),
            "masked": to_json(after),
            "rules": rules.digest,
            "keys": identity_of_keys(keys),
            "finder": identity_of(finder),
            "source_is_scanned": known is None,
        }
        with open_work(masked_location.path, "verify", state) as work:
            report = _verify(pair, rules, RecordedFinder(finder, work.file("found")), keys, known)
    if (source.sha256, masked.sha256) != (before.sha256, after.sha256):
        raise SourceChangedError(
            f"{masked_location.uri}: it or its source changed while they were held against each other; "
            "verify again"
        )
    return replace(report, dataset_sha256=after.sha256, source_sha256=before.sha256)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    source: DatasetReader
    masked: DatasetReader
    rows: int
    pace: Pace


def _verify(
    pair: _Pair, rules: MaskingRules, finder: Finder, keys: KeyRing | None, known: ValueIndex | None
) -> VerifyReport:
    source, masked, pace = pair.source, pair.masked, pair.pace
    if known is None:
        pace.begin("finding", pair.rows)
        with about(source):
            known = collect_values(source, rules, finder, pace=pace)
    pace.begin("verifying", pair.rows)
    masker = TableMasker(rules, keys, finder) if keys is not None else None
    verifier = Verifier(rules, known, finder, masker=masker)
    if source.layout != masked.layout:
        verifier.break_promise("the output is in another format than the input")
    before, after = _Cursor(source, rules, is_source=True), _Cursor(masked, rules, is_source=False)
    while before.rows and after.rows:
        rows = min(before.rows, after.rows)
        both = before.take(rows), after.take(rows)
        with about(masked):
            verifier.check_batch(*both)
        pace.add(rows, resumed=isinstance(finder, RecordedFinder) and finder.is_resuming)
    left, more = before.count_rest(), after.count_rest()
    if left or more:
        verifier.break_promise(f"the output lacks {left} rows of the input, and has {more} of its own")
    for sentence in _schema_faults(before.schema, after.schema, rules):
        verifier.break_promise(sentence)
    return verifier.report()


class _Cursor:
    """A dataset's rows, taken in any number up to the end of the present batch."""

    def __init__(self, reader: DatasetReader, rules: MaskingRules, *, is_source: bool) -> None:
        self.schema: Any = None  # pyarrow.Schema; None for JSON Lines
        self._rules = rules
        self._is_source = is_source
        self._reader = reader
        self._batches: Iterator[Any] = reader.batches()
        self._columns: Columns = {}
        self._start = 0
        self.rows = 0  # left in the present batch
        self._next()

    def take(self, rows: int) -> Columns:
        """Return the next rows."""
        end = self._start + rows
        taken = {name: values[self._start : end] for name, values in self._columns.items()}
        self._start, self.rows = end, self.rows - rows
        if not self.rows:
            self._next()
        return taken

    def count_rest(self) -> int:
        """Return how many rows were not taken, and read to the end."""
        count = 0
        while self.rows:
            count += self.rows
            self._next()
        return count

    def _next(self) -> None:
        batch = next((batch for batch in self._batches if len(batch)), None)
        if batch is None:
            self._columns, self._start, self.rows = {}, 0, 0
            return
        if not isinstance(batch, list):
            self.schema = batch.schema if self.schema is None else self.schema
        with about(self._reader):
            columns = columns_of(batch, self._rules)
        if not self._is_source and isinstance(batch, list):
            columns = self._without_dropped(columns)
        self._columns, self._start = columns, 0
        self.rows = len(batch)

    def _without_dropped(self, columns: Columns) -> Columns:
        """Leave out dropped columns, unless an object has one after all."""
        rules = self._rules.by_column
        return {
            name: values
            for name, values in columns.items()
            if name not in rules
            or rules[name].treatment is not Treatment.DROP
            or any(value is not None for value in values)
        }


def _schema_faults(source: Any, masked: Any, rules: MaskingRules) -> Iterator[str]:
    if source is None or masked is None:
        return
    wanted = masked_schema(source, rules)
    if wanted.names != masked.names:
        yield "the columns of the output are not those that the rules keep, in their order"
        return
    for field, found in zip(wanted, masked, strict=True):
        if field.type != found.type:
            yield f"column {field.name!r} is {found.type} in the output, and the rules make it {field.type}"
