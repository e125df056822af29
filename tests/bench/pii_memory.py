"""What one scanning process holds in memory after few rows and after a million of them.

The table is one of facts: five rows in turn for each customer, who has a name, an address and a number of
their own. Names and addresses are new words to spaCy all along, which is what lets memory grow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from airflow_approvals.pii.report import Tally
from airflow_approvals.pii.scanner import Scanner
from tests.pii.customers import STATUSES

FEW = 20_000
BATCH = 2_000
ROWS_PER_CUSTOMER = 5
SYLLABLES = (
    "an",
    "bel",
    "cor",
    "den",
    "el",
    "far",
    "gor",
    "hil",
    "is",
    "jan",
    "kel",
    "lor",
    "man",
    "nor",
    "os",
)


def figures(rows: int) -> dict[str, Any]:
    """Return the peak of memory in MB (2^20 bytes) after few rows and after all, and how many these were."""
    scanner = Scanner()
    tally = Tally()
    after_few = 0.0
    for found in scanner.scan_batches(_batches(rows)):
        tally.add(found)
        if tally.rows == min(FEW, rows):
            after_few = _of_this_process("VmHWM")
    after_all = _of_this_process("VmHWM")
    return {
        "rss_mb_per_worker_2e4": round(after_few),
        "rss_mb_per_worker_1e6": round(after_all),
        "rss_ratio_1e6_to_2e4": round(after_all / after_few, 2),
        "rss_rows": tally.rows,
    }


def _batches(rows: int) -> Iterator[Any]:
    import pyarrow as pa

    dice = Random(5)  # noqa: S311  # repeatable
    customer = 0
    for first in range(0, rows, BATCH):
        columns: dict[str, list[Any]] = {"customer_id": [], "full_name": [], "email": [], "status": []}
        for row in range(min(BATCH, rows - first)):
            if row % ROWS_PER_CUSTOMER == 0:
                customer += 1
                given, family = (_name(dice) for _ in range(2))
            columns["customer_id"].append(100_000 + customer)
            columns["full_name"].append(f"{given} {family}")
            columns["email"].append(f"{given}.{family}{customer}@example.com".lower())
            columns["status"].append(dice.choice(STATUSES))
        yield pa.record_batch(columns)


def _name(dice: Random) -> str:
    return "".join(dice.choices(SYLLABLES, k=dice.randint(2, 4))).capitalize()


def _of_this_process(what: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


if __name__ == "__main__":
    print(json.dumps(figures(*map(int, sys.argv[1:]))))
