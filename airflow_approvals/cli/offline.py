"""Verification that needs nothing but files and public keys: no Airflow, no database, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_approvals.core.checkpoint import Checkpoint, verify_checkpoint
from airflow_approvals.core.dsse import read_json
from airflow_approvals.core.errors import (
    ApprovalsError,
    ConfigurationError,
    DigestMismatchError,
    InvalidRequestError,
    ReceiptInvalidError,
    SourceMissingError,
    VerificationError,
)
from airflow_approvals.core.export import FORMAT, MAX_LINE, LedgerReport, keys_brought_by, verify_export
from airflow_approvals.core.heads import heads_in
from airflow_approvals.core.receipt import Receipt, Subject, verify_bundle, verify_receipt
from airflow_approvals.core.signature import PublicKey, PublicKeys, by_keyid, public_keys_in

if TYPE_CHECKING:
    from airflow_approvals.evidence.package import Package

_EXPORT_START = f'{{"format":"{FORMAT}"'.encode()
_BUFFER = 1 << 20
MANIFEST = "manifest.json"
"""By this file the folder of an evidence package is known."""


@dataclass(frozen=True, kw_only=True)
class VerifiedReceipt:
    """A receipt that holds; `receipt.ledger` is None when it came without its place in the ledger."""

    path: Path
    receipt: Receipt
    data: tuple[Path, ...]  # local files and folders whose bytes are the approved ones


@dataclass(frozen=True, kw_only=True)
class VerifiedLedger:
    """A ledger export that holds."""

    name: str  # its path, or the server that it comes from
    report: LedgerReport


def verify_paths(
    paths: Sequence[Path],
    keys: PublicKeys | None,
    *,
    data: Sequence[Path] = (),
    checkpoints: Sequence[Path] = (),
) -> tuple[VerifiedReceipt | VerifiedLedger | Package, ...]:
    """Verify receipts, ledger exports and evidence packages; raise for the first that is wrong.

    `data` are local files or folders that every receipt must name. The checkpoints inside bundles, and the
    notes in the files `checkpoints`, must agree with every ledger. An error carries the path as its note.
    """
    packages = [path for path in paths if (path / MANIFEST).is_file()]
    exports = [path for path in paths if path not in packages and _is_export(path)]
    single = [path for path in paths if path not in packages and path not in exports]
    # What is given to hold something against must never be left aside: nobody would notice.
    if data and not single:
        raise InvalidRequestError("--file is held against a receipt, and none is given; give the receipt too")
    if checkpoints and not exports and not packages:
        raise InvalidRequestError(
            "--checkpoint is held against a ledger, and none is given; give an export or a package too"
        )
    receipts = [verify_receipt_at(path, keys, data=data) for path in single]
    known = [one.receipt.ledger.checkpoint for one in receipts if one.receipt.ledger]
    ledgers = [verify_ledger_at(path, keys, checkpoints=checkpoints, known=known) for path in exports]
    made = [verify_package_at(path, keys, checkpoints=checkpoints, known=known) for path in packages]
    return (*receipts, *ledgers, *made)


def verify_receipt_at(path: Path, keys: PublicKeys | None, *, data: Sequence[Path] = ()) -> VerifiedReceipt:
    """Verify one receipt (DSSE envelope) or receipt bundle, and that each of `data` is what it approves."""
    if keys is None:
        raise ConfigurationError(
            f"{path}: a receipt does not bring its own key; give the public key of the approvals service as "
            "--key FILE: `airflow-approvals ledger keys FILE` writes it"
        )
    with _about(path):
        value = read_json(_read(path))
        is_bundle = isinstance(value, dict) and "mediaType" in value
        receipt = verify_bundle(value, keys) if is_bundle else verify_receipt(value, keys)
        for local in data:
            check_data(receipt, local)
    return VerifiedReceipt(path=path, receipt=receipt, data=tuple(data))


def verify_package_at(
    path: Path,
    keys: PublicKeys | None,
    *,
    checkpoints: Sequence[Path] = (),
    known: Iterable[Checkpoint] = (),
) -> Package:
    """Verify an evidence package: make it again from its ledger, and compare every byte."""
    from airflow_approvals.evidence.package import verify_package

    outside = [*known, *_kept(path, checkpoints, keys)]
    with _about(path):
        return verify_package(path, keys, known=outside)


def verify_ledger_at(
    path: Path,
    keys: PublicKeys | None,
    *,
    checkpoints: Sequence[Path] = (),
    known: Iterable[Checkpoint] = (),
    witness: str | None = None,
    name: str = "",
) -> VerifiedLedger:
    """Verify one ledger export; `keys` None takes the keys inside it, and the report says so.

    `checkpoints` are files with a signed note each, `known` are verified ones. A `witness` must agree with
    all that it has kept; without `keys`, the keys of a folder are taken and none of the export's. A witness
    can also be lines that were copied from Slack or lineage, or a file with them. `name` is what people are
    told in place of the path.
    """
    if witness is not None:
        from airflow_approvals.witness import open_witness, read_lines, read_witness

        lines = _lines_of(witness)
        if lines is None:
            seen = read_witness(open_witness(witness), keys)
            keys, known = seen.keys, [*known, *seen.checkpoints]
        else:
            known = [*known, *read_lines(lines, _keys_of(path) if keys is None else keys)]
    outside = _kept(path, checkpoints, keys)
    with _about(name or path), path.open("rb", buffering=_BUFFER) as stream:
        report = verify_export(stream, keys, known=[*known, *outside])
    return VerifiedLedger(name=name or str(path), report=report)


def _lines_of(witness: str) -> str | None:
    """Return the text that has the heads; None where they are files in a folder."""
    if heads_in(witness):
        return witness
    local = Path(witness)
    return _read(local).decode("utf-8", "replace") if local.is_file() else None


def _keys_of(path: Path) -> PublicKeys:
    with _about(path), path.open("rb") as stream:
        return keys_brought_by(stream.readline(MAX_LINE))


def load_keys(paths: Sequence[Path]) -> PublicKeys | None:
    """Return the keys of all key files (PEM or JSON); None when no file is given."""
    if not paths:
        return None
    found: list[PublicKey] = []
    for path in paths:
        with _about(path):
            found.extend(public_keys_in(_read(path).decode("utf-8", "replace")).values())
    return by_keyid(found)


def check_from_elsewhere(keys: Sequence[Path], paths: Sequence[Path]) -> None:
    """Raise where a key would vouch for the very folder that it came in."""
    for key in keys:
        for path in paths:
            if path.is_dir() and key.resolve().is_relative_to(path.resolve()):
                raise InvalidRequestError(
                    f"{key}: came with {path}, and cannot vouch for it; give the key that you got elsewhere, "
                    "or leave --key out to see only whether the folder agrees with itself"
                )


def check_data(receipt: Receipt, local: Path) -> None:
    """Raise `DigestMismatchError` unless the local file or folder holds exactly what was approved."""
    if receipt.standing is not None:
        raise ReceiptInvalidError(
            f"{local}: the receipt of request {receipt.request_id} is a standing approval's, which covers no "
            "bytes itself; give the receipt of the run that moved them"
        )
    if local.is_dir():
        _check_folder(receipt, local)
        return
    found = _sha256_of(local)
    if found not in {subject.sha256 for subject in receipt.subjects}:
        expected = ", ".join(subject.sha256 for subject in receipt.subjects[:3])
        raise DigestMismatchError(
            f"{local}: expected digest {expected}, found {found}; these are not the bytes that were approved"
        )


def _check_folder(receipt: Receipt, local: Path) -> None:
    found = {
        path.relative_to(local).as_posix(): _sha256_of(path)
        for path in sorted(local.rglob("*"))
        if path.is_file() and not _is_hidden(path.relative_to(local))
    }
    if not found:
        raise SourceMissingError(f"{local}: no file in this folder; give the folder that was published")
    approved = _dataset_with(receipt.subjects, found)
    wrong = sorted(name for name in found.keys() | approved.keys() if found.get(name) != approved.get(name))
    if wrong:
        raise DigestMismatchError(
            f"{local}: {len(wrong)} of its files differ from what was approved, are missing or are too many, "
            f"the first is {wrong[0]}; this is not the dataset that was approved"
        )


def _dataset_with(subjects: Sequence[Subject], files: dict[str, str]) -> dict[str, str]:
    """Return the approved dataset that shares most with `files`: digests by name within its folder."""
    prefixes = {
        subject.name.removesuffix(name)
        for subject in subjects
        for name in files
        if subject.name.endswith(f"/{name}")
    }
    datasets = [
        {
            subject.name.removeprefix(prefix): subject.sha256
            for subject in subjects
            if subject.name.startswith(prefix)
        }
        for prefix in sorted(prefixes)
    ]
    return max(datasets, key=lambda dataset: len(dataset.items() & files.items()), default={})


def _is_hidden(path: Path) -> bool:
    # Markers such as _SUCCESS are not part of a dataset; they are not published either.
    return any(part.startswith(("_", ".")) for part in path.parts)


def _kept(path: Path, checkpoints: Sequence[Path], keys: PublicKeys | None) -> list[Checkpoint]:
    """Return the checkpoints that were kept elsewhere, to hold the ledger at `path` against."""
    if checkpoints and keys is None:
        raise ConfigurationError(f"{path}: a checkpoint is verified with a public key; give that too")
    return [_checkpoint_at(each, keys or {}) for each in checkpoints]


def _checkpoint_at(path: Path, keys: PublicKeys) -> Checkpoint:
    with _about(path):
        return verify_checkpoint(_read(path).decode("utf-8", "replace"), keys)


@contextmanager
def _about(path: Path | str) -> Iterator[None]:
    """Say in every error which file it is about."""
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from error
    except SourceMissingError:
        raise  # names it by itself
    except ApprovalsError as error:
        error.add_note(str(path))
        raise


def _is_export(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(_EXPORT_START)) == _EXPORT_START
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_LINE + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > MAX_LINE:
        raise VerificationError(
            f"{path}: larger than {MAX_LINE} bytes; neither receipt, key nor ledger export"
        )
    return content


def _sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path | str, error: OSError) -> SourceMissingError:
    if isinstance(error, IsADirectoryError) and (Path(path) / MANIFEST).is_file():
        return SourceMissingError(
            f"{path}: an evidence package; give its ledger.jsonl here, or the folder to "
            "`airflow-approvals verify`"
        )
    if isinstance(error, IsADirectoryError):
        return SourceMissingError(
            f"{path}: a folder without {MANIFEST}; expected a receipt, a ledger export, or a folder that "
            "`evidence` has made"
        )
    return SourceMissingError(f"{path}: cannot be read ({error.strerror}); check the path")
