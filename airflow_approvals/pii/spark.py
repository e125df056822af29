"""The same scan and the same masking on Spark: one task for each part, through `mapInArrow`.

A part is read, scanned, masked and written by the very code that works without Spark, so its findings and the
digest of its output are the same whichever engine runs. The folders must be in reach of driver and executors
alike, and this package, with its model, installed on both. One engine stays in memory for each Python worker
(`spark.python.worker.reuse`, Spark's default). Masking hands its keys to the executors, in the task itself.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import (
    ApprovalsError,
    MissingExtraError,
    SourceChangedError,
    error_types,
)
from airflow_approvals.core.model import FileDigest, Snapshot, dataset_digest, from_json, to_json
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.masking.datasets import (
    Check,
    MaskReport,
    collect_values,
    finished_masking,
    mask_part,
    open_destination,
)
from airflow_approvals.pii.masking.finished import FinishedPart, WaitingDataset
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.reading import DatasetReader, about
from airflow_approvals.pii.masking.rules import MaskingRules
from airflow_approvals.pii.masking.tables import TableMasker
from airflow_approvals.pii.pace import Pace
from airflow_approvals.pii.report import ScanReport
from airflow_approvals.pii.scan_datasets import (
    DatasetScan,
    PartCount,
    PartScan,
    arrow_batches,
    finished_scan,
)
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.staging.locations import Part, locate

if TYPE_CHECKING:
    from pyspark.accumulators import Accumulator
    from pyspark.sql import SparkSession

EVERY = 1.0  # seconds between two looks at what is done
ANSWER = "part bigint, answer string"
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Kernel = Callable[[DatasetReader, Part], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class SparkMasked:
    """A dataset that was masked on Spark: what it is now, and what was done."""

    snapshot: Snapshot
    report: MaskReport
    resumed_parts: int = 0  # Spark does a lost task again by itself; a lost driver begins anew


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the parts are; goes to the executors."""

    uri: str
    conn_id: str | None
    format: str | None


@contextmanager
def session_for(config: ScanConfig) -> Iterator[SparkSession]:
    """Yield the Spark that is running in this process, or else one of its own that ends with the work."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtraError("Spark is not installed; install airflow-approvals[spark]") from error
    running = SparkSession.getActiveSession()
    if running is not None:
        yield running
        return
    with local_session(config.workers, config.spark_master) as started:
        yield started


@contextmanager
def local_session(cores: int = 2, master: str | None = None) -> Iterator[SparkSession]:
    """Yield a Spark of its own, on this machine or under a master.

    Raise `MissingExtraError` without pyspark or Java.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtraError("Spark is not installed; install airflow-approvals[spark]") from error
    builder = SparkSession.builder.master(master or f"local[{cores}]").appName("airflow-approvals")
    if master is None:
        for name in ("spark.driver.host", "spark.driver.bindAddress"):
            builder = builder.config(name, "127.0.0.1")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else the first python3 of the PATH
    for name, value in THREADS.items():
        builder = builder.config(f"spark.executorEnv.{name}", value)
        os.environ.setdefault(name, value)  # a local Spark's workers have the driver's environment
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    try:
        session = (
            builder.config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.log.level", "ERROR")
            .getOrCreate()
        )
    except (PySparkException, OSError) as error:
        raise MissingExtraError("Spark cannot be started; it needs Java 17 or later (JAVA_HOME)") from error
    try:
        yield session
    finally:
        session.stop()


def scan_dataset_on_spark(
    session: SparkSession,
    uri: str,
    config: ScanConfig | None = None,
    *,
    conn_id: str | None = None,
    format: str | None = None,  # the word that users know
    pace: Pace | None = None,
) -> DatasetScan:
    """Scan every cell of the dataset at `uri`; the findings are those of `scan_dataset`.

    `pace` is told of every part that is done; its rows are counted first, in a job of their own.
    """
    run = _Run(session, _Place(uri=uri, conn_id=conn_id, format=format), pace)
    answers = run.over_parts("scanning", partial(_scan_part, _on_executors(config)))
    parts = [(from_json(PartScan, one["part"]), from_json(ScanReport, one["report"])) for one in answers]
    return finished_scan(uri, run.digest, parts)


def mask_dataset_on_spark(
    session: SparkSession,
    source_uri: str,
    destination_uri: str,
    rules: MaskingRules,
    keys: KeyRing,
    config: ScanConfig | None = None,
    *,
    source_conn_id: str | None = None,
    format: str | None = None,  # the word that users know
    overwrite: bool = False,
    check: Check | None = None,
    pace: Pace | None = None,
) -> SparkMasked:
    """Mask the dataset at `source_uri` into one at `destination_uri`; the bytes are those of `mask_dataset`.

    It appears complete or not at all; `check` runs here, and is given no values: they stay on the executors.
    `pace` is told of every part that is done. Raises as `mask_dataset` does.
    """
    engine = _on_executors(config)
    run = _Run(session, _Place(uri=source_uri, conn_id=source_conn_id, format=format), pace)
    reader = run.reader
    with (
        open_destination(reader, destination_uri, overwrite=overwrite) as (path, target),
        # Beside the destination, so that executors that reach the one reach the other.
        tempfile.TemporaryDirectory(prefix=".airflow-approvals-spark-", dir=path.parent) as folder,
    ):
        collected = run.over_parts("finding", partial(_collect_part, engine, rules, folder))
        indexes = tuple(one["index"] for one in collected)
        masked = run.over_parts("masking", partial(_mask_part, engine, rules, keys, indexes, folder))
        finished = [from_json(FinishedPart, one["finished"]) for one in masked]
        if check is not None:
            check(WaitingDataset(destination_uri, path, finished, is_folder=reader.listing.is_folder), None)
        for part in finished:
            part.copy_to(target)
        target.appear()
    made, report = finished_masking(
        destination_uri,
        rules,
        finished,
        source_sha256=run.digest,
        values=max(one["values"] for one in masked),
        format=format,
    )
    return SparkMasked(snapshot=made, report=report)


# --- on the executors ---------------------------------------------------------------------------------------


def _count_part(reader: DatasetReader, part: Part) -> dict[str, Any]:
    return {"rows": sum(map(len, reader.batches_of(part)))}


def _scan_part(config: ScanConfig, reader: DatasetReader, part: Part) -> dict[str, Any]:
    scanner = _scanner(config)
    count = PartCount(part.name)
    for found in scanner.scan_batches(arrow_batches(reader, part)):
        count.add(found, 0)
    scanned, report = count.finished(scanner)
    return {"rows": scanned.rows, "part": to_json(scanned), "report": to_json(report)}


def _collect_part(
    config: ScanConfig, rules: MaskingRules, folder: str, reader: DatasetReader, part: Part
) -> dict[str, Any]:
    counted = Pace(lambda _: None)
    known = collect_values(reader, rules, _scanner(config), pace=counted)
    path = Path(folder) / f"{_number(part)}.known"
    path.write_bytes(known.packed())
    return {"rows": counted.standing().rows, "index": str(path)}


def _mask_part(
    config: ScanConfig,
    rules: MaskingRules,
    keys: KeyRing,
    indexes: tuple[str, ...],
    folder: str,
    reader: DatasetReader,
    part: Part,
) -> dict[str, Any]:
    known = _known(indexes)
    typed = reader.layout.format != "jsonl"
    masker = TableMasker(rules, keys, _scanner(config), known=known, typed=typed)
    finished = mask_part(masker, reader, part, Path(folder) / f"{_number(part)}.masked")
    return {"rows": finished.rows, "finished": to_json(finished), "values": len(known)}


@lru_cache(maxsize=2)
def _scanner(config: ScanConfig) -> Scanner:
    """Return the engine of this process; its model is loaded once."""
    return Scanner(config)


@lru_cache(maxsize=1)
def _known(indexes: tuple[str, ...]) -> ValueIndex:
    return ValueIndex.unpacked(Path(index).read_bytes() for index in indexes)


def _number(part: Part) -> str:
    from hashlib import sha256

    return sha256(part.name.encode()).hexdigest()[:32]


def _answer_all(
    kernel: Kernel, place: _Place, names: Sequence[str], done: Accumulator[int], batches: Iterator[Any]
) -> Iterator[Any]:
    """Answer for every part by its number; errors of ours are answers too, since Spark keeps only texts."""
    import pyarrow as pa

    for batch in batches:
        numbers = batch.column("id").to_pylist()
        found = [_answer(kernel, place, names[number]) for number in numbers]
        done.add(sum(one.get("rows", 0) for one in found))
        answers = [json.dumps(one) for one in found]
        yield pa.RecordBatch.from_arrays(
            [pa.array(numbers, pa.int64()), pa.array(answers, pa.string())], names=["part", "answer"]
        )


def _answer(kernel: Kernel, place: _Place, name: str) -> dict[str, Any]:
    try:
        reader = _reader(place, name)
        (part,) = reader.listing.parts
        with about(reader):
            answer = kernel(reader, part)
        (digest,) = reader.files
    except ApprovalsError as error:
        return {"error": error.type, "message": str(error)}
    return {**answer, "digest": to_json(digest)}


# --- on the driver ------------------------------------------------------------------------------------------


class _Run:
    """One job after the other over all parts of a dataset, which must be the same bytes in each."""

    def __init__(self, session: SparkSession, place: _Place, pace: Pace | None) -> None:
        self.reader = _reader(place)
        self.digest = ""
        self._session = session
        self._place = place
        self._pace = pace
        self._rows: int | None = None  # of all parts, once a job has read them

    def over_parts(self, step: str, kernel: Kernel) -> list[dict[str, Any]]:
        """Return the answers for all parts, in their order; raise the first error among them."""
        done = self._session.sparkContext.accumulator(0)
        if self._pace is None:
            return self._answers(kernel, done)
        if self._rows is None:
            self._answers(_count_part, self._session.sparkContext.accumulator(0))
        self._pace.begin(step, self._rows or 0)
        with _followed(done, self._pace):
            return self._answers(kernel, done)

    def _answers(self, kernel: Kernel, done: Accumulator[int]) -> list[dict[str, Any]]:
        names = [part.name for part in self.reader.listing.parts]
        # A slice each: Spark hands them to whoever is free. Numbers, because Spark makes them by itself:
        # rows of Python would need workers of their own, which then take turns with those that hold a model.
        asked = self._session.range(0, len(names), 1, len(names))
        with warnings.catch_warnings():
            # Spark 4.3 says of pandas 3 that it may not do; nothing of pandas is used here.
            warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
            answer_all = partial(_answer_all, kernel, self._place, names, done)
            found = asked.mapInArrow(answer_all, ANSWER).collect()
        answered = {row["part"]: json.loads(row["answer"]) for row in found}
        answers = [answered[number] for number in range(len(names))]
        for answer in answers:
            if "error" in answer:
                raise error_types()[answer["error"]](answer["message"])
        self._check_unchanged(answers)
        self._rows = sum(answer["rows"] for answer in answers)
        return answers

    def _check_unchanged(self, answers: Sequence[dict[str, Any]]) -> None:
        files = [from_json(FileDigest, one["digest"]) for one in answers]
        digest = dataset_digest(files, is_folder=self.reader.listing.is_folder)
        if self.digest not in ("", digest):
            raise SourceChangedError(
                f"{self._place.uri}: changed between two readings; stage it completely first"
            )
        self.digest = digest


@contextmanager
def _followed(done: Accumulator[int], pace: Pace) -> Iterator[None]:
    """Tell `pace` of rows as Spark tells of parts that are done, while the caller waits for all of them."""
    over = threading.Event()
    told = 0

    def follow() -> None:
        nonlocal told
        while not over.wait(EVERY):
            now = int(done.value)
            if now > told or now < pace.standing().of:
                pace.add(now - told)
            told = now

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()
    if int(done.value) > told:
        pace.add(int(done.value) - told)


def _on_executors(config: ScanConfig | None) -> ScanConfig:
    """Return the configuration for one process: the parts are shared out already."""
    return replace(config or ScanConfig(), engine="local", workers=1)


def _reader(place: _Place, *only: str) -> DatasetReader:
    return DatasetReader(locate(place.uri, place.conn_id), place.format, only=only or None)
