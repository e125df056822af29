"""Presidio's batch engine as it is, tuned, and ours: rows a second on one core and on two."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.scanner import Scanner
from tests.pii.customers import customers

OURS_TO_PEER = 5  # rows that we scan for each row of the peers: enough to fill our batches
BATCH = 500  # rows that a worker gets at a time
LIKE_PRESIDIO = ScanConfig(typed=False, normalise_digits=False)

Run = Callable[[], int]


def one_core(rows: int, rounds: int) -> dict[str, Any]:
    """Return rows a second and ratios on one core; making the rows is not counted."""
    scanner = Scanner(LIKE_PRESIDIO)
    sides: dict[str, Callable[[int], Run]] = {
        "default": lambda seed: _presidio(scanner, seed, rows, batch_size=1),
        "tuned": lambda seed: _presidio(scanner, seed, rows, batch_size=256),
        "ours": lambda seed: _ours(scanner, seed, rows * OURS_TO_PEER),
    }
    for name in ("default", "ours"):  # caches, lazy imports
        sides[name](1)()
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds):
        for name, side in sides.items():
            run = side(100 + round_)
            started, worked = time.perf_counter(), time.process_time()
            done = run()
            cpu[name].append(done / (time.process_time() - worked))
            wall[name].append(done / (time.perf_counter() - started))
    middle = {name: statistics.median(values) for name, values in cpu.items()}
    ratios = {
        peer: statistics.median(ours / theirs for ours, theirs in zip(cpu["ours"], cpu[peer], strict=True))
        for peer in ("default", "tuned")
    }
    return {
        "exact_rows_per_s_1core": round(middle["ours"], 1),
        "exact_rows_per_s_1core_wall": round(statistics.median(wall["ours"]), 1),
        "peer_batch_default_rows_per_s": round(middle["default"], 2),
        "peer_batch_default_rows_per_s_wall": round(statistics.median(wall["default"]), 2),
        "peer_batch_tuned_rows_per_s": round(middle["tuned"], 2),
        "peer_batch_tuned_rows_per_s_wall": round(statistics.median(wall["tuned"]), 2),
        "exact_x_batch_default_1core": round(ratios["default"], 2),
        "exact_x_batch_tuned_1core": round(ratios["tuned"], 2),
        "exact_path": scanner.path,
        "blas_ratio": round(_blas_ratio(), 2),
        "blas_build": _blas_build(),
    }


def two_cores(rows: int, peer_rows: int) -> dict[str, Any]:
    """Return rows a second of wall time with two workers that have begun to answer, and their memory.

    The peer takes its turn behind them: it has had one before them, in `one_core`.
    """
    tables = [customers(BATCH, seed=10_000 + first) for first in range(0, rows, BATCH)]
    scanner = Scanner(replace(LIKE_PRESIDIO, workers=2, batch_rows=BATCH))
    counted, started = 0, 0.0
    called = time.perf_counter()
    batches = (batch for table in tables for batch in table.to_batches())
    for number, batch in enumerate(scanner.scan_batches(batches)):
        if number > 1:
            counted += batch.rows
        elif number == 1:
            started = time.perf_counter()
    rate = counted / (time.perf_counter() - started)
    # Of the processes that have ended, the one that ever held most; KiB on Linux.
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    alone = Scanner(LIKE_PRESIDIO)
    _presidio(alone, 2, 20, batch_size=1)()  # caches, lazy imports
    run = _presidio(alone, 3, peer_rows, batch_size=1)
    began = time.perf_counter()
    run()
    peer = peer_rows / (time.perf_counter() - began)
    return {
        "rss_mb_per_worker_15_columns": round(most / 1024),
        "exact_rows_per_s_2core_wall": round(rate, 1),
        "seconds_to_first_batches_2core": round(started - called, 1),
        "peer_batch_default_rows_per_s_wall_behind_2core": round(peer, 2),
    }


def _ours(scanner: Scanner, seed: int, rows: int) -> Run:
    batches = customers(rows, seed=seed + 50_000).to_batches()
    return lambda: sum(batch.rows for batch in scanner.scan_batches(batches))


def _presidio(scanner: Scanner, seed: int, rows: int, *, batch_size: int) -> Run:
    from presidio_analyzer import BatchAnalyzerEngine

    columns = customers(rows, seed=seed + batch_size).to_pydict()
    columns["created_at"] = [str(value) for value in columns["created_at"]]  # it takes no timestamps
    engine = BatchAnalyzerEngine(scanner.analyzer)

    def run() -> int:
        for _ in engine.analyze_dict(columns, "en", batch_size=batch_size):
            pass
        return rows

    return run


def _blas_ratio() -> float:
    import numpy as np
    from thinc.api import NumpyOps

    ops = NumpyOps()
    left, right = np.ones((2_048, 288), np.float32), np.ones((288, 288), np.float32)

    def seconds(multiply: Callable[[], object]) -> float:
        multiply()
        started = time.process_time()
        for _ in range(30):
            multiply()
        return time.process_time() - started

    return seconds(lambda: ops.gemm(left, right, trans2=True)) / seconds(lambda: left @ right.T)


def _blas_build() -> str:
    """Return which BLAS numpy and spaCy multiply with, and what BLIS takes the processor for."""
    from importlib.metadata import version

    import numpy as np

    built: Any = np.show_config(mode="dicts")
    blas = built["Build Dependencies"]["blas"]
    asked = subprocess.run(
        [
            sys.executable,
            "-c",
            "import numpy as np; from blis.py import gemm; a = np.ones((9, 9), 'f'); gemm(a, a)",
        ],
        env={**os.environ, "BLIS_ARCH_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = (asked.stderr + asked.stdout).strip().splitlines()
    chosen = said[-1].split("'")[-2] if said and "'" in said[-1] else "unknown"
    return (
        f"numpy {version('numpy')} with {blas['name']} {blas['version']}; "
        f"spaCy {version('spacy')} with blis {version('blis')}, kernels '{chosen}'; {platform.machine()}"
    )


if __name__ == "__main__":
    parts: dict[str, Callable[..., dict[str, Any]]] = {"one_core": one_core, "two_cores": two_cores}
    print(json.dumps(parts[sys.argv[1]](*map(int, sys.argv[2:]))))
