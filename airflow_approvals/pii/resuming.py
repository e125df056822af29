"""What a killed run leaves behind for the next one: finished parts, and where something was found.

It lies in a hidden folder beside what is being made, readable by its owner alone and locked while its run
lives, and holds only what is masked, and counts and places: never a value from the source. It is used again
only where source, rules, keys and engine are the very same, and goes when the run is over.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from airflow_approvals import __version__
from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import ApprovalsError, DestinationError, WorkerLostError


class Work:
    """The folder of one run; `resumes` says that an earlier run for the same has left something in it."""

    def __init__(self, folder: Path, *, resumes: bool) -> None:
        self._folder = folder
        self.resumes = resumes

    def file(self, name: str) -> Path:
        """Return the path of a file in it, which may be there."""
        return self._folder / name

    def notes(self, name: str) -> list[Any]:
        """Return what was noted under `name`; what a kill cut short is not counted, and is removed."""
        path = self.file(name)
        if not path.exists():
            return []
        written = path.read_bytes()
        whole = written[: written.rfind(b"\n") + 1]
        if whole != written:
            path.write_bytes(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def note(self, name: str, fact: Any) -> None:
        """Add one fact, so that it is there even if the next instruction is the last."""
        with self.file(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fact) + "\n")

    @property
    def is_worth_keeping(self) -> bool:
        """Whether a later run would save anything."""
        return any(path.stat().st_size for path in self._folder.iterdir() if path.name != _STATE)


@contextmanager
def open_work(beside: Path, word: str, state: Mapping[str, Any]) -> Iterator[Work]:
    """Yield the work of the run that makes `beside`; `state` is all that its results depend on.

    Raise `DestinationError` where another run is at it. An error of this package would come again, so
    nothing is kept then; after any other end, a kill above all, the next run goes on from here.
    """
    folder = (
        beside.parent / f".airflow-approvals-{hashlib.sha256(beside.name.encode()).hexdigest()[:16]}-{word}"
    )
    made = not beside.parent.exists()
    lock = _locked(folder)
    keep = False
    try:
        yield _begun(folder, digest_of({"version": __version__, **state}))
    except ApprovalsError as error:
        keep = isinstance(error, WorkerLostError)
        raise
    except BaseException:
        keep = Work(folder, resumes=False).is_worth_keeping
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
            if made:
                with suppress(OSError):
                    beside.parent.rmdir()
        os.close(lock)


_STATE = "state"
_TRIES = 100


def _begun(folder: Path, state: str) -> Work:
    """Return the work of this state; what was left of any other is removed."""
    path = folder / _STATE
    if path.exists() and path.read_text() == state:
        return Work(folder, resumes=Work(folder, resumes=False).is_worth_keeping)
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    path.write_text(state)
    return Work(folder, resumes=False)


def _locked(folder: Path) -> int:
    while True:
        try:
            lock = _opened(folder)
        except OSError as error:
            raise DestinationError(
                f"{folder.parent}: cannot be written ({error.strerror}); make room, or give the rights"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise DestinationError(
                f"{folder.parent}: another run is making the same at this moment; wait for it, or end it"
            ) from None
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)


def _opened(folder: Path) -> int:
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):  # the run before has just removed it
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
