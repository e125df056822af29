"""Copying and hashing in one go, and what a place must offer to be published to."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol

from airflow_approvals.core.errors import SourceUnreadableError
from airflow_approvals.core.model import FileDigest
from airflow_approvals.staging.locations import ByteSource, Listing, read_fully

BUFFER = 4 * 1024 * 1024  # bytes
BUFFERS = 4

Write = Callable[[memoryview], None]


class Staged(Protocol):
    """A dataset on its way: invisible at the destination until it appears, gone if it never does."""

    def open_sink(self, name: str) -> AbstractContextManager[Write]:
        """Begin one part; what is written must be taken in before `write` returns."""

    def appear(self) -> None:
        """Make all parts visible; raise `DestinationError` when the destination cannot take them."""


class Target(Protocol):
    """A place to publish to."""

    def stage(self, listing: Listing, wanted: Mapping[str, FileDigest]) -> AbstractContextManager[Staged]:
        """Begin; on leaving, whatever has not appeared is removed."""


def copy_hashed(source: ByteSource, write: Write | None, name: str) -> FileDigest:
    """Read the source to its end, hand every byte to `write`, and return what went through.

    A second thread hashes one buffer while the next is read and written; hashlib lets go of the interpreter
    lock. The very buffers that are written are the ones that are hashed.
    """
    digest = hashlib.sha256()
    size = 0
    ring: deque[tuple[memoryview, Future[None] | None]] = deque(
        (memoryview(bytearray(BUFFER)), None) for _ in range(BUFFERS)
    )
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sha256") as pool:
        while True:
            buffer, hashed = ring.popleft()
            if hashed is not None:
                hashed.result()
            count = _read(source, buffer, name)
            if not count:
                break
            hashed = pool.submit(digest.update, buffer[:count])
            if write is not None:
                write(buffer[:count])
            size += count
            ring.append((buffer, hashed))
    return FileDigest(name=name, sha256=digest.hexdigest(), size=size)


def _read(source: ByteSource, buffer: memoryview, name: str) -> int:
    try:
        return read_fully(source, buffer)
    except OSError as error:
        raise SourceUnreadableError(
            f"{name}: cannot be read to its end ({error.strerror or type(error).__name__}); try again"
        ) from error
