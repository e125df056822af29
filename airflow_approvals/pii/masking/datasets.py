"""A staged dataset masked into another one: same format, same parts, same rows in the same order.

Read in record batches, so memory is bounded by the batch (and eight bytes for every distinct value). What is
written appears at once or not at all. The source is read twice: first to know every value, so that a value
found in one row is masked in the texts of all others; the second reading must see the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_approvals.core.errors import DestinationError, InvalidRequestError, SourceEmptyError
from airflow_approvals.core.model import Snapshot
from airflow_approvals.pii.masking.arrow import mask_batch
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.operators import Replace
from airflow_approvals.pii.masking.reading import DatasetReader, check_keys, columns_of, rows_of
from airflow_approvals.pii.masking.rules import ColumnRule, LeafRule, MaskingRules, Treatment
from airflow_approvals.pii.masking.tables import TableMasker
from airflow_approvals.pii.masking.texts import Finder
from airflow_approvals.pii.masking.writing import open_writer
from airflow_approvals.staging.formats import find_layout
from airflow_approvals.staging.locations import Listing, LocalLocation, Part, local_path, locate
from airflow_approvals.staging.publish_local import LocalTarget
from airflow_approvals.staging.snapshot import snapshot


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
) -> MaskedDataset:
    """Mask the dataset at `source_uri` into one at `destination_uri`, a local path.

    Raises a `DatasetError` of the source's, `DestinationError` (it is as it was before), or
    `InvalidRequestError` where a rule does not fit a column.
    """
    reader = DatasetReader(locate(source_uri, source_conn_id), format)
    TableMasker(rules, keys, finder)  # missing keys are found before the first row is read
    known = collect_values(reader, rules, finder)
    masker = TableMasker(rules, keys, finder, known=known, collect=known)
    with _destination(reader, destination_uri, overwrite=overwrite) as target:
        _write(reader, masker, target)
        if not masker.rows:
            raise SourceEmptyError(f"{source_uri}: holds no rows; there is nothing to mask")
        target.appear()
    made = snapshot(destination_uri, format=format)
    if made.rows != masker.rows:
        raise DestinationError(
            f"{destination_uri}: {masker.rows} rows were written, and {made.rows} are there; mask again"
        )
    report = MaskReport(
        rows=masker.rows,
        masked=masker.masked,
        dropped=tuple(rule.column for rule in rules.columns if rule.treatment is Treatment.DROP),
        became_text=tuple(rule.column for rule in rules.columns if rule.becomes),
        source_sha256=reader.sha256,
        sha256=made.sha256,
        values=len(known),
        rules_digest=rules.digest,
    )
    return MaskedDataset(snapshot=made, report=report, known=known)


def collect_values(reader: DatasetReader, rules: MaskingRules, finder: Finder) -> ValueIndex:
    """Return every value of a dataset that the rules mask, by reading it once."""
    known = ValueIndex()
    neutral = TableMasker(_without_keys(rules), KeyRing(), finder, collect=known, looks=1)
    for batch in reader.batches():
        if isinstance(batch, list):
            check_keys(batch, rules)
        neutral.mask_columns(columns_of(batch, rules))
    return known


def _write(reader: DatasetReader, masker: TableMasker, target: Any) -> None:
    for part in reader.listing.parts:
        with target.open_sink(part.name) as write, open_writer(write, reader.layout) as writer:
            for batch in reader.batches_of(part):
                writer.write(_masked(masker, batch))


def _masked(masker: TableMasker, batch: Any) -> Any:
    if not isinstance(batch, list):
        return mask_batch(masker, batch)
    check_keys(batch, masker.rules)
    return rows_of(masker.mask_columns(columns_of(batch, masker.rules)), batch)


@contextmanager
def _destination(reader: DatasetReader, uri: str, *, overwrite: bool) -> Iterator[Any]:
    """Yield where parts are written to; nothing is at `uri` before it appears."""
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
        yield staged


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
