"""Masked parts that wait in the folder of a run until all are done; what was changed meanwhile is found.

While they wait they can be read as the dataset that they become, so that a check sees it before anybody else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_approvals.core.errors import DestinationError
from airflow_approvals.core.model import from_json, to_json
from airflow_approvals.pii.masking.rules import MaskingRules
from airflow_approvals.pii.resuming import Work
from airflow_approvals.staging.copying import Write
from airflow_approvals.staging.locations import Listing, LocalLocation, Part

_NOTES = "finished"
_BLOCK = 1 << 20  # bytes
Counts = dict[str, dict[str, int]]
"""Column, entity type, how often."""


@dataclass(frozen=True, kw_only=True)
class FinishedPart:
    """One masked part."""

    name: str
    path: str
    sha256: str
    rows: int
    masked: Counts
    is_resumed: bool = False

    def copy_to(self, target: Any) -> None:
        """Write it to where it appears; raise `DestinationError` if it is not what was masked."""
        digest = hashlib.sha256()
        with Path(self.path).open("rb") as file, target.open_sink(self.name) as write:
            while block := file.read(_BLOCK):
                digest.update(block)
                write(memoryview(block))
        if digest.hexdigest() != self.sha256:
            raise DestinationError(
                f"{self.name}: its masked part was changed while it waited for the others; mask again"
            )


class WaitingDataset(LocalLocation):
    """The dataset that shall appear at `uri`, while its parts wait elsewhere."""

    def __init__(self, uri: str, path: Path, parts: Sequence[FinishedPart], *, is_folder: bool) -> None:
        super().__init__(uri, path)
        waiting = (Part(name=part.name if is_folder else path.name, address=part.path) for part in parts)
        self._listing = Listing(is_folder=is_folder, parts=tuple(waiting))

    def list_parts(self) -> Listing:
        return self._listing


@contextmanager
def open_part(path: Path) -> Iterator[Write]:
    """Yield what takes the bytes of one part; they are on disk when it is left."""
    with path.open("wb") as file:

        def write(data: memoryview) -> None:
            file.write(data)

        yield write
        file.flush()
        os.fsync(file.fileno())


def finished_part(name: str, path: Path, *, rows: int, masked: Counts) -> FinishedPart:
    """Return the part at `path`, which is complete."""
    return FinishedPart(name=name, path=str(path), sha256=_sha256(path), rows=rows, masked=masked)


def note_finished(work: Work, part: FinishedPart) -> None:
    """Note that a part is complete."""
    work.note(_NOTES, to_json(part))


def finished_parts(work: Work) -> Iterator[FinishedPart]:
    """Yield the parts that an earlier run has finished, and that are as they were then."""
    for noted in work.notes(_NOTES):
        part = from_json(FinishedPart, {**noted, "is_resumed": True})
        if Path(part.path).is_file() and _sha256(Path(part.path)) == part.sha256:
            yield part


def merged_counts(rules: MaskingRules, parts: Sequence[FinishedPart]) -> Counts:
    """Return how often each entity type was masked, by column, in all parts."""
    merged: Counts = {rule.column: {} for rule in rules.columns}
    for part in parts:
        for column, entities in part.masked.items():
            for entity, count in entities.items():
                merged[column][entity] = merged[column].get(entity, 0) + count
    return merged


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
