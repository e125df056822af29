"""Files that appear whole or not at all, whatever crashes and whoever writes beside."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file in place of the one that may be there; after an `OSError` that one stays."""
    with _draft(path.parent, content, mode) as draft:
        draft.replace(path)


def write_whole_once(path: Path, content: bytes) -> None:
    """Write a file for its owner alone, unless there is one: of several who do so at once, one wins."""
    with _draft(path.parent, content, 0o600) as draft, suppress(FileExistsError):
        path.hardlink_to(draft)


@contextmanager
def _draft(folder: Path, content: bytes, mode: int) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix=".airflow-approvals-", dir=folder)  # mode 0600
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        draft.chmod(mode)
        yield draft
    finally:
        draft.unlink(missing_ok=True)
