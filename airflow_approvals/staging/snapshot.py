"""What a dataset is, told by one streaming reading: digest, size, rows and columns, bound to one another."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import (
    SchemaMismatchError,
    SourceChangedError,
    SourceEmptyError,
    SourceUnreadableError,
)
from airflow_approvals.core.model import Column, FileDigest, Snapshot, dataset_digest, to_json
from airflow_approvals.staging.formats import find_layout, open_reader
from airflow_approvals.staging.jsonl_parts import merge_types
from airflow_approvals.staging.locations import Location, locate


def snapshot(
    uri: str,
    *,
    conn_id: str | None = None,
    format: str | None = None,  # the word that users know
    columns: Sequence[Column] | None = None,
) -> Snapshot:
    """Read the dataset at `uri` once, in bounded memory, and return what it is.

    `format` (parquet, csv, jsonl) is told by the file names unless given; `columns` are held against those
    found, in any order. Raises a `DatasetError`: missing, empty, unreadable, changed while read, or with
    other columns than declared.
    """
    return take_snapshot(locate(uri, conn_id), format=format, columns=columns)


def take_snapshot(
    location: Location,
    *,
    format: str | None = None,
    columns: Sequence[Column] | None = None,
) -> Snapshot:
    """Return the snapshot of a location that is already known."""
    listing = location.list_parts()
    layout = find_layout(listing, format)
    files: list[FileDigest] = []
    found: tuple[Column, ...] | None = None
    rows = 0
    for part in listing.parts:
        with location.open_part(part) as source:
            reader = open_reader(source, part, layout)
            rows += sum(batch.num_rows for batch in reader)
        files.append(FileDigest(name=part.name, sha256=reader.sha256, size=reader.size))
        found = reader.columns if found is None else _joined(found, reader.columns, layout.format, part.name)
    if location.list_parts() != listing:
        raise SourceChangedError(
            f"{location.uri}: parts came or went while it was read; stage it completely first"
        )
    if not rows or not found:
        raise SourceEmptyError(f"{location.uri}: holds no rows; there is nothing to approve")
    if columns is not None:
        check_columns(location.uri, declared=columns, found=found)
    return Snapshot(
        uri=location.uri,
        format=layout.format,
        compression=layout.compression,
        sha256=dataset_digest(files, is_folder=listing.is_folder),
        size=sum(file.size for file in files),
        rows=rows,
        columns=found,
        schema_sha256=digest_of([to_json(column) for column in found]),
        files=tuple(files),
    )


def check_columns(uri: str, *, declared: Sequence[Column], found: Sequence[Column]) -> None:
    """Raise `SchemaMismatchError` unless both have the same names with the same types, in any order.

    Names that were found are told by position: in a file without a header they are values.
    """
    by_name = {column.name: column for column in found}
    wanted = {column.name: column for column in declared}
    faults = [f"column {name!r} is missing" for name in wanted if name not in by_name]
    faults += [
        f"column number {position} is not declared"
        for position, column in enumerate(found, start=1)
        if column.name not in wanted
    ]
    faults += [
        f"column {name!r} is {by_name[name].type}, expected {column.type}"
        for name, column in wanted.items()
        if name in by_name and by_name[name].type != column.type
    ]
    if faults:
        raise SchemaMismatchError(
            f"{uri}: {'; '.join(faults)}; declare what is there, or stage what is declared"
        )


def _joined(
    known: tuple[Column, ...],
    more: tuple[Column, ...],
    format: str,
    part: str,
) -> tuple[Column, ...]:
    if format == "jsonl":
        types = {column.name: column.type for column in known}
        for column in more:
            types[column.name] = merge_types(types.get(column.name, "null"), column.type)
        return tuple(Column(name=name, type=kind) for name, kind in types.items())
    if known != more:
        raise SourceUnreadableError(
            f"{part}: has other columns, types or order than the parts before it; "
            "all parts of a folder have the same"
        )
    return known
