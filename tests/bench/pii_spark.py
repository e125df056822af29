"""The scan on Spark local[2] beside the same one with two plain workers: the same parts, both warm, by turns.

Wall time, because both use two cores. Warm means that the model is loaded in both workers. The plain ones end
with each scan, so theirs are counted from the moment when both have answered once, as in `tests.bench.pii`.
Spark's stay, so a round of it counts whole, from the call to the report; but Spark ends workers that have
been idle for a minute, so a scan of a few other rows goes before each round. How long Spark takes to get
that far for the first time is told beside it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from pyarrow import parquet

from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.scan_datasets import DatasetScan, scan_dataset
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.spark import local_session, scan_dataset_on_spark
from tests.pii.customers import customers

PARTS = 12


def figures(rows: int = 3_600, rounds: int = 3) -> dict[str, float]:
    """Return rows a second of both, and how many times longer Spark takes; nothing at all for no rows."""
    if not rows:
        return {}
    plain: list[float] = []
    spark: list[float] = []
    called = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, local_session(cores=2) as session:
        few = _write(Path(folder) / "few", PARTS, seed=1)
        scan_dataset_on_spark(session, few)
        cold = time.perf_counter() - called
        for round_ in range(rounds):
            source = _write(Path(folder) / str(round_), rows, seed=2 + round_)
            rate, ours = _plain(source)
            plain.append(rate)
            scan_dataset_on_spark(session, few)
            rate, theirs = _on_spark(session, source)
            spark.append(rate)
            if ours != theirs:
                raise RuntimeError("Spark and the plain workers found different things")
    pairs = zip(plain, spark, strict=True)
    return {
        "spark_rows_per_s_local2": round(statistics.median(spark), 1),
        "two_workers_rows_per_s": round(statistics.median(plain), 1),
        "spark_x_two_workers": round(statistics.median(ours / theirs for ours, theirs in pairs), 2),
        "spark_seconds_until_warm": round(cold, 1),
    }


def _write(folder: Path, rows: int, seed: int) -> str:
    folder.mkdir()
    for number in range(PARTS):
        table = customers(rows // PARTS, seed=1_000 * seed + number)
        parquet.write_table(table, folder / f"part-{number:02d}.parquet")
    return str(folder)


def _plain(source: str) -> tuple[float, DatasetScan]:
    seen: list[tuple[float, int]] = []

    def note(rows: int) -> None:
        seen.append((time.perf_counter(), rows))

    found = scan_dataset(source, Scanner(ScanConfig(workers=2)), progress=note)
    # The first two answers come when both workers have just loaded their models.
    (started, before), (ended, rows) = seen[1], seen[-1]
    return (rows - before) / (ended - started), found


def _on_spark(session: Any, source: str) -> tuple[float, DatasetScan]:
    started = time.perf_counter()
    found = scan_dataset_on_spark(session, source)
    return found.report.rows / (time.perf_counter() - started), found
