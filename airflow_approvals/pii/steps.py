"""Scan, mask and verify as steps of a pipeline: each leaves a report beside the data and says what it did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from airflow_approvals.core.errors import InvalidRequestError, PiiFoundError
from airflow_approvals.core.pii_reports import DATASET
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.masking.datasets import Check, MaskedDataset, mask_dataset
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.operators import Operator
from airflow_approvals.pii.pace import Pace
from airflow_approvals.pii.plan import AnOperator, MaskingPlan, read_plan, write_plan
from airflow_approvals.pii.report_files import (
    Report,
    Written,
    place_beside,
    report_of_masking,
    report_of_scan,
    report_of_verification,
    scan_in,
    write_report,
)
from airflow_approvals.pii.scan_by_parts import scan_by_parts
from airflow_approvals.pii.scan_datasets import plan_dataset
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.sql_tables import is_table
from airflow_approvals.pii.verify_datasets import verify_located
from airflow_approvals.pii.verify_report import VerifyReport
from airflow_approvals.staging.locations import Location, local_path, locate

if TYPE_CHECKING:
    from airflow_approvals.pii.spark import SparkMasked

SCAN, MASK, VERIFY, PLAN = ".pii-scan.json", ".pii-mask.json", ".pii.json", ".plan.yaml"
"""What is added to the dataset's name for the files beside it."""


Told = Callable[[Written], None]
"""Is told of the report of a verification before anything is refused for what it says."""


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A staged dataset, and how it is read."""

    uri: str
    conn_id: str | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        if is_table(self.uri):
            raise InvalidRequestError(
                f"{self.uri.partition('://')[0]}://...: is a table, which may be another one when it is read "
                "again; stage it (staging.sql_source.stage_table), or scan and mask it in one task "
                "(PiiScanOperator, on_pii='mask')"
            )


@dataclass(frozen=True, kw_only=True)
class PlanSource:
    """Where the masking plan comes from: a file, pinned or not, or else a sample of the data."""

    file: str | None = None
    digest: str | None = None
    operators: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    otherwise: str | Mapping[str, Any] = "replace"
    domain: str = "default"

    def by_entity(self) -> dict[str, Operator]:
        """Return the operators of a plan that is drawn up."""
        return {entity: operator_of(word, self.domain) for entity, word in self.operators.items()}

    def for_others(self) -> Operator:
        """Return the operator for all other types."""
        return operator_of(self.otherwise, self.domain)


@dataclass(frozen=True, kw_only=True)
class Masked:
    """What masking left behind."""

    written: Written
    plan: MaskingPlan
    plan_file: Path
    resumed_parts: int


def scanner_of(settings: Mapping[str, Any] | None) -> Scanner:
    """Return a scanner by the names of `ScanConfig`; raise `InvalidRequestError` for any other."""
    # Presidio tells of every recognizer that it has, and of every one that it has not: in a task's log that
    # is a hundred lines before the first of ours.
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    try:
        config = TypeAdapter(ScanConfig).validate_python({**(settings or {})}, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidRequestError(f"scan: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if unknown := sorted(set(settings or {}) - set(ScanConfig.__dataclass_fields__)):
        raise InvalidRequestError(
            f"scan: {', '.join(unknown)} is not known; expected some of "
            f"{', '.join(ScanConfig.__dataclass_fields__)}"
        )
    return Scanner(config)


def scan(source: Staged, scanner: Scanner, *, report: str | None = None, pace: Pace | None = None) -> Written:
    """Scan a dataset and write its report."""
    path = place_beside(source.uri, SCAN, report)
    if scanner.config.engine == "spark":
        from airflow_approvals.pii.spark import scan_dataset_on_spark, session_for

        with session_for(scanner.config) as session:
            found = scan_dataset_on_spark(
                session,
                source.uri,
                scanner.config,
                conn_id=source.conn_id,
                format=source.format,
                pace=pace,
            )
    else:
        found = scan_by_parts(
            source.uri, scanner, beside=path, conn_id=source.conn_id, format=source.format, pace=pace
        )
    return write_report(path, report_of_scan(found))


def mask(
    source: Staged,
    masked_uri: str,
    plan_source: PlanSource,
    keys: KeyRing,
    scanner: Scanner,
    *,
    report: str | None = None,
    check: Callable[[Location, MaskingPlan], None] | None = None,
    pace: Pace | None = None,
) -> Masked:
    """Mask a dataset into another one by a plan, and write what was done.

    `check` sees it before it appears, and keeps it from that by an error.
    """
    path = place_beside(masked_uri, MASK, report)
    plan, plan_file = _planned(source, masked_uri, plan_source, scanner)
    sees = None if check is None else lambda waiting, _: check(waiting, plan)
    made = _mask(source, masked_uri, plan, keys, scanner, check=sees, pace=pace)
    written = write_report(path, report_of_masking(made.report, plan_digest=plan.digest))
    return Masked(written=written, plan=plan, plan_file=plan_file, resumed_parts=made.resumed_parts)


def mask_and_verify(
    source: Staged,
    masked_uri: str,
    plan_source: PlanSource,
    keys: KeyRing,
    scanner: Scanner,
    *,
    scan_report: Report,
    told: Told | None = None,
    pace: Pace | None = None,
) -> tuple[Masked, Written]:
    """Do both at once: the masked dataset appears only if masking holds, the proof is written either way."""
    path = place_beside(masked_uri, VERIFY)
    proofs: list[Written] = []

    def check(waiting: Location, plan: MaskingPlan) -> None:
        found = _verified(source, waiting, plan, scanner, keys=keys, pace=pace)
        proofs.append(_proof(found, plan, path, scan_report, told))

    made = mask(source, masked_uri, plan_source, keys, scanner, check=check, pace=pace)
    return made, proofs[0]


def _mask(
    source: Staged,
    masked_uri: str,
    plan: MaskingPlan,
    keys: KeyRing,
    scanner: Scanner,
    *,
    check: Check | None,
    pace: Pace | None,
) -> MaskedDataset | SparkMasked:
    if scanner.config.engine == "spark":
        from airflow_approvals.pii.spark import mask_dataset_on_spark, session_for

        with session_for(scanner.config) as session:
            return mask_dataset_on_spark(
                session,
                source.uri,
                masked_uri,
                plan.rules(),
                keys,
                scanner.config,
                source_conn_id=source.conn_id,
                format=source.format,
                overwrite=True,
                check=check,
                pace=pace,
            )
    return mask_dataset(
        source.uri,
        masked_uri,
        plan.rules(),
        keys,
        scanner,
        source_conn_id=source.conn_id,
        format=source.format,
        overwrite=True,
        check=check,
        pace=pace,
    )


def verify(
    source: Staged,
    masked: Staged,
    plan: MaskingPlan,
    scanner: Scanner,
    *,
    keys: KeyRing | None = None,
    scan_report: Report | None = None,
    report: str | None = None,
    told: Told | None = None,
    pace: Pace | None = None,
) -> Written:
    """Hold a masked dataset against its source, and write the proof, or what is left."""
    path = place_beside(masked.uri, VERIFY, report)
    if scan_report is not None:
        scan_in(scan_report, scan_report.get(DATASET))  # a broken one is found before the work is done
    found = _verified(source, locate(masked.uri, masked.conn_id), plan, scanner, keys=keys, pace=pace)
    return _proof(found, plan, path, scan_report, told)


def _proof(
    found: VerifyReport, plan: MaskingPlan, path: Path, scan_report: Report | None, told: Told | None
) -> Written:
    """Write the report of a verification, and raise `VerificationError` where masking does not hold."""
    written = write_report(path, report_of_verification(found, plan, scan=scan_report))
    if told is not None:
        told(written)
    found.check()
    return written


def _verified(
    source: Staged,
    masked: Location,
    plan: MaskingPlan,
    scanner: Scanner,
    *,
    keys: KeyRing | None,
    pace: Pace | None,
) -> VerifyReport:
    return verify_located(
        locate(source.uri, source.conn_id),
        masked,
        plan.rules(),
        scanner,
        keys=keys,
        format=source.format,
        pace=pace,
    )


def check_clean(written: Written) -> None:
    """Raise `PiiFoundError` where a scan found anything that is worth masking."""
    report = written.report
    if not report["residual"]:
        return
    found = ", ".join(f"{count} x {entity}" for entity, count in report["entities"].items())
    raise PiiFoundError(
        f"{written.path}: personal data in columns {report['columns']}: {found}; mask it, or stage it without"
    )


def operator_of(word: str | Mapping[str, Any], domain: str) -> Operator:
    """Return the operator that a word, or a word and its settings, stand for."""
    told = {"op": word} if isinstance(word, str) else dict(word)
    try:
        found: Operator = TypeAdapter(AnOperator).validate_python({"domain": domain, **told})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidRequestError(f"masking operator: {first['msg']}") from None
    return found


def read_planned(wanted: PlanSource) -> MaskingPlan:
    """Return the plan of a file; `InvalidRequestError` where none is named."""
    return read_plan(_plan_file(wanted), pinned=wanted.digest)


def _planned(
    source: Staged, masked_uri: str, wanted: PlanSource, scanner: Scanner
) -> tuple[MaskingPlan, Path]:
    if wanted.file is not None:
        return read_planned(wanted), _plan_file(wanted)
    if wanted.digest is not None:
        raise InvalidRequestError("plan_digest: expected the file of the plan that it pins; give plan, too")
    path = place_beside(masked_uri, PLAN)
    plan = plan_dataset(
        source.uri,
        scanner,
        conn_id=source.conn_id,
        format=source.format,
        operators=wanted.by_entity(),
        otherwise=wanted.for_others(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_plan(plan, path)
    return plan, path


def _plan_file(wanted: PlanSource) -> Path:
    path = local_path(wanted.file) if wanted.file else None
    if path is None:
        raise InvalidRequestError(
            f"plan: expected the local path of a masking plan that all workers see, found {wanted.file!r}"
        )
    return path
