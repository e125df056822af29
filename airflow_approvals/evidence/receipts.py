"""Receipts of a package: each verified, and written as a bundle with its proof under the ledger's head."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, Self

from airflow_approvals.core.errors import ReceiptInvalidError
from airflow_approvals.core.export import LedgerReport
from airflow_approvals.core.merkle import inclusion_proof
from airflow_approvals.core.receipt import make_bundle, verify_receipt
from airflow_approvals.core.signature import PublicKeys, public_keys_from_json
from airflow_approvals.evidence.cases import Case
from airflow_approvals.evidence.ledger_file import LedgerFile

_HASH = 32
_BATCH = 500  # receipts verified at once
_AHEAD = 4  # batches
Verified = tuple[str, str]  # request, digest of the receipt's payload
_INDEX = re.compile(rb'"index": ?([0-9]{1,18})\}')
_LINE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Envelopes:
    """Receipts in a file, found by the ledger index of their decision; each line is a bundle.

    `{"envelope": …, "ledger": {"index": N}}` is enough of it. Nothing is trusted before it is verified.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        self._at: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        try:
            self._index()
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def find(self, index: int) -> Any:
        """Return the envelope of the decision at `index`; raise `ReceiptInvalidError` when it is missing."""
        if index not in self._at:
            raise ReceiptInvalidError(
                f"the receipt of the approval at ledger entry {index} is missing; an approval cannot be "
                "shown without it: make the package anew from the server that holds it"
            )
        offset, length = self._at[index]
        return json.loads(os.pread(self._stream.fileno(), length, offset))["envelope"]

    def _index(self) -> None:
        offset = 0
        for line in self._stream:
            # The last one: inside a bundle's entry the quotes are escaped.
            found = _INDEX.match(line, line.rfind(b'"index":'))
            index = int(found[1]) if found else -1
            if found is None or index in self._at:
                raise ReceiptInvalidError(
                    f"receipts: line {len(self._at) + 1} is none, or its decision has two; make it anew"
                )
            self._at[index] = (offset, len(line))
            offset += len(line)


class Tree:
    """The ledger's Merkle tree over the leaves of a file, as flat bytes: 64 for each entry."""

    def __init__(self, leaves: bytearray) -> None:
        self._levels = [leaves]
        while len(self._levels[-1]) >= 2 * _HASH:
            below = self._levels[-1]
            pairs = range(0, len(below) - 2 * _HASH + 1, 2 * _HASH)
            self._levels.append(
                bytearray().join(
                    hashlib.sha256(b"\x01" + below[start : start + 2 * _HASH]).digest() for start in pairs
                )
            )

    def read(self, level: int, index: int) -> bytes:
        return bytes(self._levels[level][index * _HASH : (index + 1) * _HASH])


class Receipts:
    """Writes the receipts of a package; use it as a context manager.

    Signatures are most of the work: beyond the first batch a second process verifies them. What is written
    is in the order of the cases either way.
    """

    def __init__(
        self,
        stream: BinaryIO,
        envelopes: Envelopes,
        ledger: LedgerFile,
        report: LedgerReport,
        keys: PublicKeys,
        *,
        batch: int = _BATCH,
    ) -> None:
        self.written = 0
        self._stream = stream
        self._envelopes = envelopes
        self._ledger = ledger
        self._report = report
        self._keys = keys
        self._batch = batch
        self._tree = Tree(ledger.digests)
        self._gathered: list[_Due] = []
        self._verifying: deque[tuple[list[_Due], Future[list[Verified]]]] = deque()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None:
                self._finish()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)

    def add(self, case: Case) -> None:
        """Verify the receipt of an approved case and write its bundle; raise `ReceiptInvalidError`."""
        if case.decision_index is None or case.decision_place is None or case.receipt_sha256 is None:
            raise ReceiptInvalidError(f"request {case.id} is approved, and no ledger entry says so")
        self._gathered.append(
            _Due(
                request_id=case.id,
                index=case.decision_index,
                place=case.decision_place,
                receipt_sha256=case.receipt_sha256,
                envelope=self._envelopes.find(case.decision_index),
            )
        )
        if len(self._gathered) < self._batch:
            return
        if self._pool is None:
            # Not forked: whoever makes a package may have threads.
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        due, self._gathered = self._gathered, []
        self._verifying.append((due, self._pool.submit(verify_all, *self._work(due))))
        while len(self._verifying) > _AHEAD:
            self._write_next()

    def _finish(self) -> None:
        while self._verifying:
            self._write_next()
        self._write(self._gathered, verify_all(*self._work(self._gathered)))
        self._gathered = []

    def _work(self, due: list[_Due]) -> tuple[list[Any], list[dict[str, Any]]]:
        return [each.envelope for each in due], [key.to_json() for key in self._keys.values()]

    def _write_next(self) -> None:
        due, verified = self._verifying.popleft()
        self._write(due, verified.result())

    def _write(self, due: list[_Due], verified: list[Verified]) -> None:
        for each, found in zip(due, verified, strict=True):
            if found != (each.request_id, each.receipt_sha256):
                raise ReceiptInvalidError(
                    f"the receipt at ledger entry {each.index} is not the one that the ledger names there; "
                    "make the package anew"
                )
            bundle = make_bundle(
                each.envelope,
                index=each.index,
                entry=self._ledger.body_at(*each.place),
                inclusion=inclusion_proof(each.index, self._report.entries, self._tree.read),
                checkpoint=self._report.head.note,
            )
            self._stream.write(_LINE.encode(bundle).encode() + b"\n")
            self.written += 1


def verify_all(envelopes: list[Any], keys: list[dict[str, Any]]) -> list[Verified]:
    """Return request and payload digest of each receipt; raise `ReceiptInvalidError` for a wrong one."""
    known = public_keys_from_json(keys)
    found = (verify_receipt(envelope, known) for envelope in envelopes)
    return [(receipt.request_id, receipt.payload_sha256) for receipt in found]


@dataclass(frozen=True, kw_only=True)
class _Due:
    """One receipt on its way: what the ledger says of it, and the envelope."""

    request_id: str
    index: int
    place: tuple[int, int]
    receipt_sha256: str
    envelope: Any
