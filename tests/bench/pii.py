"""The PII scan beside Presidio's own batch engine on the same table, and whether both find the same.

Everything runs in a process of its own with one BLAS thread. One-core figures are CPU time, two-core figures
wall time; each is the median of rounds in which all sides take turns, on rows that nobody has seen before.
`blas_ratio` says how fast numpy multiplies beside the BLIS that spaCy uses: where BLIS does not know the
processor Presidio is slower, and our figures look better than elsewhere.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from airflow_approvals.pii.cells import texts_of_batch
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.scanner import Scanner
from tests.pii.customers import customers

OURS_TO_PEER = 5  # rows that we scan for each row of the peers: enough to fill our batches
MANY = 2_000  # rows in a batch
FUZZ = " \n\t.,;:-/\"'(){}[]@+#x\x0b\u00a0\u200b\uff11é"
KEYWORDS = (
    "email",
    "phone number",
    "ssn",
    "card",
    "iban",
    "date of birth",
    "passport",
    "ip",
    "driver license",
)


def figures(
    rows: int = 150,
    rounds: int = 3,
    exact_rows: int = 3_900,
    fuzzed: int = 15_000,
    two_core_rows: int = 12_000,
) -> dict[str, float]:
    """Return rates and ratios; `exact_rows` rows hold about 50,000 distinct cells."""
    found: dict[str, float] = {}
    for part in (
        f"speed {rows} {rounds}",
        f"two_cores {two_core_rows}",
        f"differences {exact_rows} {fuzzed}",
    ):
        found |= _in_own_process(part)
    found["exact_x_batch_default_2core"] = round(
        found["exact_rows_per_s_2core_wall"] / found["peer_batch_default_rows_per_s_wall"], 2
    )
    return found


def _in_own_process(part: str) -> dict[str, float]:
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.pii", *part.split()],
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        check=True,
    )
    answer: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return answer


def speed(rows: int, rounds: int) -> dict[str, float]:
    """Return rows a second and ratios on one core: Presidio's batch engine as it is, tuned, and ours."""
    scanner = Scanner(ScanConfig(typed=False, normalise_digits=False))
    sides: dict[str, Callable[[int], int]] = {
        "default": lambda seed: _presidio(scanner, seed, rows, batch_size=1),
        "tuned": lambda seed: _presidio(scanner, seed, rows, batch_size=256),
        "ours": lambda seed: _ours(scanner, seed, rows * OURS_TO_PEER),
    }
    for side in sides.values():  # caches, lazy imports
        side(1)
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds):
        for name, side in sides.items():
            started, worked = time.perf_counter(), time.process_time()
            done = side(100 + round_)
            cpu[name].append(done / (time.process_time() - worked))
            wall[name].append(done / (time.perf_counter() - started))
    middle = {name: statistics.median(values) for name, values in cpu.items()}
    return {
        "exact_rows_per_s_1core": round(middle["ours"], 1),
        "peer_batch_default_rows_per_s": round(middle["default"], 2),
        "peer_batch_tuned_rows_per_s": round(middle["tuned"], 2),
        "peer_batch_default_rows_per_s_wall": round(statistics.median(wall["default"]), 2),
        "peer_batch_tuned_rows_per_s_wall": round(statistics.median(wall["tuned"]), 2),
        "exact_rows_per_s_1core_wall": round(statistics.median(wall["ours"]), 1),
        "exact_x_batch_default_1core": round(middle["ours"] / middle["default"], 2),
        "exact_x_batch_tuned_1core": round(middle["ours"] / middle["tuned"], 2),
        "blas_ratio": round(_blas_ratio(), 2),
    }


def two_cores(rows: int) -> dict[str, float]:
    """Return rows a second of wall time with two workers, once both have begun to answer."""
    scanner = Scanner(ScanConfig(typed=False, normalise_digits=False, workers=2, batch_rows=MANY // 4))

    def batches() -> Iterator[Any]:
        for seed in range(0, rows, MANY):
            yield from customers(min(MANY, rows - seed), seed=10_000 + seed).to_batches()

    counted, started = 0, 0.0
    for number, batch in enumerate(scanner.scan_batches(batches())):
        if number > 1:
            counted += batch.rows
        elif number == 1:
            started = time.perf_counter()
    return {"exact_rows_per_s_2core_wall": round(counted / (time.perf_counter() - started), 1)}


def differences(rows: int, fuzzed: int) -> dict[str, float]:
    """Count the texts whose findings (type, start, end, score) are not those of `AnalyzerEngine.analyze`."""
    scanner = Scanner(ScanConfig(typed=False, normalise_digits=False))
    compared = differing = 0
    sample: list[str] = []
    for column in texts_of_batch(customers(rows, seed=77).combine_chunks().to_batches()[0], typed=False):
        for group in column.groups:
            texts = list(group.places)
            sample += texts[:: max(1, len(texts) // 400)]
            compared += len(texts)
            differing += _differing(scanner, texts, group.context)
    dice = random.Random(9)  # noqa: S311  # repeatable
    texts = list({_mutated(dice.choice(sample), dice) for _ in range(fuzzed)})
    differing += _differing(scanner, texts, ("field",))
    return {
        "exact_compared": compared + len(texts),
        "exact_differences": differing,
    }


def _differing(scanner: Scanner, texts: list[str], context: tuple[str, ...]) -> int:
    found = scanner.find(texts, context)
    return sum(set(found[text]) != _presidio_spans(scanner, text, context) for text in texts)


def _presidio_spans(scanner: Scanner, text: str, context: tuple[str, ...]) -> set[Span]:
    results = scanner.analyzer.analyze(text, "en", context=list(context))
    return {Span(result.entity_type, result.start, result.end, result.score) for result in results}


def _ours(scanner: Scanner, seed: int, rows: int) -> int:
    table = customers(rows, seed=seed + 50_000)
    return sum(batch.rows for batch in scanner.scan_batches(table.to_batches()))


def _presidio(scanner: Scanner, seed: int, rows: int, *, batch_size: int) -> int:
    from presidio_analyzer import BatchAnalyzerEngine

    columns = customers(rows, seed=seed + batch_size).to_pydict()
    columns["created_at"] = [str(value) for value in columns["created_at"]]  # it takes no timestamps
    engine = BatchAnalyzerEngine(scanner.analyzer)
    for _ in engine.analyze_dict(columns, "en", batch_size=batch_size):
        pass
    return rows


def _mutated(text: str, dice: random.Random) -> str:
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(text) + 1)
        changes = (
            text[:place] + dice.choice(FUZZ) + text[place:],
            text[:place] + text[place + 1 :],
            f"{dice.choice(KEYWORDS)} {text}",
            f"{text} {dice.choice(KEYWORDS)}: {text[:place]}",
            text.upper(),
            f"{text[:place]}. {text[place:]}",
            text[place:] + text[:place],
        )
        text = dice.choice(changes)
    return text


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


if __name__ == "__main__":
    parts: dict[str, Callable[..., dict[str, float]]] = {
        "speed": speed,
        "two_cores": two_cores,
        "differences": differences,
    }
    print(json.dumps(parts[sys.argv[1]](*map(int, sys.argv[2:]))))
