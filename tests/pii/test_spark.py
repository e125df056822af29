"""Spark runs the same kernel: the same findings, and the same bytes for each part."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet  # noqa: TID253

from airflow_approvals.core.errors import (
    ConfigurationError,
    MissingExtraError,
    SourceUnreadableError,
    VerificationError,
)
from airflow_approvals.pii import steps
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.masking.datasets import mask_dataset
from airflow_approvals.pii.masking.finished import WaitingDataset
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.operators import Hash, Operator, Pseudonym
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.pace import Pace, Standing
from airflow_approvals.pii.scan_datasets import plan_dataset, scan_dataset
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.spark import (
    local_session,
    mask_dataset_on_spark,
    scan_dataset_on_spark,
    session_for,
)
from airflow_approvals.pii.verify_datasets import verify_located, verify_masked
from airflow_approvals.staging.locations import locate
from tests.pii.customers import customers
from tests.pii.mask_samples import KEYS

PARTS = 3
ROWS = 20


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """A real Spark on two cores; without Java this fails, and says so."""
    logging.getLogger("py4j").setLevel(logging.ERROR)
    with local_session(cores=2) as started:
        yield started


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spark") / "customers"
    folder.mkdir()
    for number in range(PARTS):
        # The last part holds what the first one holds in its columns only: in texts it is known from there.
        parquet.write_table(customers(ROWS + number, seed=number), folder / f"part-{number}.parquet")
    return folder


@pytest.fixture(scope="module")
def rules(source: Path, scanner: Scanner) -> MaskingRules:
    operators: dict[str, Operator] = {
        "PERSON": Pseudonym(domain="customers"),
        "IP_ADDRESS": Hash(domain="customers"),
    }
    return plan_dataset(str(source), scanner, operators=operators).rules()


@pytest.mark.services
def test_findings_are_the_same_part_by_part(session: Any, source: Path, scanner: Scanner) -> None:
    ours = scan_dataset(str(source), scanner)
    theirs = scan_dataset_on_spark(session, str(source))
    assert [part.rows for part in ours.parts] == [ROWS, ROWS + 1, ROWS + 2]
    assert all(part.findings for part in ours.parts)
    assert theirs == ours


@pytest.mark.services
def test_masked_parts_are_the_same_bytes(
    session: Any, source: Path, scanner: Scanner, rules: MaskingRules, tmp_path: Path
) -> None:
    here = mask_dataset(str(source), str(tmp_path / "here"), rules, KEYS, scanner)
    there = mask_dataset_on_spark(session, str(source), str(tmp_path / "there"), rules, KEYS)
    assert len(here.snapshot.files) == PARTS
    assert there.snapshot.files == here.snapshot.files
    assert there.report == here.report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "there"]
    report = verify_masked(str(source), str(tmp_path / "there"), rules, scanner, keys=KEYS)
    report.check()


@pytest.mark.services
def test_what_does_not_hold_does_not_appear_on_spark_either(
    session: Any, source: Path, scanner: Scanner, rules: MaskingRules, tmp_path: Path
) -> None:
    alone = ColumnRule(column="notes", treatment=Treatment.LEAVE)
    leaky = replace(rules, columns=tuple(alone if one.column == "notes" else one for one in rules.columns))

    def check(waiting: WaitingDataset, known: ValueIndex | None) -> None:
        assert known is None
        verify_located(locate(str(source)), waiting, leaky, scanner, keys=KEYS).check()

    with pytest.raises(VerificationError, match="column 'notes'"):
        mask_dataset_on_spark(session, str(source), str(tmp_path / "out"), leaky, KEYS, check=check)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.services
def test_steps_of_a_pipeline_run_on_spark_with_the_same_reports(
    session: Any, source: Path, tmp_path: Path
) -> None:
    told = {}
    for engine in ("local", "spark"):
        scanner = steps.scanner_of({"engine": engine, "workers": 1 if engine == "local" else 2})
        staged, masked = steps.Staged(uri=str(source)), tmp_path / engine / "out"
        scanned = steps.scan(staged, scanner, report=str(tmp_path / f"{engine}.json"))
        made = steps.mask(staged, str(masked), steps.PlanSource(), KEYS, scanner)
        told[engine] = scanned.report, made.written.report, made.plan.digest
    assert told["spark"] == told["local"]


@pytest.mark.services
def test_a_log_is_told_of_every_row_on_spark_as_well(
    session: Any, source: Path, rules: MaskingRules, tmp_path: Path
) -> None:
    standings: list[Standing] = []
    pace, every = Pace(standings.append, every=0.0), PARTS * ROWS + 3
    scan_dataset_on_spark(session, str(source), pace=pace)
    mask_dataset_on_spark(session, str(source), str(tmp_path / "out"), rules, KEYS, pace=pace)
    for step in ("scanning", "finding", "masking"):
        told = [standing for standing in standings if standing.step == step]
        assert {standing.of for standing in told} == {every}
        assert told[0].rows == 0
        assert told[-1].rows == every
        assert sorted(standing.rows for standing in told) == [standing.rows for standing in told]
        assert "rows/s" in told[-1].words


@pytest.mark.services
def test_an_error_in_a_part_keeps_its_kind_and_nothing_appears(
    session: Any, source: Path, rules: MaskingRules, tmp_path: Path
) -> None:
    damaged = tmp_path / "in"
    shutil.copytree(source, damaged)
    (damaged / "part-1.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(SourceUnreadableError, match=r"part-1\.parquet"):
        scan_dataset_on_spark(session, str(damaged))
    with pytest.raises(SourceUnreadableError, match=r"part-1\.parquet"):
        mask_dataset_on_spark(session, str(damaged), str(tmp_path / "out"), rules, KEYS)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_without_pyspark_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(MissingExtraError, match=r"airflow-approvals\[spark\]"), session_for(ScanConfig()):
        pytest.fail("a session without pyspark")
    with pytest.raises(MissingExtraError, match=r"airflow-approvals\[spark\]"), local_session():
        pytest.fail("a session without pyspark")


def test_an_index_of_another_hashing_process_is_refused() -> None:
    index = ValueIndex()
    index.add("Maria Gonzalez", "PERSON")
    packed = index.packed()
    assert [*ValueIndex.unpacked([packed, packed]).find_in_text("to maria gonzález!")] == ["PERSON"]
    head, _, body = packed.partition(b"\n")
    other = head.replace(str(hash("airflow-approvals")).encode(), b"17") + b"\n" + body
    with pytest.raises(ConfigurationError, match="PYTHONHASHSEED"):
        ValueIndex.unpacked([other])


def test_packed_indexes_together_find_what_each_of_them_found() -> None:
    one, other = ValueIndex(), ValueIndex()
    one.add("Maria Gonzalez", "PERSON")
    one.add("10.0.0.7", "IP_ADDRESS")
    other.add("4111 1111 1111 1111", "CREDIT_CARD")
    other.add("abc", "PERSON")
    both = ValueIndex.unpacked([one.packed(), other.packed()])
    assert len(both) == len(one) + len(other)
    assert both.short_values == 1
    assert both.entity_types == {"PERSON", "IP_ADDRESS", "CREDIT_CARD"}
    found = list(both.find_in_text("4111-1111-1111-1111 is Maria Gonzalez at 10.0.0.7"))
    assert sorted(found) == ["CREDIT_CARD", "IP_ADDRESS", "PERSON"]
