"""The PII engine beside Presidio's own batch engine on the same table; everything that DESIGN 18 names.

Every part runs in a process of its own with one BLAS thread. What is timed runs alone, one part after
another; what is only counted comes afterwards, on all cores. One-core figures are CPU time, two-core figures
wall time; ratios are medians of rounds in which all sides take turns, on rows that nobody has seen before.

`blas_ratio` says how fast numpy multiplies beside the BLIS that spaCy uses, `blas_build` names both: where
BLIS does not know the processor Presidio is slower, and our figures look better than elsewhere.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Any

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
Figures = dict[str, Any]


def figures(
    rows: int = 150,
    rounds: int = 3,
    two_core_rows: int = 8_000,
    planned_rows: int = 12_000,
    text_rows: int = 1_200,
    exact_rows: int = 4_100,
    fuzzed: int = 15_000,
    memory_rows: int = 1_000_000,
    sentences: int = 1_500,
) -> Figures:
    """Return rates, ratios, counts and memory; `exact_rows` rows hold about 50,000 distinct cells."""
    found: Figures = {}
    for module, *sizes in (
        ("pii_speed", "one_core", rows, rounds),
        ("pii_speed", "two_cores", two_core_rows, rows),
        ("pii_planned", "rates", planned_rows, text_rows, rounds),
        ("pii_planned", "verifying", text_rows),
    ):
        found |= _answer(_started(module, sizes))
    # Wall time hangs on what else the machine does: the peer's is taken before and behind ours.
    turns = ("peer_batch_default_rows_per_s_wall", "peer_batch_default_rows_per_s_wall_behind_2core")
    peer = statistics.mean(found[turn] for turn in turns)
    found["exact_x_batch_default_2core"] = round(found["exact_rows_per_s_2core_wall"] / peer, 2)
    counted = [
        _started(module, sizes)
        for module, *sizes in (
            ("pii_differences", exact_rows, fuzzed),
            ("pii_memory", memory_rows),
            ("pii_leaks", text_rows, sentences),
        )
    ]
    for process in counted:
        found |= _answer(process)
    return found


def _started(module: str, arguments: list[Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)],
        env={**os.environ, **THREADS},
        stdout=subprocess.PIPE,
    )


def _answer(process: subprocess.Popen[bytes]) -> Figures:
    out, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    answer: Figures = json.loads(out.splitlines()[-1])
    return answer
