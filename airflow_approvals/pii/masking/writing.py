"""Masked batches written as bytes, in the format and compression of their source."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.staging.copying import Write
from airflow_approvals.staging.formats import Layout

GROUP_BYTES = 8 * 1024 * 1024  # of masked rows, in memory


class PartWriter(Protocol):
    """Takes the batches of one part."""

    def write(self, batch: Any) -> None: ...


@contextmanager
def open_writer(write: Write, layout: Layout) -> Iterator[PartWriter]:
    """Return the writer for one part; leaving it flushes everything to `write`."""
    sink = _Sink(write)
    packed = _packed(sink, layout.compression)
    writer: Any
    if layout.format == "parquet":
        writer = _Parquet(packed)
    elif layout.format == "csv":
        writer = _Csv(packed)
    else:
        writer = _JsonLines(packed)
    yield writer
    writer.close()
    if packed is not sink:
        packed.close()


class _Sink(io.RawIOBase):
    """A file whose bytes go to a function."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._write(view)
        self._position += len(view)
        return len(view)


def _packed(sink: _Sink, compression: str | None) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(filename="", mode="wb", fileobj=sink, mtime=0)
    if compression == "bz2":
        return bz2.BZ2File(sink, "wb")
    if compression == "xz":
        return lzma.LZMAFile(sink, "wb")  # type: ignore[arg-type]  # it needs write() alone
    if compression == "zstd":
        import pyarrow as pa

        return pa.CompressedOutputStream(pa.PythonFile(sink, mode="w"), "zstd")
    return sink


class _Parquet:
    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._bytes = 0

    def write(self, batch: Any) -> None:
        from pyarrow import parquet

        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._sink, batch.schema, compression="zstd")
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        if self._writer is not None:
            self._write_group()
            self._writer.close()

    def _write_group(self) -> None:
        """Write what waits as one row group: the footer tells of every column of every group."""
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting))
            self._waiting, self._bytes = [], 0


class _Csv:
    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._writer: Any = None

    def write(self, batch: Any) -> None:
        import pyarrow as pa
        from pyarrow import csv

        if batch.num_columns == 1 and batch.column(0).null_count:
            raise InvalidRequestError(
                f"column {batch.schema.names[0]!r} is all that is left, and CSV has no null in a single "
                "column: its rows would be blank lines; keep a second column, or stage Parquet"
            )
        if self._writer is None:
            file = (
                self._sink if isinstance(self._sink, pa.NativeFile) else pa.PythonFile(self._sink, mode="w")
            )
            self._writer = csv.CSVWriter(file, batch.schema)
        self._writer.write_batch(batch)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _JsonLines:
    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._is_empty = True

    def write(self, batch: Any) -> None:
        self._is_empty = False
        lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in batch)
        self._sink.write("".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        if self._is_empty:
            self._sink.write(b"\n")  # a file without bytes is none
