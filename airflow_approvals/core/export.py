"""The ledger as one file that stands on its own, and the verification that names what is wrong with it.

JSON Lines, written and read as a stream, so that memory does not grow with the ledger:

    {"format":"airflow-approvals-ledger-export/1","head":"<signed checkpoint>","keys":[…]}
    ["<leaf hash, hex>",<entry 0>]
    ["<leaf hash, hex>",<entry 1>]
    {"checkpoint":"<signed checkpoint of the first 2 entries>"}
    …

An entry stands there as the very bytes that were hashed. Its stored leaf hash tells which of the entries was
changed; checkpoints along the way tell where, when leaf hashes were changed to fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import BinaryIO, NoReturn

from airflow_approvals.core.canonical import canonical_json
from airflow_approvals.core.checkpoint import Checkpoint, StatedHead, stated_head, verify_checkpoint
from airflow_approvals.core.errors import ConfigurationError, LedgerTamperedError, VerificationError
from airflow_approvals.core.merkle import EMPTY_ROOT, Frontier, grow, root_of
from airflow_approvals.core.signature import PublicKey, PublicKeys, public_keys_from_json

FORMAT = "airflow-approvals-ledger-export/1"
MAX_LINE = 1 << 24  # bytes; a request over a folder of 100,000 parts has about 15 million
CHECKPOINT_SPACING = 100  # entries; a signature takes as long to verify as about thirty of them

_BODY = 68  # where the entry begins: after `["`, 64 hex digits, `",`
# Names are in canonical order and values are escaped: nothing inside an entry's data can look like its end.
_ENTRY_END = re.compile(
    rb',"index":(0|[1-9][0-9]*),"kind":"[a-z_.]+","request_id":(?:null|"[^"\\]*"),'
    rb'"time":"[0-9T:.Z-]+","v":1\}\]\n'
)
_NEXT_STEP = "keep this file, ask for a fresh export, and compare with checkpoints kept elsewhere"


@dataclass(frozen=True, kw_only=True)
class LedgerReport:
    """What a verified export holds."""

    origin: str
    entries: int
    root: str  # hex
    head: Checkpoint
    checkpoints: int  # verified inside the file, the head included
    known_checkpoints: int  # given from outside, and agreeing
    known_size: int  # entries under the largest of them
    keyids: tuple[str, ...]  # of the keys that were accepted
    trust_on_first_use: (
        bool  # True: the keys came with the file, so it proves only that it agrees with itself
    )


def write_export(
    stream: BinaryIO,
    *,
    keys: Iterable[PublicKey],
    head: str,
    entries: Iterable[tuple[bytes, bytes]],
    checkpoints: Iterable[str] = (),
    spacing: int = CHECKPOINT_SPACING,
) -> int:
    """Write the ledger up to the checkpoint `head` and return the number of entries written.

    `entries` are (body, stored leaf hash) in order from the first; `checkpoints` are kept notes in order of
    size. Of those that agree with the leaves one per `spacing` entries is written, of the others every one:
    they are the evidence. Nothing is verified here, and a damaged ledger can be exported.
    """
    header = {"format": FORMAT, "head": head, "keys": [key.to_json() for key in keys]}
    stream.write(canonical_json(header) + b"\n")
    notes = (stated_head(note) for note in checkpoints)
    limit, next_size, frontier = stated_head(head).size, spacing, Frontier()
    note = next(notes, None)
    for body, leaf in islice(entries, limit):
        stream.write(b'["%b",%b]\n' % (leaf.hex().encode(), body))
        frontier, _ = grow(frontier, leaf)
        while note and note.size <= frontier.size:
            if next_size <= note.size < limit or not _agrees(note, frontier):
                stream.write(canonical_json({"checkpoint": note.note}) + b"\n")
                next_size = note.size + spacing
            note = next(notes, None)
    return frontier.size


def verify_export(
    stream: BinaryIO, trusted_keys: PublicKeys | None, *, known: Iterable[Checkpoint] = ()
) -> LedgerReport:
    """Verify a whole export; raise `VerificationError`, or `LedgerTamperedError` naming what is wrong.

    `trusted_keys` None accepts the keys inside the file, and the report says so. `known` are verified
    checkpoints from elsewhere (receipts, an earlier export): without one, an export that was cut back to an
    earlier signed head cannot be told from one that was made then.
    """
    lines = iter(partial(stream.readline, MAX_LINE), b"")
    head_note, keys = _read_header(next(lines, b""), trusted_keys)
    head = verify_checkpoint(head_note, keys)
    others = sorted(known, key=lambda checkpoint: checkpoint.size)
    strange = next((other.origin for other in others if other.origin != head.origin), None)
    if strange is not None:
        raise VerificationError(
            f"a checkpoint given from outside is of another ledger: expected {head.origin}, found {strange}; "
            "give receipts and checkpoints of this one"
        )
    walk = _Walk(head, keys, others)
    walk.follow(lines)
    walk.check_end()
    return LedgerReport(
        origin=head.origin,
        entries=head.size,
        root=head.root.hex(),
        head=head,
        checkpoints=walk.checkpoints + 1,
        known_checkpoints=len(others),
        known_size=others[-1].size if others else 0,
        keyids=tuple(keys),
        trust_on_first_use=trusted_keys is None,
    )


class _Walk:
    """One pass over the lines: the tree so far, and how much of it signed checkpoints have confirmed."""

    def __init__(self, head: Checkpoint, keys: PublicKeys, known: list[Checkpoint]) -> None:
        self.head = head
        self.keys = keys
        self.known = known
        self.peaks: list[bytes] = []
        self.size = 0
        self.confirmed = 0  # entries
        self.checkpoints = 0

    def follow(self, lines: Iterator[bytes]) -> None:
        """Read every line. The loop runs once per entry: it is written out flat to keep verification fast."""
        stops = [*sorted({checkpoint.size for checkpoint in (self.head, *self.known)} - {0}), -1]
        stop = stops.pop(0)
        peaks, size, find_end = self.peaks, 0, _ENTRY_END.fullmatch
        for line in lines:
            leaf = sha256(b"\x00" + line[_BODY:-2])
            if not line.startswith(b'["' + leaf.hexdigest().encode() + b'",{"actor":"'):
                self.size = size
                self._read_checkpoint(line)
                continue
            end = find_end(line, line.rfind(b',"index":'))
            if end is None or int(end[1]) != size:
                self.size = size
                self._name_fault(line)
            digest = leaf.digest()
            size += 1
            complete = size
            while not complete & 1:
                digest = sha256(b"\x01" + peaks.pop() + digest).digest()
                complete >>= 1
            peaks.append(digest)
            if size == stop:
                self.size, stop = size, stops.pop(0)
                self._check_stops()
        self.size = size

    def check_end(self) -> None:
        """Raise unless the file held as many entries as its own head and every known checkpoint state."""
        if self.size < self.head.size:
            self._fail(f"{_entries(self.size, self.head.size)} missing: the file ends too early", self.size)
        if self.size > self.head.size:
            self._fail(
                f"{_entries(self.head.size, self.size)} not covered by the signed head", self.head.size
            )
        if self.size == 0 and self.head.root != EMPTY_ROOT:
            self._fail("the signed head of the empty ledger has another root", None)
        newest = max((checkpoint.size for checkpoint in self.known), default=0)
        if newest > self.size:
            self._fail(
                f"{_entries(self.size, newest)} missing: a checkpoint from elsewhere states {newest} entries",
                self.size,
            )

    def _read_checkpoint(self, line: bytes) -> None:
        if not line.startswith(b'{"checkpoint":'):
            self._name_fault(line)
        try:
            note = json.loads(line)["checkpoint"]
            checkpoint = verify_checkpoint(
                note if isinstance(note, str) else "", self.keys, origin=self.head.origin
            )
        except (ValueError, KeyError, TypeError, RecursionError, VerificationError) as error:
            reason = error if isinstance(error, VerificationError) else "it cannot be read"
            raise LedgerTamperedError(
                f"the checkpoint after {self.size} entries is not valid: {reason}"
            ) from None
        if checkpoint.size != self.size:
            first = min(checkpoint.size, self.size)
            self._fail(
                f"entry {first} missing or out of place: a checkpoint stands after the wrong entry", first
            )
        self._check_root(checkpoint, "the signed checkpoint after them")
        self.checkpoints += 1

    def _check_stops(self) -> None:
        for checkpoint in self.known:
            if checkpoint.size == self.size:
                self._check_root(
                    checkpoint, "a checkpoint from elsewhere, so the ledger was rewritten or forked"
                )
        if self.head.size == self.size:
            self._check_root(self.head, "the signed head")

    def _check_root(self, checkpoint: Checkpoint, against: str) -> None:
        if checkpoint.root != root_of(Frontier(size=self.size, peaks=tuple(self.peaks))):
            only = self.confirmed == self.size - 1
            where = (
                f"entry {self.confirmed}" if only else f"between entry {self.confirmed} and {self.size - 1}"
            )
            self._fail(
                f"{where}: what stands there disagrees with {against}", self.confirmed if only else None
            )
        self.confirmed = self.size

    def _name_fault(self, line: bytes) -> NoReturn:
        """Raise for a line that is no valid entry `self.size`."""
        place = self.size
        if line.endswith(b"\r\n"):
            self._fail(f"entry {place}: line ends were converted (CRLF); hand files on unchanged", None)
        if not line.endswith(b"\n"):
            self._fail(f"entry {place} is cut off, or longer than {MAX_LINE} bytes", place)
        stored, body = line[2 : _BODY - 2], line[_BODY:-2]
        if not (line.startswith(b'["') and line[_BODY - 2 : _BODY] == b'",' and line.endswith(b"]\n")):
            self._fail(f"entry {place}: the line is neither an entry nor a checkpoint", place)
        if sha256(b"\x00" + body).hexdigest().encode() != stored:
            self._fail(f"entry {place}: its body and its stored leaf hash do not belong together", place)
        found = _index_in(body)
        if found is None:
            self._fail(f"entry {place} has not the form of a ledger entry", place)
        if found > place:
            self._fail(f"entry {place} missing: entry {found} stands in its place", place)
        # Which of two entries with one index is false is known only if a checkpoint has confirmed the first.
        self._fail(
            f"entry {found} stands there again, in the place of entry {place}", max(found, self.confirmed)
        )

    def _fail(self, message: str, index: int | None) -> NoReturn:
        raise LedgerTamperedError(f"{message}; {_NEXT_STEP}", index=index)


def keys_brought_by(line: bytes) -> PublicKeys:
    """Return the public keys in the first line of an export; raise `VerificationError` for none."""
    return _read_header(line, None)[1]


def _agrees(note: StatedHead, frontier: Frontier) -> bool:
    at = frontier if note.size else Frontier()
    return note.size == at.size and note.root == root_of(at)


def _read_header(line: bytes, trusted_keys: PublicKeys | None) -> tuple[str, PublicKeys]:
    try:
        match json.loads(line):
            case {"format": str(found), "head": str(head), "keys": keys} if found == FORMAT:
                return head, public_keys_from_json(keys) if trusted_keys is None else trusted_keys
    except (ValueError, RecursionError, ConfigurationError):
        pass
    raise VerificationError(f"not a ledger export of the form {FORMAT}; give a file made by `ledger export`")


def _index_in(body: bytes) -> int | None:
    end = _ENTRY_END.fullmatch(body + b"]\n", max(body.rfind(b',"index":'), 0))
    return int(end[1]) if end and body.startswith(b'{"actor":"') else None


def _entries(start: int, end: int) -> str:
    return f"entry {start}" if end - start == 1 else f"entries {start} to {end - 1}"
