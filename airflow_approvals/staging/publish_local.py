"""Publishing to this machine's file systems: a hidden temporary name beside the destination, then one rename.

The temporary file or folder is readable by its owner alone, carries an advisory lock while its writer
lives, and is flushed to disk before it appears. A leftover whose lock is free belongs to a writer that was
killed: the next publish to the same destination removes it.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from airflow_approvals.core.errors import DestinationError
from airflow_approvals.core.model import FileDigest
from airflow_approvals.staging.copying import Write
from airflow_approvals.staging.locations import Listing

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # renameat2(2)


class LocalTarget:
    """One path that a file or folder is published to."""

    def __init__(self, uri: str, path: Path, *, overwrite: bool) -> None:
        if uri.endswith("/"):
            raise DestinationError(f"{uri}: ends with a slash; name the file or folder that shall appear")
        self._uri = uri
        self._path = path
        self._overwrite = overwrite
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
        self._prefix = f".airflow-approvals-{digest[:16]}-"

    @contextmanager
    def stage(
        self, listing: Listing, wanted: Mapping[str, FileDigest]
    ) -> Iterator[StagedFile | StagedFolder]:
        made: list[Path] = []
        done = False
        try:
            self._check_free(listing.is_folder)
            made = _make_parents(self._path.parent)
            self._remove_leftovers()
            temporary, lock = self._begin(listing.is_folder)
            kind = StagedFolder if listing.is_folder else StagedFile
            try:
                yield kind(temporary, lock, self._path, overwrite=self._overwrite)
                done = True
            finally:
                with suppress(OSError):  # the next publish removes it; what appeared has appeared
                    _remove(temporary)
                os.close(lock)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DestinationError(
                f"{self._uri}: cannot be written ({reason}); it is as it was before; "
                "make room, or give the rights"
            ) from error
        finally:
            if not done:
                for folder in reversed(made):
                    with suppress(OSError):
                        folder.rmdir()

    def _check_free(self, is_folder: bool) -> None:
        if not os.path.lexists(self._path):
            return
        if not self._overwrite:
            raise DestinationError(
                f"{self._uri}: is there already and stays as it is; publish to a new name, "
                "or ask with overwrite"
            )
        mode = self._path.lstat().st_mode
        if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
            raise DestinationError(
                f"{self._uri}: cannot be replaced by a {'folder' if is_folder else 'file'}, because "
                "what is there is of another kind; publish to a new name"
            )

    def _begin(self, is_folder: bool) -> tuple[Path, int]:
        while True:
            temporary = self._path.parent / f"{self._prefix}{secrets.token_hex(8)}.part"
            if is_folder:
                temporary.mkdir(mode=0o700)
                flags = os.O_RDONLY | os.O_DIRECTORY
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            try:
                lock = os.open(temporary, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                if not is_folder:
                    raise  # what is made here and now cannot be missing: the file system takes no files
                continue
            # Another publish may take it for a leftover in the moment before it is locked: then begin again.
            if _is_locked_by(lock):
                return temporary, lock
            os.close(lock)

    def _remove_leftovers(self) -> None:
        for leftover in self._path.parent.glob(f"{self._prefix}*.part"):
            with suppress(OSError):  # another user's, or gone by now
                lock = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if _is_locked_by(lock):
                        _remove(leftover)
                finally:
                    os.close(lock)


class StagedFile:
    """One file under its temporary name."""

    def __init__(self, temporary: Path, lock: int, path: Path, *, overwrite: bool) -> None:
        self._temporary = temporary
        self._descriptor = lock  # the file itself
        self._path = path
        self._overwrite = overwrite

    @contextmanager
    def open_sink(self, name: str) -> Iterator[Write]:
        yield _writer(self._descriptor)
        os.fchmod(self._descriptor, 0o666 & ~_umask())
        os.fsync(self._descriptor)

    def appear(self) -> None:
        if self._overwrite:
            self._temporary.replace(self._path)
        else:
            os.link(self._temporary, self._path)  # unlike rename, never replaces what came meanwhile
        _flush_appeared(self._path)


class StagedFolder:
    """A folder of parts under its temporary name."""

    def __init__(self, temporary: Path, lock: int, path: Path, *, overwrite: bool) -> None:
        self._temporary = temporary
        self._descriptor = lock  # the folder itself
        self._path = path
        self._overwrite = overwrite

    @contextmanager
    def open_sink(self, name: str) -> Iterator[Write]:
        part = self._temporary / name
        part.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            yield _writer(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def appear(self) -> None:
        for folder, _, _ in os.walk(self._temporary):
            _flush_folder(Path(folder))
        os.fchmod(self._descriptor, 0o777 & ~_umask())
        if self._overwrite and self._path.exists():
            _exchange(self._temporary, self._path)  # what was there is now under the temporary name
        else:
            self._temporary.rename(self._path)  # fails on a folder that is not empty
        _flush_appeared(self._path)


def _writer(descriptor: int) -> Write:
    def write(data: memoryview) -> None:
        while data:
            data = data[os.write(descriptor, data) :]

    return write


def _is_locked_by(descriptor: int) -> bool:
    """Take the lock, and return whether that worked and the file is still there under a name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def _make_parents(folder: Path) -> list[Path]:
    missing = [folder, *folder.parents]
    made = []
    for step in reversed(missing):
        with suppress(FileExistsError):
            step.mkdir()
            made.append(step)
            _flush_folder(step.parent)
    return made


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_appeared(path: Path) -> None:
    try:
        _flush_folder(path.parent)
    except OSError as error:
        raise DestinationError(
            f"{path}: appeared, but may not survive a power failure, because its folder could not be flushed "
            f"({error.strerror}); check the disk, then run the task again"
        ) from error


def _umask() -> int:
    # os.umask can only be read by setting it, for all threads at once.
    with suppress(OSError):
        found = re.search(r"^Umask:\s*([0-7]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _exchange(one: Path, other: Path) -> None:
    """Swap two names in one step; raise `DestinationError` where the system cannot (Linux alone can)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        raise DestinationError(
            f"{other}: this file system cannot replace a folder in one step "
            f"({os.strerror(ctypes.get_errno())}); it is as it was before; publish to a new name"
        )
