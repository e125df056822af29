"""Datasets as columns of Python values, some rows at a time, whatever their format."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airflow_approvals.core.errors import (
    DatasetError,
    InvalidRequestError,
    SchemaMismatchError,
    SourceChangedError,
    SourceUnreadableError,
)
from airflow_approvals.core.model import FileDigest, dataset_digest
from airflow_approvals.pii.arrow_values import python_values
from airflow_approvals.pii.cells import rows_at_a_time
from airflow_approvals.pii.masking.rules import MaskingRules
from airflow_approvals.staging.formats import Layout, find_layout, open_reader
from airflow_approvals.staging.locations import Listing, Location, Part

Rows = list[dict[str, Any]]


class DatasetReader:
    """A dataset, or some of its parts, that is read several times, and must be the same bytes each time."""

    def __init__(
        self,
        location: Location,
        format: str | None = None,
        *,
        only: Collection[str] | None = None,
        rules: MaskingRules | None = None,
    ) -> None:
        self.location = location
        self._names = set(rules.by_column) if rules else set()  # every row is made as wide as the rules
        listing = location.list_parts()
        parts = tuple(part for part in listing.parts if only is None or part.name in only)
        if not parts:
            raise SourceChangedError(f"{location.uri}: its parts are not those that were listed before")
        self.listing = Listing(is_folder=listing.is_folder, parts=parts)
        self.layout: Layout = find_layout(self.listing, format)
        self._digests: dict[str, FileDigest] = {}

    @property
    def sha256(self) -> str:
        """The dataset's digest, once it was read to its end."""
        return dataset_digest(list(self._digests.values()), is_folder=self.listing.is_folder)

    @property
    def files(self) -> tuple[FileDigest, ...]:
        """The digests of the parts that were read to their end."""
        return tuple(self._digests.values())

    def batches(self) -> Iterator[Any]:
        """Yield the batches of all parts: `pyarrow.RecordBatch`, or lists of objects for JSON Lines."""
        for part in self.listing.parts:
            yield from self.batches_of(part)

    def batches_of(self, part: Part) -> Iterator[Any]:
        """Yield the batches of one part, an empty one where it has a header and no rows.

        Raise `SourceChangedError` if it is not what it was before.
        """
        with self.location.open_part(part) as source:
            reader = open_reader(source, part, self.layout)
            rows = 0
            for batch in reader:
                if self.layout.format == "jsonl":
                    _check_values(part, batch.to_pylist(), rows)
                yield from self._sliced(batch.to_pylist() if self.layout.format == "jsonl" else batch)
                rows += batch.num_rows
            if not rows and reader.schema is not None:
                yield _without_rows(reader.schema)
            found = FileDigest(name=part.name, sha256=reader.sha256, size=reader.size)
        if self._digests.setdefault(part.name, found) != found:
            raise SourceChangedError(
                f"{part.name}: changed between two readings; stage it completely before it is masked"
            )

    def _sliced(self, batch: Any) -> Iterator[Any]:
        """Yield a batch in pieces of so many rows that their cells fit into memory as Python values."""
        if isinstance(batch, list):
            self._names.update(*batch)
            rows = rows_at_a_time(len(self._names))
            yield from (batch[first : first + rows] for first in range(0, len(batch), rows))
            return
        rows = rows_at_a_time(batch.num_columns)
        yield from (batch.slice(first, rows) for first in range(0, batch.num_rows, rows))


def _without_rows(schema: Any) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([], schema=schema)


@contextmanager
def about(reader: DatasetReader) -> Iterator[None]:
    """Say in every error which dataset it is about; those of one part name the part already."""
    uri = reader.location.uri
    try:
        yield
    except (DatasetError, InvalidRequestError) as error:
        if str(error).startswith((uri, *(part.name for part in reader.listing.parts))):
            raise
        renamed = type(error)(f"{uri}: {error}")
    else:
        return
    raise renamed


def columns_of(
    batch: Any, rules: MaskingRules | None, *, first_row: int | None = None
) -> dict[str, list[Any]]:
    """Return a batch as columns; `first_row` is its first row's number, for errors.

    Objects of JSON Lines may lack keys: with `rules`, there is a column for each of them, null where a key
    is missing; keys without a rule come behind them.
    """
    if not isinstance(batch, list):
        return {
            name: python_values(batch.column(name), name, first_row=first_row) for name in batch.schema.names
        }
    names = dict.fromkeys(rules.by_column if rules else ())
    for row in batch:
        names.update(dict.fromkeys(row))
    return {name: [row.get(name) for row in batch] for name in names}


def check_keys(rows: Iterable[dict[str, Any]], rules: MaskingRules) -> None:
    """Raise `SchemaMismatchError` where an object has a key that no rule is for; keys can be values."""
    ruled = set(rules.by_column)
    unknown = {key for row in rows for key in row if key not in ruled}
    if unknown:
        raise SchemaMismatchError(
            f"{len(unknown)} keys of the objects have no masking rule; expected only {sorted(ruled)}"
        )


def rows_of(columns: dict[str, Sequence[Any]], like: Rows) -> Rows:
    """Return objects with the keys that each had before, dropped columns left out."""
    return [
        {name: columns[name][number] for name in row if name in columns} for number, row in enumerate(like)
    ]


def _check_values(part: Part, rows: Rows, first: int) -> None:
    """Refuse what can be read and not be written back: half a character, a number beyond all doubles."""
    if _is_writable(rows):
        return
    number, row = next((number, row) for number, row in enumerate(rows) if not _is_writable(row))
    column = next(key for key, value in row.items() if not _is_writable(value))
    raise SourceUnreadableError(
        f"{part.name}: row {first + number} (the first is 0), column {column!r} holds half a "
        "character (a lone surrogate) or a number beyond 1e308; expected neither; stage it without"
    )


def _is_writable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True
