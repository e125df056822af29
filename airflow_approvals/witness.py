"""Witness: signed heads of the ledger, kept where whoever owns database and key cannot change them.

A Slack channel or lineage keeps them as lines, which people copy. Else a witness is a folder, local or in
an object store, best in another account with object lock. Every head is one small file named by its number of
entries, written once and never again; the public keys lie beside them. What was signed and published binds
the ledger for good: a ledger that was cut, edited, reordered, forked or signed anew does not agree with older
heads, however well it agrees with itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from airflow_approvals.core.checkpoint import Checkpoint, verify_checkpoint
from airflow_approvals.core.errors import (
    ApprovalsError,
    ConfigurationError,
    LedgerTamperedError,
    ServiceUnavailableError,
    VerificationError,
)
from airflow_approvals.core.heads import heads_in
from airflow_approvals.core.signature import (
    PublicKey,
    PublicKeys,
    by_keyid,
    public_keys_in,
)
from airflow_approvals.ports import Store

_NOTE = re.compile(r"([0-9]{12})\.checkpoint", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{64}\.key\.json", re.ASCII)
_MAX_BYTES = 100_000
Answered = TypeVar("Answered")


LINEAGE = "lineage"
"""In place of an address: heads are told as events, through Airflow's OpenLineage transport."""
SLACK = "slack://"
"""How the address of a channel begins: slack://CONN_ID/CHANNEL."""


def addresses_in(setting: str) -> tuple[str, ...]:
    """Return the addresses of `[approvals] witness`, each once."""
    return tuple(dict.fromkeys(setting.replace(",", " ").split()))


def is_folder(address: str) -> bool:
    """Return whether heads are kept there as files, which can be read again."""
    return address != LINEAGE and not address.startswith(SLACK)


class Folder(Protocol):
    """Where files are written once."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> str: ...

    def write_once(self, name: str, text: str) -> None:
        """Write a file that is not there yet; one that is there stays."""


@dataclass(frozen=True, kw_only=True)
class Witnessed:
    """Every head that a witness has kept, verified, smallest first."""

    checkpoints: tuple[Checkpoint, ...]
    keys: PublicKeys


def open_witness(uri: str) -> Folder:
    """Return the folder at a local path or a URI of Airflow's `ObjectStoragePath`."""
    if "://" not in uri:
        return _LocalFolder(Path(uri))
    if uri.startswith("file://"):
        return _LocalFolder(Path(uri.removeprefix("file://")))
    return _StoredFolder(uri)


def publish(folder: Folder, store: Store, *, size: int, note: str, keys: PublicKeys) -> bool:
    """Keep the head `note` of `size` entries in `folder`; return whether it was new there.

    Raises `LedgerTamperedError` when the ledger does not go on from the newest head that the witness has, or
    when it has another head of this size: then nothing is published, and what the witness holds is the proof.
    """
    names = folder.names()
    kept = sorted(name for name in names if _NOTE.fullmatch(name))
    if kept:
        # Another API server may have published a newer head since `size` was read.
        _check_goes_on(verify_checkpoint(folder.read(kept[-1]), keys), store, store.ledger_size())
    for key in keys.values():
        if f"{key.keyid}.key.json" not in names:
            folder.write_once(f"{key.keyid}.key.json", json.dumps(key.to_json()))
    name = f"{size:012d}.checkpoint"
    if name not in names:
        folder.write_once(name, note)
    if _head(folder.read(name), keys) != _head(note, keys):
        raise LedgerTamperedError(
            f"the witness holds another head of {size} entries: the ledger was forked; keep both, export the "
            "ledger, and verify it with --witness"
        )
    return name not in names


def read_witness(folder: Folder, keys: PublicKeys | None) -> Witnessed:
    """Return what the witness has kept; raise `VerificationError` unless every head of it is genuine.

    `keys` None takes the keys that the witness has kept: the ledger itself is not asked for any.
    """
    names = folder.names()
    known = keys if keys is not None else by_keyid(_keys(folder, names))
    notes = sorted(name for name in names if _NOTE.fullmatch(name))
    if not notes:
        raise VerificationError(
            "the witness holds no checkpoint: it cannot speak for this ledger; check its path"
        )
    if not known:
        raise VerificationError("the witness keeps no public key beside its heads; give one that you know")
    found = []
    for name in notes:
        with _in_file(name):
            checkpoint = verify_checkpoint(folder.read(name), known)
        if f"{checkpoint.size:012d}.checkpoint" != name:
            raise VerificationError(f"the witness's file {name} holds a head of {checkpoint.size} entries")
        found.append(checkpoint)
    return Witnessed(checkpoints=tuple(found), keys=known)


def read_lines(text: str, keys: PublicKeys) -> tuple[Checkpoint, ...]:
    """Return the heads whose lines were copied into `text`; raise `VerificationError` for a wrong one."""
    heads = heads_in(text)
    if not heads:
        raise VerificationError(
            "there is no head of a ledger in what was given as witness; copy the whole line, from "
            '"Ledger head of" to the end of the signature, or name the folder where heads are published'
        )
    return tuple(verify_checkpoint(head.note, keys) for head in heads)


def check_witness(folder: Folder, store: Store) -> str:
    """Return in words how far the witness speaks for the ledger; raise where it speaks against it."""
    seen, size = read_witness(folder, None), store.ledger_size()
    newest = seen.checkpoints[-1]
    _check_goes_on(newest, store, size)
    heads = len(seen.checkpoints)
    return f"{heads} heads kept; the ledger goes on from the newest, of {newest.size} of its {size} entries"


def _check_goes_on(newest: Checkpoint, store: Store, size: int) -> None:
    if newest.size > size or store.ledger_root(newest.size) != newest.root:
        raise LedgerTamperedError(
            f"the ledger has {size} entries and does not go on from the head of {newest.size} that the "
            "witness has kept: it was cut back or rewritten; keep the database as it is, export the ledger, "
            "and verify it with --witness"
        )


def _head(note: str, keys: PublicKeys) -> tuple[str, int, bytes]:
    checkpoint = verify_checkpoint(note, keys)
    return checkpoint.origin, checkpoint.size, checkpoint.root


def _keys(folder: Folder, names: list[str]) -> Iterator[PublicKey]:
    for name in names:
        if _KEY.fullmatch(name):
            with _in_file(name):
                yield from public_keys_in(folder.read(name)).values()


@contextmanager
def _in_file(name: str) -> Iterator[None]:
    """Say in every error which file of the witness it is about."""
    try:
        yield
    except ApprovalsError as error:
        error.add_note(f"the witness's file {name}")
        raise


class _LocalFolder:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        if not self._path.is_dir():
            return []
        return [entry.name for entry in self._path.iterdir()]

    def read(self, name: str) -> str:
        # What is no text is no genuine head either: reading goes on, verifying does not.
        with (self._path / name).open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_MAX_BYTES)

    def write_once(self, name: str, text: str) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        path = self._path / name
        try:
            stream = path.open("x", encoding="utf-8")
        except FileExistsError:
            return
        try:
            with stream:
                stream.write(text)
        except BaseException:
            # Half a head, of a disk that is full, would silence the witness for good.
            path.unlink(missing_ok=True)
            raise


class _StoredFolder:
    """A prefix in an object store that Airflow has a connection to."""

    def __init__(self, uri: str) -> None:
        try:
            from airflow.sdk import ObjectStoragePath
        except ImportError:
            raise ConfigurationError(
                f"witness {uri}: only Airflow can read this kind of address; copy its files to a folder "
                "here, and name that"
            ) from None
        self._uri = uri
        self._path: Any = self._asked(lambda: ObjectStoragePath(uri))

    def names(self) -> list[str]:
        def listed() -> list[str]:
            return [str(entry.name) for entry in self._path.iterdir()] if self._path.exists() else []

        return self._asked(listed)

    def read(self, name: str) -> str:
        def text() -> str:
            return str(self._path.joinpath(name).read_text(encoding="utf-8", errors="replace"))[:_MAX_BYTES]

        return self._asked(text)

    def write_once(self, name: str, text: str) -> None:
        def write() -> None:
            target = self._path.joinpath(name)
            if not target.exists():
                target.write_text(text, encoding="utf-8")

        self._asked(write)

    def _asked(self, ask: Callable[[], Answered]) -> Answered:
        try:
            return ask()
        except Exception as error:
            # Every store's client has errors of its own, and their messages may repeat credentials.
            raise ServiceUnavailableError(
                f"witness {self._uri}: cannot be reached ({type(error).__name__}); check the address and the "
                "connection"
            ) from error
