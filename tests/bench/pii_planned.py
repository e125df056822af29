"""Masking by a plan, file to file, and verifying: rows a second of CPU time on one core."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from airflow_approvals.pii.masking.datasets import mask_dataset
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.operators import Fake, Operator, Pseudonym
from airflow_approvals.pii.planning import plan_masking
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.verify_datasets import verify_masked
from tests.pii.customers import STRUCTURED, customers

KEYS = KeyRing(domains={"bench": b"b" * 32})
OPERATORS: dict[str, Operator] = {
    "PERSON": Pseudonym(domain="bench"),
    "EMAIL_ADDRESS": Fake(domain="bench"),
    "CREDIT_CARD": Fake(domain="bench"),
}


def rates(structured_rows: int, text_rows: int, rounds: int) -> dict[str, Any]:
    """Return rows a second of masking: what the plan needs of both readings, and what is written."""
    scanner, planner = Scanner(), Scanner()  # what was seen in a sample would come out of memory
    plan_masking(scanner, customers(30, seed=1).to_batches(), operators=OPERATORS)  # caches, lazy imports
    structured: list[float] = []
    text: list[float] = []
    with tempfile.TemporaryDirectory(prefix="pii-bench-") as folder:
        table = customers(structured_rows, seed=300).select(STRUCTURED)
        for round_ in range(rounds):
            structured.append(_masking_rate(scanner, planner, table, Path(folder), f"structured-{round_}"))
            unseen = customers(text_rows, seed=310 + round_)
            text.append(_masking_rate(scanner, planner, unseen, Path(folder), f"text-{round_}"))
    return {
        "planned_rows_per_s_structured": round(statistics.median(structured)),
        "planned_rows_per_s_text": round(statistics.median(text)),
    }


def verifying(rows: int, rounds: int = 3) -> dict[str, Any]:
    """Return how long verification takes beside the exact scan of the same rows.

    It is given nothing of what masking found: it reads the input again, as in a task of its own.
    """
    scanning, masking, verifying = Scanner(), Scanner(), Scanner()
    shares: list[float] = []
    rows_per_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="pii-bench-") as folder:
        for round_ in range(-1, rounds):  # the first for caches and lazy imports
            count = rows if round_ >= 0 else 30
            table = customers(count, seed=330 + round_)
            source, masked = _paths(Path(folder), str(round_))
            _write(table, source)
            plan = plan_masking(masking, table.to_batches(), operators=OPERATORS)
            mask_dataset(str(source), str(masked), plan.rules(), KEYS, masking)
            scan_s = _seconds(partial(_scan, scanning, table))
            check = partial(verify_masked, str(source), str(masked), plan.rules(), verifying, keys=KEYS)
            started = time.process_time()
            check().check()
            verify_s = time.process_time() - started
            if round_ >= 0:
                shares.append(verify_s / scan_s)
                rows_per_s.append(count / verify_s)
    return {
        "verify_share_of_scan": round(statistics.median(shares), 2),
        "verify_rows_per_s": round(statistics.median(rows_per_s)),
    }


def _scan(scanner: Scanner, table: Any) -> None:
    for _ in scanner.scan_batches(table.to_batches()):
        pass


def _masking_rate(scanner: Scanner, planner: Scanner, table: Any, folder: Path, name: str) -> float:
    source, masked = _paths(folder, name)
    _write(table, source)
    plan = plan_masking(planner, table.to_batches(), operators=OPERATORS)
    seconds = _seconds(lambda: mask_dataset(str(source), str(masked), plan.rules(), KEYS, scanner))
    return float(table.num_rows / seconds)


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.parquet", folder / f"{name}-masked.parquet"


def _write(table: Any, path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(table, path)


def _seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    parts: dict[str, Callable[..., dict[str, Any]]] = {"rates": rates, "verifying": verifying}
    print(json.dumps(parts[sys.argv[1]](*map(int, sys.argv[2:]))))
