"""The ledger export as a stream: written by a thread, read by the connection, never whole in memory."""

from __future__ import annotations

import io
import json
import queue
import threading
from collections.abc import Iterator

from airflow_approvals.core.export import write_export
from airflow_approvals.core.signature import by_keyid, public_key_from_json
from airflow_approvals.ports import Store
from airflow_approvals.service import Service
from airflow_approvals.web.ledger import public_keys

_PAGE = 1000
_CHUNK = 1 << 16
_AHEAD = 8  # chunks


def export_chunks(service: Service, head: str) -> Iterator[bytes]:
    """Yield the export up to the checkpoint `head`; an error in between breaks the stream off."""
    chunks = _Chunks()

    def write() -> None:
        try:
            with io.BufferedWriter(chunks, _CHUNK) as stream:
                write_export(
                    stream,
                    keys=by_keyid(map(public_key_from_json, public_keys(service))).values(),
                    head=head,
                    entries=_entries(service.store),
                    checkpoints=_notes(service.store),
                )
            chunks.finish(None)
        except _ReaderGoneError:
            pass
        except Exception as error:  # noqa: BLE001  # goes on in the reader's thread
            chunks.finish(error)

    threading.Thread(target=write, name="approvals-ledger-export", daemon=True).start()
    try:
        yield from chunks.read_all()
    finally:
        chunks.stopped.set()


def receipt_lines(service: Service, *, first: int, last: int) -> Iterator[bytes]:
    """Yield the receipts of the decisions at ledger indexes `first` to `last`, one line of JSON each."""
    seq = 0
    while rows := service.store.receipts_after(seq, limit=_PAGE):
        wanted = (row for row in rows if first <= row.index <= last)
        yield b"".join(
            json.dumps({"envelope": row.envelope, "ledger": {"index": row.index}}).encode() + b"\n"
            for row in wanted
        )
        seq = rows[-1].seq


class _ReaderGoneError(Exception):
    """Whoever asked has hung up."""


class _Chunks(io.RawIOBase):
    """A stream that a thread writes and a generator reads, a few chunks apart."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = threading.Event()
        self._queue: queue.Queue[bytes | Exception | None] = queue.Queue(_AHEAD)

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        chunk = bytes(data)  # type: ignore[call-overload]  # io hands over a buffer, which has no type before 3.12
        self._put(chunk)
        return len(chunk)

    def finish(self, error: Exception | None) -> None:
        """Say that nothing more comes, and why if it should have."""
        self._put(error)

    def read_all(self) -> Iterator[bytes]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def _put(self, item: bytes | Exception | None) -> None:
        while not self.stopped.is_set():
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue
            return
        raise _ReaderGoneError


def _entries(store: Store) -> Iterator[tuple[bytes, bytes]]:
    read = 0
    while rows := store.leaves_after(read - 1, limit=_PAGE):
        yield from rows
        read += len(rows)


def _notes(store: Store) -> Iterator[str]:
    size = 0
    while rows := store.checkpoints_after(size, limit=_PAGE):
        yield from (note for _, note in rows)
        size = rows[-1][0]
