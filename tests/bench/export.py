"""The export's cost: hash-while-copy beside `cp` and `sha256sum` of the same file, and a snapshot's reading.

Both sides end with the copy flushed to disk, because an export that a power failure takes away is none; the
figure without the peer's flush is given as well. Each run is a process of its own; the median of three
alternating rounds counts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GIB = 1024**3

# Memory is what the process reached above what it had when everything was imported. `ru_maxrss` would not
# do: a child begins with its parent's.
PEAK = """
def peak_kb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""

EXPORT = """
import json, sys, time
import pyarrow.csv, pyarrow.parquet
from airflow_approvals.core.model import FileDigest
from airflow_approvals.staging.publish import publish
source, target, digest, size = sys.argv[1:]
expected = [FileDigest(name="source.bin", sha256=digest, size=int(size))]
before = peak_kb()
started = time.perf_counter()
publish(source, target, expected=expected)
seconds = time.perf_counter() - started
peak = peak_kb()
print(json.dumps({"seconds": seconds, "rss_mb": (peak - before) / 1024}))
"""

SNAPSHOT = """
import json, sys, time
import pyarrow.csv, pyarrow.parquet
from airflow_approvals.staging.snapshot import snapshot
before = peak_kb()
started = time.perf_counter()
snapshot(sys.argv[1])
seconds = time.perf_counter() - started
peak = peak_kb()
print(json.dumps({"seconds": seconds, "rss_mb": (peak - before) / 1024}))
"""


def figures(size_bytes: int = 2 * GIB, folder: Path | None = None) -> dict[str, float]:
    """Return seconds, MB and ratios, measured on `size_bytes` of bytes that do not compress."""
    with tempfile.TemporaryDirectory(prefix="export-bench-", dir=folder) as name:
        place = Path(name)
        found = _export_figures(place, size_bytes)
        for kind in ("csv", "parquet"):
            found |= _snapshot_figures(place, kind, size_bytes // 8)
        return found


def _export_figures(place: Path, size: int) -> dict[str, float]:
    source = place / "source.bin"
    _write_noise(source, size)
    digest = _sha256sum(source)  # and the file is in the page cache for both
    ours: list[dict[str, float]] = []
    peer: list[tuple[float, float]] = []
    for _ in range(3):
        ours.append(_run(EXPORT, source, place / "ours.bin", digest, size))
        (place / "ours.bin").unlink()
        peer.append(_peer(source, place / "peer.bin"))
        (place / "peer.bin").unlink()
    source.unlink()
    seconds = statistics.median(run["seconds"] for run in ours)
    flushed = statistics.median(run[0] for run in peer)
    unflushed = statistics.median(run[1] for run in peer)
    return {
        "size_gib": size / GIB,
        "seconds": seconds,
        "peer_seconds": flushed,
        "peer_seconds_unflushed": unflushed,
        "ratio_to_cp_and_sha256sum": seconds / flushed,
        "ratio_to_unflushed_cp_and_sha256sum": seconds / unflushed,
        "rss_mb_above_import": max(run["rss_mb"] for run in ours),
    }


def _peer(source: Path, target: Path) -> tuple[float, float]:
    """Return the seconds of cp, sync and sha256sum together, and of cp and sha256sum alone."""
    times = []
    for command in (
        ["cp", str(source), str(target)],
        ["sync", str(target)],
        ["sha256sum", "-b", str(source)],
    ):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return sum(times), times[0] + times[2]


def _snapshot_figures(place: Path, kind: str, size: int) -> dict[str, float]:
    path = place / f"customers.{kind}"
    _write_rows(path, size)
    stored = path.stat().st_size
    run = _run(SNAPSHOT, path)
    path.unlink()
    return {
        f"snapshot_{kind}_mb_per_s": stored / run["seconds"] / 1e6,
        f"snapshot_{kind}_rss_mb_above_import": run["rss_mb"],
    }


def _run(code: str, *arguments: object) -> dict[str, float]:
    os.sync()  # nobody's dirty pages in anybody's measurement
    command = [sys.executable, "-c", PEAK + code, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def _write_noise(path: Path, size: int) -> None:
    block = os.urandom(8 * 1024 * 1024)
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block[: size - file.tell()])


def _write_rows(path: Path, size: int) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    rows = 100_000
    table = pa.table(
        {
            "id": range(rows),
            "name": [f"Person Number {number}" for number in range(rows)],
            "email": [f"person.{number}@example.org" for number in range(rows)],
            "amount": [number / 7 for number in range(rows)],
        }
    )
    with path.open("wb") as file:
        maker = csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter
        with maker(file, table.schema) as writer:
            while file.tell() < size:
                writer.write_table(table)


def _sha256sum(path: Path) -> str:
    done = subprocess.run(["sha256sum", "-b", str(path)], check=True, capture_output=True, text=True)
    return done.stdout[:64]


if __name__ == "__main__":
    print(json.dumps(figures(int(sys.argv[1]) if len(sys.argv) > 1 else 2 * GIB)))
