"""The write itself: bytes are hashed while they are copied, and appear only if they are the approved ones.

Local files appear by link or rename, local folders by one rename: at any moment the destination is as it was
before, or complete. On S3 an object appears when its multipart upload is completed; the parts of a folder are
completed one after the other once all of them are uploaded and proven (`publish_s3` says what that means).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_approvals.core.errors import (
    ConfigurationError,
    DatasetError,
    DestinationError,
    DigestMismatchError,
    SourceMissingError,
)
from airflow_approvals.core.model import FileDigest, Snapshot, dataset_digest
from airflow_approvals.staging.copying import Target, copy_hashed
from airflow_approvals.staging.locations import (
    Listing,
    LocalLocation,
    Location,
    ObjectLocation,
    local_path,
    locate,
)
from airflow_approvals.staging.publish_local import LocalTarget

STORES = ("s3", "s3a")
"""Schemes of the object stores that can be published to."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is at the destination now."""

    sha256: str  # of the file, or of the canonical JSON of `files` for a folder
    size: int  # bytes
    files: tuple[FileDigest, ...]


def publish(
    source_uri: str,
    destination_uri: str,
    *,
    expected: Snapshot | Sequence[FileDigest],
    source_conn_id: str | None = None,
    destination_conn_id: str | None = None,
    overwrite: bool = False,
) -> Published:
    """Copy the dataset to exactly `destination_uri` if, and only if, its bytes are the expected ones.

    Missing folders above the destination are made. What is there already is kept, and refused, unless
    `overwrite`. Raises `DigestMismatchError` (nothing appeared), `DestinationError` (it is as it was), or the
    source's `DatasetError`.
    """
    files = _approved_files(expected)
    source = locate(source_uri, source_conn_id)
    destination = locate(destination_uri, destination_conn_id)
    _check_apart(source, destination)
    listing = source.list_parts()
    wanted = check_names(source_uri, listing, expected)
    target = _target(destination, overwrite=overwrite)
    with target.stage(listing, wanted) as staged:
        for part in listing.parts:
            with source.open_part(part, steady=False) as file, staged.open_sink(part.name) as write:
                found = copy_hashed(file, write, part.name)
            check_digest(part.name, wanted[part.name], found)
        staged.appear()
    return Published(
        sha256=dataset_digest(files, is_folder=listing.is_folder),
        size=sum(file.size for file in files),
        files=tuple(files),
    )


def check_destination(uri: str) -> None:
    """Raise what `publish` would say to this name, whatever is there; no connection is opened.

    Nobody is to be asked for what cannot be done. A protected connection is lent after the approval only.
    """
    path = local_path(uri)
    if path is not None:
        LocalTarget(uri, path, overwrite=False)
    elif uri.partition("://")[0].lower() not in STORES:
        raise _unproven(uri)
    elif uri.endswith("/"):
        raise DestinationError(f"{uri}: ends with a slash; name the object or prefix that shall appear")


def verify_published(
    destination_uri: str, expected: Snapshot | Sequence[FileDigest], *, conn_id: str | None = None
) -> bool:
    """Return whether the destination already holds exactly the approved bytes, every file read again.

    This is for recovery: a write that was killed after it appeared must not be made twice.
    """
    place = locate(destination_uri, conn_id)
    try:
        listing = place.list_parts()
        wanted = check_names(destination_uri, listing, expected)
        for part in listing.parts:
            with place.open_part(part) as file:
                check_digest(part.name, wanted[part.name], copy_hashed(file, None, part.name))
    except (SourceMissingError, DigestMismatchError):
        return False
    return True


def _approved_files(expected: Snapshot | Sequence[FileDigest]) -> Sequence[FileDigest]:
    files = expected.files if isinstance(expected, Snapshot) else tuple(expected)
    if not files:
        raise DatasetError("no file was approved; expected the files of a snapshot")
    return files


def check_names(
    uri: str, listing: Listing, expected: Snapshot | Sequence[FileDigest]
) -> dict[str, FileDigest]:
    """Return what was approved for each part; a part too many or too few is another dataset."""
    files = _approved_files(expected)
    digest = dataset_digest(files, is_folder=listing.is_folder)
    if isinstance(expected, Snapshot) and digest != expected.sha256:
        raise DigestMismatchError(
            f"{uri}: a {'file' if listing.is_folder else 'folder'} was approved, and a "
            f"{'folder' if listing.is_folder else 'file'} is there; nothing was published; "
            "ask for a new approval",
            expected=expected.sha256,
            found=digest,
        )
    if not listing.is_folder and len(files) == 1:
        return {listing.parts[0].name: files[0]}  # a file may be published under another name
    wanted = {file.name: file for file in files}
    found = {part.name for part in listing.parts}
    if not listing.is_folder or found != set(wanted):
        raise DigestMismatchError(
            f"{uri}: {len(files)} files were approved; {len(set(wanted) - found)} of them are missing and "
            f"{len(found - set(wanted))} others are there; nothing was published; ask for a new approval"
        )
    return wanted


def check_digest(name: str, wanted: FileDigest, found: FileDigest) -> None:
    if (found.sha256, found.size) != (wanted.sha256, wanted.size):
        raise DigestMismatchError(
            f"{name}: expected the approved sha256 {wanted.sha256} ({wanted.size} bytes), "
            f"found {found.sha256} ({found.size} bytes); nothing was published; ask for a new approval",
            expected=wanted.sha256,
            found=found.sha256,
        )


def _target(destination: Location, *, overwrite: bool) -> Target:
    if isinstance(destination, LocalLocation):
        return LocalTarget(destination.uri, destination.path, overwrite=overwrite)
    if isinstance(destination, ObjectLocation) and destination.scheme in STORES:
        from airflow_approvals.staging.publish_s3 import S3Target

        return S3Target(destination, overwrite=overwrite)
    raise _unproven(destination.uri)


def _unproven(uri: str) -> ConfigurationError:
    return ConfigurationError(
        f"{uri}: cannot be published to, because appearing at once or not at all is proven for "
        "local paths and s3:// alone; publish to one of these"
    )


def _check_apart(source: Location, destination: Location) -> None:
    if isinstance(source, LocalLocation) and isinstance(destination, LocalLocation):
        one, other = source.path.resolve(), destination.path.resolve()
    elif isinstance(source, ObjectLocation) and isinstance(destination, ObjectLocation):
        if source.scheme != destination.scheme:
            return
        one, other = Path("/", source.key), Path("/", destination.key)
    else:
        return
    if one == other or one in other.parents or other in one.parents:
        raise DestinationError(
            f"{destination.uri}: is the source, lies in it or holds it; publish to a place of its own"
        )
