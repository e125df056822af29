"""Publishing to S3: an object appears when its multipart upload is completed, and not before.

All parts of the dataset are uploaded, and every digest is compared, before the first upload is completed; on
any error all uploads are aborted. One object is therefore as before or complete, at any moment. S3 has no
such step for a folder: its objects are completed one after the other, and

- an error among them removes the ones that this run completed (fresh keys, so nothing older is lost);
- a kill among them, or a lost answer, leaves some. The next publish of the same dataset keeps those that
  hold exactly the approved bytes and adds the rest; `verify_published` tells whether all are there;
- a prefix that holds anything else is refused, and `overwrite` is refused for folders.

Completions carry `If-None-Match: *`, so that nobody's object is replaced without `overwrite`. Uploads of a
writer that was killed are invisible; a lifecycle rule (AbortIncompleteMultipartUpload) on the bucket ends
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from airflow_approvals.core.errors import DestinationError
from airflow_approvals.core.model import FileDigest
from airflow_approvals.staging.copying import BUFFER, Write, copy_hashed
from airflow_approvals.staging.locations import Listing, ObjectLocation

PART_LIMIT = 10_000  # parts of one upload, S3's own limit
SMALLEST_PART = 16 * 1024 * 1024  # bytes; S3's own limit is 5 MiB


class S3Target:
    """One key, or one prefix, that a file or folder is published to."""

    def __init__(self, place: ObjectLocation, *, overwrite: bool) -> None:
        if place.uri.endswith("/") or "/" not in place.key:
            raise DestinationError(f"{place.uri}: is no key; name the object or prefix that shall appear")
        self._place = place
        self._overwrite = overwrite

    @contextmanager
    def stage(self, listing: Listing, wanted: Mapping[str, FileDigest]) -> Iterator[StagedObjects]:
        staged = StagedObjects(self._place, wanted, is_folder=listing.is_folder, overwrite=self._overwrite)
        try:
            staged.check_free()
            yield staged
        except OSError as error:
            raise DestinationError(
                f"{self._place.uri}: cannot be written ({type(error).__name__}); it is as it was before; "
                "check the connection and its rights"
            ) from error
        finally:
            staged.abort()


@dataclass
class _Upload:
    """One pending multipart upload."""

    bucket: str
    key: str
    id: str
    done: list[dict[str, Any]] = field(default_factory=list)

    @property
    def words(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key, "UploadId": self.id}


class StagedObjects:
    """Pending uploads: invisible until completed."""

    def __init__(
        self,
        place: ObjectLocation,
        wanted: Mapping[str, FileDigest],
        *,
        is_folder: bool,
        overwrite: bool,
    ) -> None:
        self._place = place
        self._fs = place.fs
        self._wanted = wanted
        self._is_folder = is_folder
        self._overwrite = overwrite
        self._pending: list[_Upload] = []
        self._present: set[str] = set()  # parts that are there already with the approved bytes

    def check_free(self) -> None:
        """Raise `DestinationError` when something else is there."""
        self._fs.invalidate_cache()
        if not self._is_folder:
            if self._fs.exists(self._place.key) and not self._overwrite:
                raise DestinationError(
                    f"{self._place.uri}: is there already and stays as it is; publish to a new key, "
                    "or ask with overwrite"
                )
            return
        if self._overwrite:
            raise DestinationError(
                f"{self._place.uri}: S3 cannot replace a folder in one step; publish to a new prefix"
            )
        for key in [*self._fs.find(self._place.key + "/"), *self._own_key()]:
            name = str(key).removeprefix(self._place.key + "/")
            if name not in self._wanted or not self._holds(name):
                raise DestinationError(
                    f"{self._place.uri}: holds an object that is not of this dataset; publish to a new prefix"
                )
            self._present.add(name)

    @contextmanager
    def open_sink(self, name: str) -> Iterator[Write]:
        if name in self._present:
            yield lambda data: None  # proven to be there; the source is read for its digest alone
            return
        bucket, key = self._address(name)
        answer = self._fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
        upload = _Upload(bucket, key, answer["UploadId"])
        self._pending.append(upload)
        size = self._wanted[name].size
        # Whole multiples of the copy buffer, larger only where 10,000 parts would not be enough.
        part_size = max(SMALLEST_PART, -(-size // PART_LIMIT // BUFFER) * BUFFER + BUFFER)
        held = bytearray()

        def write(data: memoryview) -> None:
            held.extend(data)
            if len(held) >= part_size:
                self._send(upload, held)
                held.clear()

        yield write
        if held or not upload.done:
            self._send(upload, held)

    def appear(self) -> None:
        completed: list[tuple[str, str, str | None]] = []
        try:
            while self._pending:
                upload = self._pending[0]
                completed.append((upload.bucket, upload.key, self._complete(upload)))
                self._pending.pop(0)
        except BaseException:
            if not self._overwrite:
                for bucket, key, version in completed:
                    which = {"VersionId": version} if version else {}
                    self._fs.call_s3("delete_object", Bucket=bucket, Key=key, **which)
            raise
        finally:
            self._fs.invalidate_cache()

    def abort(self) -> None:
        """End every upload that was not completed."""
        for upload in self._pending:
            with suppress(OSError):  # gone already, or left to the bucket's lifecycle rule
                self._fs.call_s3("abort_multipart_upload", **upload.words)

    def _send(self, upload: _Upload, data: bytearray) -> None:
        number = len(upload.done) + 1
        answer = self._fs.call_s3("upload_part", **upload.words, PartNumber=number, Body=bytes(data))
        upload.done.append({"PartNumber": number, "ETag": answer["ETag"]})

    def _complete(self, upload: _Upload) -> str | None:
        condition = {} if self._overwrite else {"IfNoneMatch": "*"}
        answer = self._fs.call_s3(
            "complete_multipart_upload",
            **upload.words,
            MultipartUpload={"Parts": upload.done},
            **condition,
        )
        version = answer.get("VersionId")
        return str(version) if version else None

    def _address(self, name: str) -> tuple[str, str]:
        whole = f"{self._place.key}/{name}" if self._is_folder else self._place.key
        bucket, _, key = whole.partition("/")
        return bucket, key

    def _own_key(self) -> list[str]:
        return [self._place.key] if self._fs.isfile(self._place.key) else []

    def _holds(self, name: str) -> bool:
        with self._fs.open(f"{self._place.key}/{name}", "rb", cache_type="readahead") as file:
            found = copy_hashed(file, None, name)
        return found == self._wanted[name]
