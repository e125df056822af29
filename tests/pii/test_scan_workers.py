from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa  # noqa: TID253
import pytest

from airflow_approvals.core.errors import WorkerLostError
from airflow_approvals.pii import workers
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.findings import BatchFindings, ColumnFindings, Finding

ROWS = 40
DIES_AT = "AIRFLOW_APPROVALS_TEST_DIES_AT"  # how often, and at which row
MARKS = "AIRFLOW_APPROVALS_TEST_MARKS"  # a folder


class Mortal:
    """Finds every row once, and kills its process at one of them as often as it is told."""

    def __init__(self, config: ScanConfig) -> None:
        times, row = os.environ[DIES_AT].split()
        self._times, self._row = int(times), int(row)

    def scan_batch(self, batch: Any, *, first_row: int) -> BatchFindings:
        if first_row <= self._row < first_row + batch.num_rows:
            mark = Path(os.environ[MARKS], f"{len(list(Path(os.environ[MARKS]).iterdir()))}")
            if int(mark.name) < self._times:
                mark.touch()
                time.sleep(1)  # meanwhile the other process finds as much as it may ahead of this one
                os.kill(os.getpid(), signal.SIGKILL)
        findings = tuple(
            Finding(column="n", row=first_row + row, entity_type="ROW", start=0, end=1, score=1.0)
            for row in range(batch.num_rows)
        )
        column = ColumnFindings(
            column="n", type="int64", scanned=batch.num_rows, nulls=0, skipped=0, findings=findings
        )
        return BatchFindings(first_row=first_row, rows=batch.num_rows, columns=(column,))


def _scanned(monkeypatch: pytest.MonkeyPatch, folder: Path, *, times: int, row: int) -> list[int]:
    monkeypatch.setenv(DIES_AT, f"{times} {row}")
    monkeypatch.setenv(MARKS, str(folder))
    batches = pa.table({"n": list(range(ROWS))}).to_batches(max_chunksize=5)
    found = workers.scan_in_workers(Mortal, ScanConfig(workers=2), iter(batches))
    return [finding.row for batch in found for finding in batch.findings]


# The first rows: all that other processes may find meanwhile waits for them.
@pytest.mark.parametrize(("times", "row"), [(1, 0), (1, ROWS - 1), (workers.TRIES - 1, 17)])
def test_rows_whose_process_is_killed_are_neither_lost_nor_doubled(
    times: int, row: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _scanned(monkeypatch, tmp_path, times=times, row=row) == list(range(ROWS))
    assert len(list(tmp_path.iterdir())) == times


def test_rows_that_end_one_process_after_another_are_given_up_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WorkerLostError, match=r"rows 15 to 19: 3 worker processes ended.*exit code -9"):
        _scanned(monkeypatch, tmp_path, times=99, row=17)
