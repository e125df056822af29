"""A scan by parts: what was counted to its end before a run was killed is not scanned again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_approvals.core.errors import SourceChangedError
from airflow_approvals.core.model import from_json, to_json
from airflow_approvals.pii.engine_identity import engine_digest
from airflow_approvals.pii.masking.reading import DatasetReader, about
from airflow_approvals.pii.pace import Pace
from airflow_approvals.pii.report import ScanReport
from airflow_approvals.pii.resuming import Work, open_work
from airflow_approvals.pii.scan_datasets import (
    DatasetScan,
    PartCount,
    PartScan,
    arrow_batches,
    finished_scan,
)
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.staging.locations import Part, locate
from airflow_approvals.staging.snapshot import take_snapshot

_NOTES = "parts"
Counted = dict[str, tuple[PartScan, ScanReport]]


def scan_by_parts(
    uri: str,
    scanner: Scanner,
    *,
    beside: Path,
    conn_id: str | None = None,
    format: str | None = None,  # the word that users know
    pace: Pace | None = None,
) -> DatasetScan:
    """Scan every cell of the dataset at `uri`; what is finished is noted in a folder beside `beside`.

    Raises what `scan_dataset` raises, and `DestinationError` where another run scans for the same file.
    """
    reader = DatasetReader(locate(uri, conn_id), format)
    source = take_snapshot(reader.location, format=format)
    pace = pace or Pace(lambda _: None)
    pace.begin("scanning", source.rows)
    state = {"source": to_json(source), "finder": engine_digest(scanner)}
    with open_work(beside, "scan", state) as work, about(reader):
        counted = _noted(work)
        for part, _ in counted.values():
            pace.add(part.rows, resumed=True)
        left = [part for part in reader.listing.parts if part.name not in counted]
        for part, report in _scan(reader, left, scanner, pace):
            work.note(_NOTES, [to_json(part), to_json(report)])
            counted[part.name] = part, report
        if not set(reader.files) <= set(source.files):
            raise SourceChangedError(
                f"{uri}: changed between two readings; stage it completely before it is scanned"
            )
    in_order = [counted[part.name] for part in reader.listing.parts]
    return finished_scan(uri, source.sha256, in_order)


def _noted(work: Work) -> Counted:
    return {
        part["name"]: (from_json(PartScan, part), from_json(ScanReport, report))
        for part, report in work.notes(_NOTES)
    }


def _scan(
    reader: DatasetReader, parts: list[Part], scanner: Scanner, pace: Pace
) -> Iterator[tuple[PartScan, ScanReport]]:
    """Yield each part as soon as all its rows are counted; workers may be far ahead by then."""
    counts = [PartCount(part.name) for part in parts]
    starts: list[int] = []

    def batches() -> Iterator[Any]:
        rows = 0
        for part in parts:
            starts.append(rows)
            for batch in arrow_batches(reader, part):
                rows += batch.num_rows
                yield batch

    finished = 0
    for found in scanner.scan_batches(batches()):
        number = bisect_right(starts, found.first_row) - 1
        while finished < number:
            yield counts[finished].finished(scanner)
            finished += 1
        counts[number].add(found, starts[number])
        pace.add(found.rows)
    for count in counts[finished:]:
        yield count.finished(scanner)
