"""Checkpoints: the size and root of the ledger at a moment, signed, as C2SP tlog-checkpoint signed notes.

    example.org/airflow-approvals          the origin: which ledger, and the name of its key
    1042                                   entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
    time 2026-01-31T08:15:00.000000Z       an extension line
                                           (blank)
    — example.org/airflow-approvals Az3grl…

A note is kept and passed on as the text that was signed.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from airflow_approvals.core.errors import InvalidRequestError, VerificationError
from airflow_approvals.core.moments import rfc3339, time_of
from airflow_approvals.core.signature import PublicKey, PublicKeys, Signer, public_key_from_json

_MAX_NOTE = 100_000  # characters; ours have about 300, witnesses may add lines
_MAX_SIGNATURES = 100
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_SIGNATURE_LINE = re.compile(r"— (\S+) ([A-Za-z0-9+/]+={0,2})")
_NEXT_STEP = "ask for the checkpoint again, and compare with one kept elsewhere"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A ledger head whose signature was verified; `note` is the text as it was signed."""

    origin: str
    size: int  # entries
    root: bytes
    time: datetime | None
    keyid: str
    note: str


@dataclass(frozen=True, kw_only=True)
class StatedHead:
    """A ledger head that somebody states in a note; nothing was verified."""

    size: int
    root: bytes
    note: str


def checkpoint_text(*, origin: str, size: int, root: bytes, time: datetime | None) -> str:
    """Return the lines that get signed."""
    check_origin(origin)
    if size < 0 or len(root) != 32:
        raise InvalidRequestError("a checkpoint needs a size of 0 or more and a root of 32 bytes")
    extension = f"time {rfc3339(time)}\n" if time else ""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n{extension}"


def sign_checkpoint(*, origin: str, size: int, root: bytes, time: datetime | None, signer: Signer) -> str:
    """Return the signed note of a ledger head."""
    text = checkpoint_text(origin=origin, size=size, root=root, time=time)
    key = public_key_from_json(signer.public_key_json())
    signature = _key_hash(origin, key) + signer.sign(text.encode())
    return f"{text}\n— {origin} {base64.b64encode(signature).decode()}\n"


def verify_checkpoint(note: str, keys: PublicKeys, *, origin: str | None = None) -> Checkpoint:
    """Return the ledger head that `note` states.

    Raises `VerificationError` unless it is well formed, of this `origin` (if one is expected), and signed by
    one of `keys`. A signature that names a known key and is wrong is refused even beside a good one; those of
    unknown keys are skipped, as the format wants it.
    """
    # 1. the shape of the note, 2. who signed it, 3. what it says
    text, signatures = _split_note(note)
    keyid = _verify_signatures(text, signatures, keys)
    found_origin, size, root, time = _read_text(text)
    if origin not in (None, found_origin):
        raise VerificationError(f"the checkpoint is of another ledger than {origin}; {_NEXT_STEP}")
    return Checkpoint(origin=found_origin, size=size, root=root, time=time, keyid=keyid, note=note)


def stated_head(note: str) -> StatedHead:
    """Return what a kept note claims, without verifying anything; size 0 and no root if it cannot be read."""
    try:
        text, _ = _split_note(note)
        _, size, root, _ = _read_text(text)
    except VerificationError:
        return StatedHead(size=0, root=b"", note=note)
    return StatedHead(size=size, root=root, note=note)


def check_origin(origin: str) -> None:
    """Raise `InvalidRequestError` unless `origin` can name a ledger and its key in a signed note."""
    if not origin or not origin.isprintable() or "+" in origin or any(char.isspace() for char in origin):
        raise InvalidRequestError(
            "the ledger's origin must be one printable word without spaces and plus signs, "
            "such as example.org/approvals"
        )


def _key_hash(name: str, key: PublicKey) -> bytes:
    return sha256(name.encode() + b"\n" + key.note_identity).digest()[:4]


def _split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    if len(note) > _MAX_NOTE or any(char < " " and char != "\n" for char in note):
        raise VerificationError(f"the checkpoint is too long or has control characters; {_NEXT_STEP}")
    text, blank, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if not blank or lines.pop() != "" or not 0 < len(lines) <= _MAX_SIGNATURES:
        raise VerificationError(
            f"the checkpoint is no signed note: text, blank line, signatures; {_NEXT_STEP}"
        )
    return text + "\n", [_read_signature(line) for line in lines]


def _read_signature(line: str) -> tuple[str, bytes]:
    match = _SIGNATURE_LINE.fullmatch(line)
    if not match:
        raise VerificationError(f"a signature line of the checkpoint is malformed; {_NEXT_STEP}")
    return match[1], _base64(match[2])


def _verify_signatures(text: str, signatures: list[tuple[str, bytes]], keys: PublicKeys) -> str:
    try:
        signed = text.encode()
    except UnicodeEncodeError:
        raise VerificationError(f"the checkpoint is not valid UTF-8; {_NEXT_STEP}") from None
    verified = []
    for name, signature in signatures:
        for key in keys.values():
            if signature[:4] == _key_hash(name, key):
                key.verify(signature[4:], signed)
                # Only the ledger's own key names a head: a cosigner's name is its own, not the origin's.
                verified += [key.keyid] if name == text.partition("\n")[0] else []
    if not verified:
        raise VerificationError(
            f"the checkpoint is signed by none of the {len(keys)} known keys; "
            "get the ledger's public key from its owner, or ask for the checkpoint again"
        )
    return verified[0]


def _read_text(text: str) -> tuple[str, int, bytes, datetime | None]:
    lines = text.split("\n")[:-1]
    if len(lines) < 3:
        raise VerificationError(f"the checkpoint has fewer lines than origin, size and root; {_NEXT_STEP}")
    origin, size, root, *extensions = lines
    times = [line.removeprefix("time ") for line in extensions if line.startswith("time ")]
    digest = _base64(root)
    if not _SIZE.fullmatch(size) or len(digest) != 32 or len(times) > 1 or "" in extensions:
        raise VerificationError(f"the checkpoint does not state a size and a root of 32 bytes; {_NEXT_STEP}")
    try:
        check_origin(origin)
        return origin, int(size), digest, time_of(times[0]) if times else None
    except InvalidRequestError as error:
        raise VerificationError(f"the checkpoint does not state a ledger head: {error}") from None


def _base64(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    # Also refuses bits after the end, which decoders ignore: two texts must not mean the same.
    if not value or base64.b64encode(value).decode() != text:
        raise VerificationError(f"the checkpoint holds malformed base64; {_NEXT_STEP}")
    return value
