"""Where datasets lie: local paths without Airflow, object stores through Airflow's `ObjectStoragePath`.

A dataset is one file, or a folder of parts. In a folder, names that begin with `_` or `.` (`_SUCCESS`,
checksums, half-written files) are no part of the dataset, as Hadoop, Spark and Arrow have it: they are not
read, not hashed and never published. Parts are ordered by name, nested folders (`day=1/`) included; names
are all that a folder called `day=1` adds, it makes no column.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from airflow_approvals.core.errors import (
    ConfigurationError,
    InvalidRequestError,
    SourceChangedError,
    SourceMissingError,
    SourceUnreadableError,
)

BLOCK = 8 * 1024 * 1024  # bytes fetched from an object store at a time


class ByteSource(Protocol):
    """An open file of a dataset: all this package ever needs of one."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...
    def seek(self, offset: int, /) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of a dataset: its name within the dataset, and where it is."""

    name: str
    address: str  # a local path, or the object store's own key


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a dataset, sorted by name."""

    is_folder: bool
    parts: tuple[Part, ...]


class Location(Protocol):
    """A place that holds a dataset, or may."""

    uri: str

    def list_parts(self) -> Listing:
        """Return the files; raise `SourceMissingError` when there are none."""

    def open_part(self, part: Part, *, steady: bool = True) -> AbstractContextManager[ByteSource]:
        """Open one file; on leaving, raise `SourceChangedError` if it is no longer what it was.

        Without `steady`, nothing is checked on leaving: for who knows the digest that must come out.
        """


def locate(uri: str, conn_id: str | None = None) -> Location:
    """Return the location that `uri` names; nothing is read yet."""
    path = local_path(uri)
    return LocalLocation(uri, path) if path is not None else ObjectLocation(uri, conn_id)


def local_path(uri: str) -> Path | None:
    """Return the path behind a plain path or a `file://` URI, None for any other scheme.

    Percent signs stand for themselves, as in Airflow. Relative paths and `..` are refused: what they mean
    depends on the worker, and `file:///outbox/../etc` would match a policy that was written for the outbox.
    """
    if "\0" in uri:
        raise InvalidRequestError("a dataset's URI holds a NUL character; name the file or folder exactly")
    if "://" in uri and not uri.startswith("file://"):
        return None
    text = uri.removeprefix("file://")
    if not text.startswith("/"):
        raise InvalidRequestError(
            f"{uri!r} is not an absolute path; expected /folder/file, file:///folder/file or scheme://bucket/key"
        )
    if ".." in text.split("/"):
        raise InvalidRequestError(f"{uri!r} goes up with '..'; name the file or folder directly")
    return Path(text)


def read_fully(source: ByteSource, buffer: memoryview) -> int:
    """Fill the buffer as far as the file goes; return the number of bytes."""
    count = 0
    while count < len(buffer) and (more := source.readinto(buffer[count:])):
        count += more
    return count


def is_hidden(name: str) -> bool:
    """Return whether any step of a relative name begins with `_` or `.`."""
    return any(step.startswith(("_", ".")) for step in name.split("/"))


class LocalLocation:
    """A file or folder on this machine."""

    def __init__(self, uri: str, path: Path) -> None:
        self.uri = uri
        self.path = path

    def list_parts(self) -> Listing:
        try:
            mode = self.path.stat().st_mode
            if not stat.S_ISDIR(mode):
                _check_regular(mode, self.uri)
                return Listing(is_folder=False, parts=(Part(name=self.path.name, address=str(self.path)),))
            return Listing(is_folder=True, parts=_sorted_parts(self.uri, self._walk()))
        except OSError as error:
            raise _missing(self.uri, error) from error

    @contextmanager
    def open_part(self, part: Part, *, steady: bool = True) -> Iterator[ByteSource]:
        # O_NONBLOCK: a FIFO put in the file's place must be refused, not waited for.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(part.address, flags)
        except OSError as error:
            raise _missing(part.name, error) from error
        with io.FileIO(descriptor) as file:
            before = os.fstat(descriptor)
            _check_regular(before.st_mode, part.name)
            yield file
            if not steady:
                return
            try:
                now = Path(part.address).stat()  # found by name again: replaced by rename is changed too
            except OSError as error:
                raise _changed(part.name, "is gone") from error
            if not _identity(before) == _identity(os.fstat(descriptor)) == _identity(now):
                raise _changed(part.name, "has another size, time or inode")

    def _walk(self) -> Iterator[Part]:
        def refuse(error: OSError) -> None:
            raise error

        for folder, subfolders, names in os.walk(self.path, onerror=refuse):
            base = Path(folder).relative_to(self.path)
            subfolders[:] = [name for name in subfolders if not is_hidden(name)]
            for name in subfolders:
                if Path(folder, name).is_symlink():
                    raise SourceUnreadableError(
                        f"{self.uri}: {(base / name).as_posix()} is a link to a folder, which may lead "
                        "anywhere; put the parts themselves into the folder"
                    )
            for name in names:
                if not is_hidden(name):
                    yield Part(name=(base / name).as_posix(), address=str(Path(folder, name)))


class ObjectLocation:
    """A key or prefix in a store that Airflow's `ObjectStoragePath` knows (S3, GCS, Azure, ...)."""

    def __init__(self, uri: str, conn_id: str | None) -> None:
        from airflow.sdk import ObjectStoragePath

        if ".." in uri.split("/"):
            raise InvalidRequestError(f"{uri!r} goes up with '..'; name the object or prefix directly")
        self.uri = uri
        try:
            path: Any = ObjectStoragePath(uri, conn_id=conn_id)
            self.fs: Any = path.fs
        except (ValueError, ImportError) as error:
            raise ConfigurationError(
                f"{uri}: Airflow knows no storage named {uri.partition('://')[0]!r}; install its provider, "
                "with the extra that brings its fsspec file system"
            ) from error
        self.scheme: str = path.protocol
        self.key = str(path.path).rstrip("/")  # bucket/key, as the store's file system writes it

    def list_parts(self) -> Listing:
        self.fs.invalidate_cache()  # fsspec remembers listings; a changed source must be seen
        try:
            if self.fs.isfile(self.key) and not self.uri.endswith("/"):
                name = self.key.rsplit("/", 1)[-1]
                return Listing(is_folder=False, parts=(Part(name=name, address=self.key),))
            keys = self.fs.find(self.key + "/")
        except OSError as error:
            raise _missing(self.uri, error) from error
        names = ((str(key).removeprefix(self.key + "/"), str(key)) for key in keys)
        parts = (Part(name=name, address=key) for name, key in names if name and not is_hidden(name))
        return Listing(is_folder=True, parts=_sorted_parts(self.uri, parts))

    @contextmanager
    def open_part(self, part: Part, *, steady: bool = True) -> Iterator[ByteSource]:
        try:
            before = self._identity(part)
            file = self.fs.open(part.address, "rb", block_size=BLOCK, cache_type="readahead")
        except OSError as error:
            raise _missing(part.name, error) from error
        with file:
            yield file
            if not steady:
                return
            try:
                now = self._identity(part)
            except OSError as error:
                raise _changed(part.name, "is gone") from error
            if before != now:
                raise _changed(part.name, "has another size, time or ETag")

    def _identity(self, part: Part) -> tuple[Any, ...]:
        self.fs.invalidate_cache()
        info = self.fs.info(part.address)
        words = (
            "size",
            "ETag",
            "etag",
            "generation",
            "VersionId",
            "LastModified",
            "last_modified",
            "updated",
            "mtime",
        )
        return tuple(info.get(word) for word in words)


def _sorted_parts(uri: str, parts: Iterator[Part]) -> tuple[Part, ...]:
    found = tuple(sorted(parts, key=lambda part: part.name))
    if not found:
        raise SourceMissingError(
            f"{uri}: nothing is there; expected a file, or a folder with parts (names that begin with _ or . "
            "do not count)"
        )
    for part in found:
        if not _is_text(part.name) or "" in part.name.split("/"):
            raise SourceUnreadableError(f"{uri}: a part's name is not UTF-8, or has an empty step; rename it")
    return found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _check_regular(mode: int, name: str) -> None:
    if not stat.S_ISREG(mode):
        raise SourceUnreadableError(
            f"{name}: not a regular file (a device, pipe, socket or folder); stage a file"
        )


def _missing(name: str, error: OSError) -> SourceMissingError:
    reason = error.strerror or type(error).__name__
    return SourceMissingError(
        f"{name}: cannot be read ({reason}); check the path, and the rights or the connection"
    )


def _changed(name: str, how: str) -> SourceChangedError:
    return SourceChangedError(
        f"{name}: changed while it was read: it {how} now; stage it completely before asking for approval"
    )
