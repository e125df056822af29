"""`make bench`: runs benchmarks and prints one JSON line for each: figures, peers, goals."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a figure is held to: at most `bound`, or at least."""

    bound: float
    at_least: bool = False

    def holds(self, got: float) -> bool:
        return got >= self.bound if self.at_least else got <= self.bound


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One benchmark: the modules whose `figures()` it takes, and its goals."""

    modules: tuple[str, ...]
    goals: dict[str, Goal]
    short: dict[str, dict[str, Any]] = field(default_factory=dict)  # arguments of `figures` by module


MIB = 1024**2

BENCHES: dict[str, Bench] = {
    "wait": Bench(
        modules=("wait",),
        goals={
            "p99_ms_1000": Goal(bound=250),
            "p99_ms_10000": Goal(bound=1_000),
            "idle_requests_per_min_1000": Goal(bound=10),
            "rss_kb_per_gate_1000": Goal(bound=20),
            "times_faster_than_hitl_trigger_p99": Goal(bound=1, at_least=True),
        },
        short={"wait": {"n": 100, "many": 300, "idle_seconds": 25.0}},
    ),
    "votes": Bench(
        modules=("votes",),
        goals={
            "votes_per_s": Goal(bound=50, at_least=True),
            "p99_ms": Goal(bound=1_000),
            "decisions_of_100_simultaneous": Goal(bound=1),
        },
        short={"votes": {"votes": 100}},
    ),
    "ledger": Bench(
        modules=("ledger_verify", "ledger_append"),
        goals={
            "verify_entries_per_s": Goal(bound=100_000, at_least=True),
            "append_ratio_1e6_to_1e3": Goal(bound=1.5),
        },
        short={"ledger_verify": {"entries": 50_000}, "ledger_append": {"long": 50_000}},
    ),
    "export": Bench(
        modules=("export",),
        goals={"ratio_to_cp_and_sha256sum": Goal(bound=1.3), "rss_mb_above_import": Goal(bound=150)},
        short={"export": {"size_bytes": 256 * MIB}},
    ),
    "parse": Bench(
        modules=("parse",),
        goals={"ms_over_ungated": Goal(bound=50), "heavy_modules_imported": Goal(bound=0)},
        short={"parse": {"rounds": 3}},
    ),
    "pii": Bench(
        modules=("pii", "pii_spark"),
        goals={
            "exact_x_batch_default_1core": Goal(bound=10, at_least=True),
            "exact_x_batch_tuned_1core": Goal(bound=4, at_least=True),
            "exact_x_batch_default_2core": Goal(bound=20, at_least=True),
            "exact_differences": Goal(bound=0),
            "planned_rows_per_s_structured": Goal(bound=5_000, at_least=True),
            "planned_rows_per_s_text": Goal(bound=200, at_least=True),
            "rss_mb_per_worker_1e6": Goal(bound=512),
            "rss_ratio_1e6_to_2e4": Goal(bound=1.25),
            "verify_share_of_scan": Goal(bound=0.5),
            "residual_cells": Goal(bound=0),
            "surviving_values": Goal(bound=0),
            "spark_x_two_workers": Goal(bound=1.3),
        },
        short={
            "pii": {
                "rows": 20,
                "two_core_rows": 3_000,
                "planned_rows": 1_000,
                "text_rows": 150,
                "exact_rows": 40,
                "fuzzed": 100,
                "memory_rows": 30_000,
                "sentences": 100,
            },
            "pii_spark": {"rows": 0},
        },
    ),
    "slack": Bench(
        modules=("slack",),
        goals={
            "click_ms_p99": Goal(bound=300),
            "freeze_ms_p99": Goal(bound=1_000),
            "lost": Goal(bound=0),
            "doubled": Goal(bound=0),
        },
        short={"slack": {"prompts": 60, "channels": 10, "clicks": 40}},
    ),
    "lineage": Bench(
        modules=("lineage",),
        goals={"ms_per_task_200_columns": Goal(bound=50)},
        short={"lineage": {"rounds": 5}},
    ),
    "enforce": Bench(
        modules=("enforce", "evidence"),
        goals={
            "parse_overhead_share": Goal(bound=0.05),
            "middleware_ms_p99": Goal(bound=1),
            "evidence_s_100000": Goal(bound=60),
            "evidence_rss_mb": Goal(bound=500),
        },
        short={"enforce": {"parsers": 1, "rounds": 2, "requests": 300}, "evidence": {"decisions": 2_000}},
    ),
}
PEER_PREFIXES = ("peer_", "hitl_trigger_", "ms_ungated")
"""What a figure's name begins with when it was measured on somebody else's way of doing it."""


def main() -> int:
    """Run the benchmarks that are named, or all; the exit status tells only whether they ran."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], metavar="NAME")
    parser.add_argument("--short", action="store_true", help="small sizes: shows that it runs")
    args = parser.parse_args()
    for name in args.names or BENCHES:
        print(json.dumps(run(name, BENCHES[name], short=args.short)), flush=True)
    return 0


def run(name: str, bench: Bench, *, short: bool) -> dict[str, Any]:
    """Return everything that the benchmark `name` measured."""
    measured: dict[str, Any] = {}
    for module in bench.modules:
        figures: Callable[..., dict[str, Any]] = importlib.import_module(f"tests.bench.{module}").figures
        measured |= figures(**(bench.short.get(module, {}) if short else {}))
    said = {key: value for key, value in measured.items() if isinstance(value, str)}  # of builds and paths
    measured = {key: value for key, value in measured.items() if key not in said}
    peers = {key: value for key, value in measured.items() if key.startswith(PEER_PREFIXES)}
    return {
        "bench": name,
        "short": short,
        "machine": _machine() | said,
        "figures": {key: value for key, value in measured.items() if key not in peers},
        "peers": peers,
        "goals": {
            key: {"goal": goal.bound, "got": measured[key], "holds": goal.holds(measured[key])}
            for key, goal in bench.goals.items()
            if key in measured
        },
    }


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
        "processor": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    sys.exit(main())
