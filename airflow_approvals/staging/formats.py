"""Which format a dataset is in, and its reader: told by the name or the caller, never guessed from bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_approvals.core.errors import InvalidRequestError, SourceUnreadableError
from airflow_approvals.core.model import Column
from airflow_approvals.staging.locations import ByteSource, Listing, Part

FORMATS = {"parquet": "parquet", "pq": "parquet", "csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl"}
COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zst": "zstd", "zstd": "zstd"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How every part of a dataset is written."""

    format: str  # parquet, csv, jsonl
    compression: str | None  # gzip, bz2, xz, zstd


class Batch(Protocol):
    """Some rows of one part, small enough to be held in memory."""

    @property
    def num_rows(self) -> int: ...

    def to_pylist(self) -> list[dict[str, Any]]: ...


class PartReader(Protocol):
    """One part, read once: iterate first, then ask what it was."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield the rows; raise `SourceUnreadableError` where the part is not what its format says."""

    @property
    def sha256(self) -> str:
        """The digest of the bytes as stored."""

    @property
    def size(self) -> int:
        """Bytes as stored."""

    @property
    def columns(self) -> tuple[Column, ...]: ...

    @property
    def schema(self) -> Any:
        """The `pyarrow.Schema` of the rows; None for JSON Lines, which has none."""


def find_layout(listing: Listing, format: str | None = None) -> Layout:  # the word that users know
    """Return the one layout of all parts; raise `SourceUnreadableError` naming the first that differs."""
    if format is not None and format not in FORMATS.values():
        raise InvalidRequestError(f"format {format!r} is not known; expected parquet, csv or jsonl")
    first = _layout_of(listing.parts[0], format)
    for part in listing.parts[1:]:
        found = _layout_of(part, format)
        if found != first:
            raise SourceUnreadableError(
                f"{part.name}: is {_words(found)}, but {listing.parts[0].name} is {_words(first)}; "
                "a folder holds parts of one format and one compression"
            )
    return first


def open_reader(source: ByteSource, part: Part, layout: Layout) -> PartReader:
    """Return the reader for one open part."""
    if layout.format == "parquet":
        from airflow_approvals.staging.parquet_parts import ParquetPart

        return ParquetPart(source, part.name)
    if layout.format == "csv":
        from airflow_approvals.staging.csv_parts import CsvPart

        return CsvPart(source, part.name, layout.compression)
    from airflow_approvals.staging.jsonl_parts import JsonLinesPart

    return JsonLinesPart(source, part.name, layout.compression)


def _layout_of(part: Part, format: str | None) -> Layout:
    suffixes = part.name.rsplit("/", 1)[-1].lower().split(".")[1:]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression:
        suffixes.pop()
    named = FORMATS.get(suffixes[-1]) if suffixes else None
    if format is None and named is None:
        raise SourceUnreadableError(
            f"{part.name}: the name does not tell the format; expected .parquet, .csv, .jsonl or .ndjson "
            "(with .gz, .bz2, .xz or .zst after it when compressed), or say format="
        )
    if format is not None and named is not None and named != format:
        raise SourceUnreadableError(
            f"{part.name}: is named as {named}, but {format} was declared; say which it is"
        )
    found = Layout(format=format or str(named), compression=compression)
    if found.format == "parquet" and compression:
        raise SourceUnreadableError(
            f"{part.name}: a Parquet file inside {compression} cannot be read by column; "
            "unpack it, Parquet compresses inside the file"
        )
    return found


def _words(layout: Layout) -> str:
    return f"{layout.format}, compressed with {layout.compression}" if layout.compression else layout.format
