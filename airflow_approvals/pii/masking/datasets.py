"""A staged dataset masked into another one: same format, same parts, same rows in the same order.

Read in record batches, so memory is bounded by the batch (and eight bytes for every distinct value). What is
written appears at once or not at all; finished parts wait for the others in the folder of the run. The source
is read twice: first to know every value, so that a value found in one row is masked in the texts of all
others; the second reading must see the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_approvals.core.errors import DestinationError, InvalidRequestError, SourceChangedError
from airflow_approvals.core.model import Snapshot, to_json
from airflow_approvals.pii.masking.arrow import mask_batch
from airflow_approvals.pii.masking.finished import (
    FinishedPart,
    WaitingDataset,
    finished_part,
    finished_parts,
    merged_counts,
    note_finished,
    open_part,
)
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.operators import Replace
from airflow_approvals.pii.masking.reading import DatasetReader, about, check_keys, columns_of, rows_of
from airflow_approvals.pii.masking.recorded import RecordedFinder, identity_of, identity_of_keys
from airflow_approvals.pii.masking.rules import ColumnRule, LeafRule, MaskingRules, Treatment
from airflow_approvals.pii.masking.tables import TableMasker, shapes_of
from airflow_approvals.pii.masking.texts import Finder
from airflow_approvals.pii.masking.writing import open_writer
from airflow_approvals.pii.pace import Pace
from airflow_approvals.pii.resuming import Work, open_work
from airflow_approvals.staging.formats import find_layout
from airflow_approvals.staging.locations import Listing, LocalLocation, Part, local_path, locate
from airflow_approvals.staging.publish_local import LocalTarget
from airflow_approvals.staging.snapshot import snapshot, take_snapshot


@dataclass(frozen=True, kw_only=True)
class MaskReport:
    """What masking did: counts, column names and entity types only."""

    rows: int
    masked: dict[str, dict[str, int]]  # column -> entity type -> how often
    dropped: tuple[str, ...]
    became_text: tuple[str, ...]
    source_sha256: str
    sha256: str
    values: int  # distinct values that were found
    rules_digest: str


@dataclass(frozen=True, kw_only=True)
class MaskedDataset:
    """A masked dataset, what was done, and what was found: `known` is what verification looks for."""

    snapshot: Snapshot
    report: MaskReport
    known: ValueIndex
    resumed_parts: int = 0  # that an earlier run had finished


Check = Callable[[WaitingDataset, ValueIndex | None], None]
"""Is given a masked dataset before it appears, and what was found in its source, if that is at hand."""


def mask_dataset(
    source_uri: str,
    destination_uri: str,
    rules: MaskingRules,
    keys: KeyRing,
    finder: Finder,
    *,
    source_conn_id: str | None = None,
    format: str | None = None,  # the word that users know
    overwrite: bool = False,
    check: Check | None = None,
    pace: Pace | None = None,
) -> MaskedDataset:
    """Mask the dataset at `source_uri` into one at `destination_uri`, a local path.

    What `check` raises keeps it from appearing there. A run that was killed is taken up by the next one:
    finished parts are kept, and what was found is not looked for again. Raises a `DatasetError` of the
    source's, `DestinationError` (it is as it was before), or `InvalidRequestError` where a rule does not fit.
    """
    reader = DatasetReader(locate(source_uri, source_conn_id), format, rules=rules)
    TableMasker(rules, keys, finder)  # missing keys are found before the first row is read
    with (
        about(reader),
        open_destination(reader, destination_uri, overwrite=overwrite) as (path, target),
    ):
        source = take_snapshot(reader.location, format=format)
        state = {
            "source": to_json(source),
            "rules": rules.digest,
            "keys": identity_of_keys(keys),
            "finder": identity_of(finder),
        }
        with open_work(path, "mask", state) as work:
            run = _Run(reader, rules, work, pace or Pace(lambda _: None), rows=source.rows)
            known = run.collect(RecordedFinder(finder, work.file("found")))
            if reader.sha256 != source.sha256:
                raise SourceChangedError(
                    f"{source_uri}: changed between two readings; stage it completely before it is masked"
                )
            typed = reader.layout.format != "jsonl"
            finished = run.mask(TableMasker(rules, keys, finder, known=known, collect=known, typed=typed))
            if check is not None:
                is_folder = reader.listing.is_folder
                check(WaitingDataset(destination_uri, path, finished, is_folder=is_folder), known)
            for part in finished:
                part.copy_to(target)
            target.appear()
    made, report = finished_masking(
        destination_uri, rules, finished, source_sha256=reader.sha256, values=len(known), format=format
    )
    return MaskedDataset(
        snapshot=made, report=report, known=known, resumed_parts=sum(part.is_resumed for part in finished)
    )


def finished_masking(
    destination_uri: str,
    rules: MaskingRules,
    finished: Sequence[FinishedPart],
    *,
    source_sha256: str,
    values: int,
    format: str | None,
) -> tuple[Snapshot, MaskReport]:
    """Return what stands at the destination, and the report on it; raise where rows are missing there."""
    made = snapshot(destination_uri, format=format)
    rows = sum(part.rows for part in finished)
    if made.rows != rows:
        raise DestinationError(
            f"{destination_uri}: {rows} rows were written, and {made.rows} are there; mask again"
        )
    if sorted(file.sha256 for file in made.files) != sorted(part.sha256 for part in finished):
        raise DestinationError(f"{destination_uri}: is not what was masked; look who else writes there")
    return made, MaskReport(
        rows=rows,
        masked=merged_counts(rules, finished),
        dropped=tuple(rule.column for rule in rules.columns if rule.treatment is Treatment.DROP),
        became_text=tuple(rule.column for rule in rules.columns if rule.becomes),
        source_sha256=source_sha256,
        sha256=made.sha256,
        values=values,
        rules_digest=rules.digest,
    )


def collect_values(
    reader: DatasetReader, rules: MaskingRules, finder: Finder, *, pace: Pace | None = None
) -> ValueIndex:
    """Return every value of a dataset that the rules mask, by reading it once."""
    known = ValueIndex()
    shapes = shapes_of(rules, finder)
    neutral = TableMasker(_without_keys(rules), KeyRing(), finder, collect=known, looks=1, shapes=shapes)
    for batch in reader.batches():
        if isinstance(batch, list):
            check_keys(batch, rules)
        neutral.mask_columns(columns_of(batch, rules, first_row=neutral.rows))
        if pace is not None:
            pace.add(len(batch), resumed=isinstance(finder, RecordedFinder) and finder.is_resuming)
    return known


class _Run:
    """Both readings of one source, and what an earlier run has done of them."""

    def __init__(
        self, reader: DatasetReader, rules: MaskingRules, work: Work, pace: Pace, *, rows: int
    ) -> None:
        self._reader = reader
        self._rules = rules
        self._work = work
        self._pace = pace
        self._rows = rows

    def collect(self, finder: RecordedFinder) -> ValueIndex:
        """Return every value that is masked anywhere."""
        self._pace.begin("finding", self._rows)
        return collect_values(self._reader, self._rules, finder, pace=self._pace)

    def mask(self, masker: TableMasker) -> list[FinishedPart]:
        """Return all parts masked, in the folder of the work."""
        self._pace.begin("masking", self._rows)
        earlier = {part.name: part for part in finished_parts(self._work)}
        finished = []
        for number, part in enumerate(self._reader.listing.parts):
            done = earlier.get(part.name)
            if done is not None:
                self._pace.add(done.rows, resumed=True)
            else:
                done = self._mask_part(masker, part, self._work.file(f"part-{number}"))
            finished.append(done)
        return finished

    def _mask_part(self, masker: TableMasker, part: Part, path: Path) -> FinishedPart:
        finished = mask_part(masker, self._reader, part, path, pace=self._pace)
        note_finished(self._work, finished)
        return finished


def mask_part(
    masker: TableMasker, reader: DatasetReader, part: Part, path: Path, *, pace: Pace | None = None
) -> FinishedPart:
    """Mask one part into a file at `path`, where it waits for the others."""
    rows, masked = masker.rows, masker.masked
    with open_part(path) as write, open_writer(write, reader.layout) as writer:
        for batch in reader.batches_of(part):
            writer.write(_masked(masker, batch))
            if pace is not None:
                pace.add(len(batch))
    counts = {
        column: {entity: count - masked[column].get(entity, 0) for entity, count in entities.items()}
        for column, entities in masker.masked.items()
    }
    return finished_part(part.name, path, rows=masker.rows - rows, masked=counts)


def _masked(masker: TableMasker, batch: Any) -> Any:
    if not isinstance(batch, list):
        return mask_batch(masker, batch)
    check_keys(batch, masker.rules)
    return rows_of(masker.mask_columns(columns_of(batch, masker.rules)), batch)


@contextmanager
def open_destination(reader: DatasetReader, uri: str, *, overwrite: bool) -> Iterator[tuple[Path, Any]]:
    """Yield the path, and where parts are written to; nothing is at `uri` before it appears."""
    if not reader.listing.is_folder:
        name = uri.rsplit("/", 1)[-1]
        made = find_layout(Listing(is_folder=False, parts=(Part(name=name, address=uri),)), None)
        if made != reader.layout:
            raise InvalidRequestError(
                f"{uri}: is named as another format than its source's; expected the same"
            )
    path = local_path(uri)
    if path is None:
        raise InvalidRequestError(
            f"{uri}: masked data is written to a local path alone; mask into one, then export from there"
        )
    _check_apart(reader, uri, path)
    with LocalTarget(uri, path, overwrite=overwrite).stage(reader.listing, {}) as staged:
        yield path, staged


def _check_apart(reader: DatasetReader, uri: str, path: Path) -> None:
    location = reader.location
    if isinstance(location, LocalLocation):
        one, other = location.path.resolve(), path.resolve()
        if one == other or one in other.parents or other in one.parents:
            raise DestinationError(
                f"{uri}: is the source, lies in it or holds it; mask into a place of its own"
            )


def _without_keys(rules: MaskingRules) -> MaskingRules:
    """Return rules under which the same values are found, with operators that need no key."""
    return replace(rules, columns=tuple(_rule_without_keys(rule) for rule in rules.columns))


def _rule_without_keys(rule: ColumnRule) -> ColumnRule:
    is_cell = rule.treatment is Treatment.CELL
    return replace(
        rule,
        operator=Replace() if is_cell else None,
        becomes="string" if is_cell else None,
        by_entity={},
        otherwise=Replace(),
        leaves=tuple(
            LeafRule(path=leaf.path, entity_type=leaf.entity_type, operator=leaf.operator and Replace())
            for leaf in rule.leaves
        ),
    )
