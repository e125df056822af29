"""Lineage events that the service could not be told: files of this machine, until it takes them.

Whoever tells the service something from here next takes them along, and a service that runs on this machine,
or has the folder mounted, takes them in by itself. Two who do so at once do no harm: a run's event is queued
once, however often it is told.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from uuid import UUID

from airflow_approvals.core.errors import InvalidRequestError, NotAllowedError, ServiceUnavailableError
from airflow_approvals.whole_files import write_whole

FOLDER = Path("approvals") / "lineage"
"""Where they are kept, under AIRFLOW_HOME."""
MAX_BODY = 1 << 20
"""Bytes of an event as the service takes them."""
MOST_BYTES = 256 << 20
"""Bytes of all that is kept on one machine."""

_SUFFIX = ".json"

log = logging.getLogger(__name__)


class KeptEvents:
    """The events of one folder, in the order in which they were told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, run_id: str, body: bytes, *, now: datetime) -> None:
        """Write one event down; raise `ServiceUnavailableError` where that cannot be."""
        name = f"{int(now.timestamp() * 1_000_000):020d}.{UUID(run_id)}{_SUFFIX}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            used = sum(map(_size_of, os.scandir(self.folder)))
            if used + len(body) > MOST_BYTES:
                raise ServiceUnavailableError(
                    f"lineage: {self.folder} is full ({used} of {MOST_BYTES} bytes), and this event is lost; "
                    "see why the approvals service takes nothing"
                )
            write_whole(self.folder / name, body)
        except OSError as error:
            raise ServiceUnavailableError(
                f"lineage: {self.folder} cannot be written to ({error.strerror}), and this event is lost; "
                "make it writable for whoever runs Airflow's tasks"
            ) from error

    def hand_over(self, tell: Callable[[bytes], object], *, of: str | None = None) -> int:
        """Give events to `tell`, of one run or of all, and let go of each that it takes; return how many.

        What `tell` refuses as no event of a task is let go of too; whatever else it raises ends this.
        """
        taken = 0
        for path in self._oldest_first(of):
            try:
                with path.open("rb") as stream:
                    body = stream.read(MAX_BODY + 1)
            except OSError:
                continue  # somebody else was faster
            try:
                tell(body)
            except (InvalidRequestError, NotAllowedError) as refusal:
                log.warning("an event that was kept in %s is not taken: %s", self.folder, refusal)
            else:
                taken += 1
            path.unlink(missing_ok=True)
        return taken

    def count(self) -> int:
        """Return how many events are kept here."""
        return len(self._oldest_first(None))

    def _oldest_first(self, run_id: str | None) -> list[Path]:
        wanted = _SUFFIX if run_id is None else f".{UUID(run_id)}{_SUFFIX}"
        try:
            names = [
                entry.name
                for entry in os.scandir(self.folder)
                # Files alone: a link could lead anywhere, a pipe would be waited for.
                if entry.name.endswith(wanted) and entry.is_file(follow_symlinks=False)
            ]
        except OSError:  # nothing was ever kept, or it is none of this user's
            return []
        return [self.folder / name for name in sorted(names)]


def _size_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # handed over by somebody else in this moment
        return 0
