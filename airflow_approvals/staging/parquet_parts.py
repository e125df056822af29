"""Parquet: hashed from start to end, then decoded from bytes that are held against that hash, block by block.

The footer, which says what is where, stands at the end, so the file is read twice. Between the two readings
it could change; a digest of every block, kept from the first, proves that the second sees the same bytes.
Every page is decoded: what cannot be read is found before anybody is asked, and rows are counted, not
believed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

from airflow_approvals.core.errors import (
    SourceChangedError,
    SourceEmptyError,
    SourceUnreadableError,
)
from airflow_approvals.core.model import Column
from airflow_approvals.staging.locations import ByteSource, read_fully

BLOCK = 1024 * 1024  # bytes per block digest: 32 bytes of memory per MiB of file
MAGIC = b"PAR1"
FOOTER_LIMIT = 32 * 1024 * 1024  # bytes
BATCH_BYTES = 8 * 1024 * 1024  # decoded, aimed at
BATCH_ROWS = 16 * 1024  # at most
BATCH_CELLS = 1024 * 1024


class ParquetPart:
    """One Parquet file."""

    def __init__(self, source: ByteSource, name: str) -> None:
        self._source = source
        self._name = name
        self.sha256 = ""
        self.size = 0
        self.columns: tuple[Column, ...] = ()
        self.schema: Any = None

    def __iter__(self) -> Iterator[Any]:
        import pyarrow as pa

        blocks = self._hash()
        try:
            yield from self._decode(_ProvenFile(self._source, self._name, self.size, blocks))
        except (pa.ArrowException, OSError, ValueError):
            # Arrow's message can repeat values of the file: it must not travel along.
            pass
        else:
            return
        raise SourceUnreadableError(f"{self._name}: is damaged or not a Parquet file; stage the file again")

    def _hash(self) -> list[bytes]:
        whole = hashlib.sha256()
        blocks: list[bytes] = []
        buffer = memoryview(bytearray(BLOCK))
        while count := read_fully(self._source, buffer):
            whole.update(buffer[:count])
            blocks.append(hashlib.sha256(buffer[:count]).digest())
            self.size += count
        self.sha256 = whole.hexdigest()
        if not self.size:
            raise SourceEmptyError(f"{self._name}: holds no bytes; expected a Parquet file")
        return blocks

    def _decode(self, file: _ProvenFile) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import parquet

        self._check_frame(file)
        reader = parquet.ParquetFile(pa.PythonFile(file, mode="r"), buffer_size=BLOCK, pre_buffer=False)
        self.schema = schema = reader.schema_arrow
        self.columns = tuple(Column(name=f.name, type=str(f.type), nullable=f.nullable) for f in schema)
        self._check_names()
        self._check_counts(reader.metadata)
        rows = 0
        for batch in reader.iter_batches(batch_size=_rows_per_batch(reader.metadata), use_threads=False):
            batch.validate(full=True)  # Arrow takes any bytes for text until asked
            rows += batch.num_rows
            if batch.num_rows:
                yield batch
        if rows != reader.metadata.num_rows:
            raise SourceUnreadableError(
                f"{self._name}: the footer says {reader.metadata.num_rows} rows, the pages hold {rows}"
            )

    def _check_frame(self, file: _ProvenFile) -> None:
        start = file.read(4)
        file.seek(max(self.size - 8, 0))
        end = file.read(8)
        if self.size < 12 or start != MAGIC or end[4:] != MAGIC:
            raise SourceUnreadableError(
                f"{self._name}: does not begin and end as a Parquet file does "
                "(cut off, encrypted or another format)"
            )
        if int.from_bytes(end[:4], "little") > FOOTER_LIMIT:
            raise SourceUnreadableError(f"{self._name}: its footer is larger than {FOOTER_LIMIT} bytes")
        file.seek(0)

    def _check_counts(self, metadata: Any) -> None:
        """Refuse a footer whose three row counts differ: readers differ in which they believe."""
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        agreed = metadata.num_rows == sum(group.num_rows for group in groups)
        for index in range(metadata.num_columns):
            repeated = metadata.schema.column(index).max_repetition_level > 0
            for group in groups:
                values = group.column(index).num_values
                agreed &= values >= group.num_rows if repeated else values == group.num_rows
        if not agreed:
            raise SourceUnreadableError(
                f"{self._name}: the footer contradicts itself about the number of rows"
            )

    def _check_names(self) -> None:
        names = [column.name for column in self.columns]
        for position, name in enumerate(names):
            if not name.strip():
                raise SourceUnreadableError(f"{self._name}: column {position + 1} has no name")
            if name in names[:position]:
                raise SourceUnreadableError(
                    f"{self._name}: columns {names.index(name) + 1} and {position + 1} have the same name"
                )


def _rows_per_batch(metadata: Any) -> int:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1)
    # Of values that repeat, a file tells each only once: their bytes there do not say what they take here.
    by_columns = BATCH_CELLS // max(int(metadata.num_columns), 1)
    return max(1, min(BATCH_ROWS, by_columns, int(BATCH_BYTES / max(widest, 1))))


class _ProvenFile(io.RawIOBase):
    """Random access to bytes that were hashed before; a block with another digest is never handed out."""

    def __init__(self, source: ByteSource, name: str, size: int, blocks: list[bytes]) -> None:
        super().__init__()
        self._source = source
        self._name = name
        self._size = size
        self._blocks = blocks
        self._position = 0
        self._held: dict[int, memoryview] = {}  # the last few blocks

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        number, start = divmod(self._position, BLOCK)
        if self._position >= self._size:
            return 0
        data = self._block(number)[start : start + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        # Arrow expects all the bytes that it asks for, in one call.
        wanted = self._size - self._position if size < 0 else min(size, self._size - self._position)
        data = bytearray(max(wanted, 0))
        view = memoryview(data)
        while view:
            view = view[self.readinto(view) :]
        return bytes(data)

    def _block(self, number: int) -> memoryview:
        if number not in self._held:
            if len(self._held) >= 4:
                del self._held[next(iter(self._held))]
            self._held[number] = self._proven(number)
        return self._held[number]

    def _proven(self, number: int) -> memoryview:
        buffer = memoryview(bytearray(min(BLOCK, self._size - number * BLOCK)))
        self._source.seek(number * BLOCK)
        count = read_fully(self._source, buffer)
        if hashlib.sha256(buffer[:count]).digest() != self._blocks[number]:
            raise SourceChangedError(
                f"{self._name}: changed while it was read; stage it completely before asking for approval"
            )
        return buffer
