"""Receipts of a package: each verified, and written as a bundle with its proof under the ledger's head."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, Self

from airflow_approvals.core.errors import ReceiptInvalidError
from airflow_approvals.core.export import LedgerReport
from airflow_approvals.core.merkle import inclusion_proof
from airflow_approvals.core.receipt import make_bundle, verify_receipt
from airflow_approvals.core.signature import PublicKeys
from airflow_approvals.evidence.cases import Case
from airflow_approvals.evidence.ledger_file import LedgerFile

_HASH = 32
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
    """Writes the receipts of a package."""

    def __init__(
        self, envelopes: Envelopes, ledger: LedgerFile, report: LedgerReport, keys: PublicKeys
    ) -> None:
        self._envelopes = envelopes
        self._ledger = ledger
        self._report = report
        self._keys = keys
        self._tree = Tree(ledger.digests)

    def write(self, case: Case, stream: BinaryIO) -> None:
        """Verify the receipt of an approved case and write its bundle; raise `ReceiptInvalidError`."""
        if case.decision_index is None or case.decision_place is None:
            raise ReceiptInvalidError(f"request {case.id} is approved, and no ledger entry says so")
        envelope = self._envelopes.find(case.decision_index)
        receipt = verify_receipt(envelope, self._keys)
        if (receipt.request_id, receipt.payload_sha256) != (case.id, case.receipt_sha256):
            raise ReceiptInvalidError(
                f"the receipt at ledger entry {case.decision_index} is not the one that the ledger "
                "names there; make the package anew"
            )
        bundle = make_bundle(
            envelope,
            index=case.decision_index,
            entry=self._ledger.body_at(*case.decision_place),
            inclusion=inclusion_proof(case.decision_index, self._report.entries, self._tree.read),
            checkpoint=self._report.head.note,
        )
        stream.write(_LINE.encode(bundle).encode() + b"\n")
