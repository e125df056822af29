"""Streams on top of one another: bytes as stored are hashed, then unpacked, then checked to be text.

Whoever reads from the topmost sees exactly the bytes that went into the digest.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import zlib
from typing import IO, Any, Protocol

from airflow_approvals.core.errors import SourceUnreadableError
from airflow_approvals.staging.locations import ByteSource

CHUNK = 1024 * 1024  # bytes


class HashedFile(io.RawIOBase):
    """A file that is hashed as it is read, from its first byte to its last."""

    def __init__(self, source: ByteSource, name: str) -> None:
        super().__init__()
        self._source = source
        self._hash = hashlib.sha256()
        self.part_name = name
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = self._source.readinto(view) or 0
        self._hash.update(view[:count])
        self.size += count
        return count

    def finish(self) -> str:
        """Read what is left unread, and return the SHA-256 of the whole file in hex."""
        rest = bytearray(CHUNK)
        while self.readinto(rest):
            pass
        return self._hash.hexdigest()


def unpack(file: HashedFile, compression: str | None) -> IO[bytes]:
    """Return the stream of unpacked bytes; reading it raises `SourceUnreadableError` where it is damaged."""
    buffered = io.BufferedReader(file, CHUNK)
    if compression is None:
        return buffered
    if compression == "zstd":
        import pyarrow as pa

        inner: Any = pa.CompressedInputStream(pa.PythonFile(buffered, mode="r"), "zstd")
    elif compression == "gzip":
        inner = gzip.GzipFile(fileobj=buffered, mode="rb")
    else:
        inner = _Members(buffered, bz2.BZ2Decompressor if compression == "bz2" else _xz)
    return io.BufferedReader(_Unpacked(inner, file.part_name, compression), CHUNK)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=128 * CHUNK)


class _Members:
    """bz2 and xz streams one after the other; the standard library silently drops what follows them."""

    def __init__(self, source: IO[bytes], new: Any) -> None:
        self._source = source
        self._new = new
        self._current: _Decompressor = new()
        self._pending = b""

    def read(self, size: int) -> bytes:
        while True:
            if self._current.eof:
                self._pending = self._current.unused_data or self._source.read(CHUNK)
                if not self._pending:
                    return b""
                self._current = self._new()
            elif self._current.needs_input and not self._pending:
                self._pending = self._source.read(CHUNK)
                if not self._pending:
                    raise EOFError
            data, self._pending = self._pending, b""
            unpacked = self._current.decompress(data, size)
            if unpacked:
                return unpacked


class _Unpacked(io.RawIOBase):
    """Unpacked bytes, with one error for all the ways in which a compressed file can be damaged."""

    def __init__(self, inner: Any, name: str, compression: str) -> None:
        super().__init__()
        self._inner = inner
        self._name = name
        self._compression = compression

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._inner.read(len(view))
        except (EOFError, OSError, zlib.error, lzma.LZMAError, ValueError) as error:
            reason = "it ends too early" if isinstance(error, EOFError) else "it is damaged"
            # The libraries' messages can repeat bytes of the file: leave them out.
            raise SourceUnreadableError(
                f"{self._name}: cannot be unpacked as {self._compression}: {reason}; stage the file again"
            ) from None
        view[: len(data)] = data
        return len(data)


class TextFile(io.RawIOBase):
    """Bytes that are known to be UTF-8 without NUL, a byte order mark at the start taken off."""

    def __init__(self, inner: IO[bytes], name: str) -> None:
        super().__init__()
        self._inner = inner
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pending = b""
        self._started = False
        self.lines = 0  # complete ones so far
        self.quotes = 0  # double quotes so far
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not self._pending:
            self._pending = self._next()
        count = min(len(view), len(self._pending))
        view[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def peek_start(self) -> bytes:
        """Return the first chunk without using it up; call before anything is read."""
        self._pending = self._pending or self._next()
        return self._pending

    def _next(self) -> bytes:
        data = self._inner.read(CHUNK)
        if not self._started:
            self._started = True
            data = data.removeprefix(codecs.BOM_UTF8) or self._inner.read(CHUNK)
        self._check(data)
        self.lines += data.count(b"\n")
        self.quotes += data.count(b'"')
        self.size += len(data)
        return data

    def _check(self, data: bytes) -> None:
        nul = data.find(b"\0")
        if nul >= 0:
            raise self._refusal("a NUL byte", data, nul)
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            # `error` holds the bytes themselves: it must not travel along.
            position = error.start
        else:
            return
        raise self._refusal("bytes that are not UTF-8", data, position)

    def _refusal(self, what: str, data: bytes, position: int) -> SourceUnreadableError:
        line = self.lines + data.count(b"\n", 0, position) + 1
        return SourceUnreadableError(
            f"{self._name}: line {line} holds {what}; expected text in UTF-8: convert it first, for example "
            "by iconv, or stage it as Parquet"
        )
