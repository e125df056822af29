"""Receipts of a package: each verified, and written as a bundle with its proof under the ledger's head."""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, Self

from airflow_approvals.core.errors import ReceiptInvalidError, VerificationError
from airflow_approvals.core.export import MAX_LINE, LedgerReport
from airflow_approvals.core.merkle import inclusion_proof
from airflow_approvals.core.model import to_json
from airflow_approvals.core.receipt import Receipt, make_bundle, verify_receipt
from airflow_approvals.core.signature import PublicKeys, public_keys_from_json
from airflow_approvals.evidence.cases import Case
from airflow_approvals.evidence.ledger_file import LedgerFile

_HASH = 32
_BATCH = 200  # receipts verified at once
_AHEAD = 4  # batches
_MOST = 3  # processes
_MAX_LINE = 4 * MAX_LINE  # bytes: a receipt's payload stands there in base64, beside its entry
_INDEX = re.compile(rb'"index": ?([0-9]{1,18})\}')
_LINE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Envelopes:
    """Receipts in a file, found by the ledger index of their decision; each line is a bundle.

    `{"envelope": …, "ledger": {"index": N}}` is enough of it. Nothing is trusted before it is verified.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        self._rows: dict[int, int] = {}  # by decision
        self._ends = array("Q", [0])  # of each row's line

    def __enter__(self) -> Self:
        try:
            self._index()
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def find(self, index: int) -> bytes:
        """Return the line of the decision at `index`; raise `ReceiptInvalidError` when it is missing."""
        if index not in self._rows:
            raise ReceiptInvalidError(
                f"the receipt of the approval at ledger entry {index} is missing; an approval cannot be "
                "shown without it: make the package anew from the server that holds it"
            )
        row = self._rows[index]
        start, end = self._ends[row], self._ends[row + 1]
        return os.pread(self._stream.fileno(), end - start, start)

    def _index(self) -> None:
        for row, line in enumerate(iter(partial(self._stream.readline, _MAX_LINE), b"")):
            # The last one: inside a bundle's entry the quotes are escaped.
            found = _INDEX.match(line, line.rfind(b'"index":'))
            index = int(found[1]) if found else -1
            if found is None or index in self._rows:
                raise ReceiptInvalidError(
                    f"line {row + 1} is no receipt, or the second of its decision; make the package anew"
                )
            self._rows[index] = row
            self._ends.append(self._ends[row] + len(line))


class Tree:
    """The ledger's Merkle tree over the leaves of a file, as flat bytes: 64 for each entry."""

    def __init__(self, leaves: bytearray) -> None:
        self._levels = [leaves]
        while len(self._levels[-1]) >= 2 * _HASH:
            below, level = self._levels[-1], bytearray()
            for start in range(0, len(below) - 2 * _HASH + 1, 2 * _HASH):
                level += hashlib.sha256(b"\x01" + below[start : start + 2 * _HASH]).digest()
            self._levels.append(level)

    def read(self, level: int, index: int) -> bytes:
        return bytes(self._levels[level][index * _HASH : (index + 1) * _HASH])


class Receipts:
    """Writes the receipts of a package; use it as a context manager.

    Signatures are most of the work: beyond the first batch other processes verify them. What is written is
    in the order of the cases either way.
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
        self._keys = [key.to_json() for key in keys.values()]
        self._batch = batch
        self._tree = Tree(ledger.digests)
        self._gathered: list[Due] = []
        self._verifying: deque[Future[list[bytes]]] = deque()
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
            raise ReceiptInvalidError(f"request {case.id}: only an approved request has a receipt")
        self._gathered.append(
            Due(
                request_id=case.id,
                receipt_sha256=case.receipt_sha256,
                index=case.decision_index,
                entry=self._ledger.body_at(*case.decision_place),
                inclusion=inclusion_proof(case.decision_index, self._report.entries, self._tree.read),
                line=self._envelopes.find(case.decision_index),
                requesters=case.requesters,
                votes=tuple((each.voter, each.verdict, each.channel) for each in case.answers),
                action_digest=case.action_digest,
                policy_digest=case.policy_digest,
                granted=case.granted,
                is_told=not case.faults,
            )
        )
        if len(self._gathered) < self._batch:
            return
        if self._pool is None:
            # Not forked: whoever makes a package may have threads.
            self._pool = ProcessPoolExecutor(_beside(), mp_context=get_context("spawn"))
        self._verifying.append(self._pool.submit(bundles_of, *self._work()))
        while len(self._verifying) > _AHEAD:
            self._write(self._verifying.popleft().result())

    def _finish(self) -> None:
        while self._verifying:
            self._write(self._verifying.popleft().result())
        self._write(bundles_of(*self._work()))

    def _work(self) -> tuple[list[Due], str, list[dict[str, Any]]]:
        due, self._gathered = self._gathered, []
        return due, self._report.head.note, self._keys

    def _write(self, lines: list[bytes]) -> None:
        self._stream.writelines(lines)
        self.written += len(lines)


@dataclass(frozen=True, kw_only=True)
class Due:
    """One receipt on its way: what the ledger says of it, and the line that holds its envelope."""

    request_id: str
    receipt_sha256: str
    index: int
    entry: bytes
    inclusion: tuple[bytes, ...]
    line: bytes
    requesters: tuple[str, ...]
    votes: tuple[tuple[str, str, str], ...]  # voter, verdict and channel, in order
    action_digest: str  # as it was asked for
    policy_digest: str
    granted: dict[str, Any] | None
    is_told: bool  # whether all that the ledger has on the request can be read


def bundles_of(due: list[Due], checkpoint: str, keys: list[dict[str, Any]]) -> list[bytes]:
    """Return each receipt as a line with its proof; raise `ReceiptInvalidError` for a wrong one."""
    known = public_keys_from_json(keys)
    return [_bundle(each, checkpoint, known) for each in due]


def _bundle(due: Due, checkpoint: str, keys: PublicKeys) -> bytes:
    try:
        envelope = json.loads(due.line)["envelope"]
        receipt = verify_receipt(envelope, keys)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ReceiptInvalidError(f"{_named(due)}: not a bundle with an envelope; make it anew") from None
    except VerificationError as error:
        raise ReceiptInvalidError(f"{_named(due)}: {error}") from error
    if (receipt.request_id, receipt.payload_sha256) != (due.request_id, due.receipt_sha256):
        raise ReceiptInvalidError(
            f"{_named(due)}: not the one that the ledger names there; make the package anew"
        )
    if due.is_told:
        _check_agrees(due, receipt)
    bundle = make_bundle(
        envelope, index=due.index, entry=due.entry, inclusion=due.inclusion, checkpoint=checkpoint
    )
    return _LINE.encode(bundle).encode() + b"\n"


def _check_agrees(due: Due, receipt: Receipt) -> None:
    """Raise `ReceiptInvalidError` where a receipt says other things than the entries about its request."""
    # The service signs what stands in the row of a request: a row that was changed by other hands shows here.
    votes = tuple((vote.voter, vote.verdict.value, vote.channel.value) for vote in receipt.votes)
    granted = to_json(receipt.grant) if receipt.grant else None
    said = {
        "requesters": (receipt.requesters, due.requesters),
        "votes": (votes, due.votes),
        "action": (receipt.action_digest, due.action_digest),
        "policy": (receipt.policy_digest, due.policy_digest),
        "grant": (granted, due.granted),
    }
    wrong = [name for name, (found, expected) in said.items() if found != expected]
    if wrong:
        raise ReceiptInvalidError(
            f"{_named(due)}: its {' and '.join(wrong)} are not those of the ledger; keep the database as "
            "it is, and ask who has changed the request in it"
        )


def _named(due: Due) -> str:
    return f"the receipt of request {due.request_id}, at ledger entry {due.index}"


def _beside() -> int:
    """Return how many processes verify beside this one."""
    return max(1, min(_MOST, (os.cpu_count() or 1) - 1))
