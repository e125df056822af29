"""Scan, mask and verify staged data in tasks of their own: small XComs, reports beside the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_approvals.core.errors import (
    ConfigurationError,
    DigestMismatchError,
    InvalidRequestError,
    PiiFoundError,
    SchemaMismatchError,
    VerificationError,
)
from airflow_approvals.lineage.remembered import keep
from airflow_approvals.operators.pii_keys import key_ring
from airflow_approvals.operators.rendered import check_fields, given
from airflow_approvals.operators.reports import read_report

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_approvals.pii.pace import Pace
    from airflow_approvals.pii.report_files import Written
    from airflow_approvals.pii.steps import Masked, PlanSource

ON_PII = ("fail", "mask", "warn")
FINAL = (
    ConfigurationError,
    DigestMismatchError,
    InvalidRequestError,
    PiiFoundError,
    SchemaMismatchError,
    VerificationError,
)
"""What an automatic retry would only repeat."""
TABLE = "sql://"


class PiiOperator(BaseOperator):
    """What the operators below have in common: a staged source, how it is scanned, and by which keys.

    :param source: path or URI of the staged file or folder; where it is only scanned, or masked in the same
        task, `sql://CONN_ID/table` as well.
    :param source_conn_id: Airflow connection of an object store.
    :param format: parquet, csv or jsonl; told by the file name unless given.
    :param keys_conn_id: Airflow connection with the keys: its password is the key of the domain `default`,
        each entry of its extra one of another domain; base64 of 32 random bytes or more.
    :param key_file: or the file with them.
    :param scan: settings of the scan by the names of `ScanConfig`, such as `{"workers": 2}` or
        `{"engine": "spark"}`.
    :param report: where the report goes; beside the data unless given.
    """

    template_fields: Sequence[str] = (
        "source",
        "source_conn_id",
        "keys_conn_id",
        "key_file",
        "scan",
        "report",
    )
    ui_color = "#e6e0f5"

    def __init__(
        self,
        *,
        source: str,
        source_conn_id: str | None = None,
        format: str | None = None,  # the word that users know
        keys_conn_id: str | None = None,
        key_file: str | None = None,
        scan: Mapping[str, Any] | None = None,
        report: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if format not in (None, "parquet", "csv", "jsonl"):
            raise ValueError(f"format: expected parquet, csv or jsonl, found {format!r}")
        self.source = source
        self.source_conn_id = source_conn_id
        self.format = format
        self.keys_conn_id = keys_conn_id
        self.key_file = key_file
        self.scan = scan
        self.report = report
        self.given_fields = given(keys_conn_id=keys_conn_id, key_file=key_file, report=report)

    def get_openlineage_facets_on_start(self) -> Any:
        from airflow_approvals.lineage.masking import begun

        return begun(self)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        from airflow_approvals.lineage.masking import told

        return told(self)


class PiiScanOperator(PiiOperator):
    """Finds personal data in every cell of a staged dataset, and says what and where: counts, never values.

    Returns `report`, `report_sha256`, `sha256` (of the dataset), `rows`, `findings` and `columns` (how many
    have any); with `on_pii="mask"` what `PiiVerifyOperator` returns, and `masked`.

    :param on_pii: what to do about it: `warn` says so in the log; `fail` fails the task; `mask` masks into
        `masked`, in this task, where nothing appears that does not pass verification.
    :param masked: with `mask`, the dataset that is made; the other arguments are those of `PiiMaskOperator`.
    """

    template_fields: Sequence[str] = (
        *PiiOperator.template_fields,
        "masked",
        "plan",
        "plan_digest",
    )

    def __init__(
        self,
        *,
        on_pii: str = "warn",
        masked: str | None = None,
        plan: str | None = None,
        plan_digest: str | None = None,
        operators: Mapping[str, str | Mapping[str, Any]] | None = None,
        otherwise: str | Mapping[str, Any] = "replace",
        domain: str = "default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_on_pii(on_pii)
        check_masked(on_pii, masked)
        self.on_pii = on_pii
        self.masked = masked
        self.plan = plan
        self.plan_digest = plan_digest
        self.operators = operators
        self.otherwise = otherwise
        self.domain = domain
        self.given_fields += given(masked=masked, plan=plan, plan_digest=plan_digest)

    def execute(self, context: Context) -> dict[str, Any]:
        with refusals_are_final():
            check_fields(self, "source")
            return scan_and_act(self, self.source, conn_id=self.source_conn_id, format=self.format)


class PiiMaskOperator(PiiOperator):
    """Masks a staged dataset into another one, column by column as a masking plan says.

    A retry goes on where a killed try was: parts that are finished are kept, and nothing is half there.
    Returns `masked`, `report`, `report_sha256`, `sha256`, `source_sha256`, `rows`, `plan`, `plan_digest` and
    `resumed_parts`.

    :param masked: local path or `file://` URI of the dataset that is made, in the format of the source.
    :param plan: the file of the plan; without it one is drawn up from a sample and written beside the data.
    :param plan_digest: the digest that the plan must have; another one is refused.
    :param operators: for a plan that is drawn up: what stands where a value of an entity type stood, as
        `{"EMAIL_ADDRESS": "pseudonym"}`, or with its settings `{"op": "mask", "keep_last": 4}`.
    :param otherwise: the same for all other types.
    :param domain: whose key is used: what is masked under one domain joins across tables and runs.
    """

    template_fields: Sequence[str] = (*PiiOperator.template_fields, "masked", "plan", "plan_digest")

    def __init__(
        self,
        *,
        masked: str,
        plan: str | None = None,
        plan_digest: str | None = None,
        operators: Mapping[str, str | Mapping[str, Any]] | None = None,
        otherwise: str | Mapping[str, Any] = "replace",
        domain: str = "default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.masked = masked
        self.plan = plan
        self.plan_digest = plan_digest
        self.operators = operators
        self.otherwise = otherwise
        self.domain = domain
        self.given_fields += given(masked=masked, plan=plan, plan_digest=plan_digest)

    def execute(self, context: Context) -> dict[str, Any]:
        from airflow_approvals.pii import steps

        with refusals_are_final():
            check_fields(self, "source")
            made = steps.mask(
                steps.Staged(uri=self.source, conn_id=self.source_conn_id, format=self.format),
                self.masked,
                plan_source(self),
                key_ring(conn_id=self.keys_conn_id, key_file=self.key_file),
                steps.scanner_of(self.scan),
                report=self.report,
                pace=_pace(self),
            )
        keep(self, source=self.source, masked=self.masked, **_lineage_of(made))
        if made.resumed_parts:
            self.log.info("%d parts had been finished by an earlier try", made.resumed_parts)
        return {"masked": self.masked, **facts_of_masking(made)}


class PiiVerifyOperator(PiiOperator):
    """Proves that a masked dataset holds nothing of its source, or fails and says where something is left.

    Its report is the evidence that a policy asks for: `deny_if: ["pii.verified == false"]`. Returns `report`,
    `report_sha256`, `sha256` (of the masked dataset), `source_sha256`, `verified`, `residual`, `rows` and
    `plan_digest`.

    :param masked: the masked dataset.
    :param plan: the file of the plan that it was masked by.
    :param plan_digest: the digest that the plan must have.
    :param scan_report: the scan of the source, as `PiiScanOperator` returns it, or the path of its file: then
        approvers see what was found before and what is left.
    """

    template_fields: Sequence[str] = (
        *PiiOperator.template_fields,
        "masked",
        "masked_conn_id",
        "plan",
        "plan_digest",
        "scan_report",
    )

    def __init__(
        self,
        *,
        masked: str,
        plan: str,
        masked_conn_id: str | None = None,
        plan_digest: str | None = None,
        scan_report: dict[str, Any] | str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.masked = masked
        self.masked_conn_id = masked_conn_id
        self.plan = plan
        self.plan_digest = plan_digest
        self.scan_report: Any = scan_report  # rendered when the task runs
        self.given_fields += given(masked=masked, plan=plan, plan_digest=plan_digest, scan_report=scan_report)

    def execute(self, context: Context) -> dict[str, Any]:
        from airflow_approvals.pii import steps

        with refusals_are_final():
            check_fields(self, "source")
            has_keys = self.keys_conn_id is not None or self.key_file is not None
            verified = steps.verify(
                steps.Staged(uri=self.source, conn_id=self.source_conn_id, format=self.format),
                steps.Staged(uri=self.masked, conn_id=self.masked_conn_id, format=self.format),
                steps.read_planned(plan_source(self)),
                steps.scanner_of(self.scan),
                keys=key_ring(conn_id=self.keys_conn_id, key_file=self.key_file) if has_keys else None,
                scan_report=read_report(self.scan_report),
                report=self.report,
                told=_keeping(self, self.source),
                pace=_pace(self),
            )
        return facts_of_verification(verified)


def check_on_pii(on_pii: str) -> None:
    """Raise `ValueError` for anything but the three ways."""
    if on_pii not in ON_PII:
        raise ValueError(f"on_pii: expected one of {', '.join(ON_PII)}, found {on_pii!r}")


def check_masked(on_pii: str, masked: str | None) -> None:
    """Raise `ValueError` where only one of two arguments says to mask a staged dataset."""
    if (on_pii == "mask") != (masked is not None):
        raise ValueError("on_pii='mask' and masked= belong together: name the dataset that is made")


def scan_and_act(
    task: Any, uri: str, *, conn_id: str | None = None, format: str | None = None
) -> dict[str, Any]:
    """Scan the dataset at `uri`, do about it what the arguments of `task` say, and return the facts."""
    from airflow_approvals.pii.sql_tables import staged

    if uri.startswith(TABLE) and task.report is None:
        raise InvalidRequestError(f"{uri}: nothing can lie beside a table; name the report's file: report=")
    with staged(uri, conn_id, format) if uri.startswith(TABLE) else nullcontext() as table:
        return _scan_staged(task, uri, table.uri if table else uri, conn_id=conn_id, format=format)


def _scan_staged(
    task: Any, uri: str, path: str, *, conn_id: str | None, format: str | None
) -> dict[str, Any]:
    """Do so with the dataset at `path`: the one at `uri`, or the table there, which was staged."""
    from airflow_approvals.pii import steps

    scanner, pace = steps.scanner_of(task.scan), _pace(task)
    source = steps.Staged(uri=path, conn_id=conn_id, format=format)
    scanned = steps.scan(source, scanner, report=task.report, pace=pace)
    keep(task, source=uri, scan=scanned.report)
    if task.on_pii == "fail":
        steps.check_clean(scanned)
    if task.masked is None:
        _say(task, uri, scanned)
        return facts_of_scan(scanned)
    keys = key_ring(conn_id=task.keys_conn_id, key_file=task.key_file)
    made, verified = steps.mask_and_verify(
        source,
        task.masked,
        plan_source(task),
        keys,
        scanner,
        scan_report=scanned.report,
        told=_keeping(task, uri),
        pace=pace,
    )
    keep(task, **_lineage_of(made))
    return {"masked": task.masked, **facts_of_verification(verified)}


def _say(task: Any, uri: str, scanned: Written) -> None:
    found = scanned.report
    if found["residual"]:
        task.log.warning("%s: personal data in %d columns: %s", uri, len(found["columns"]), found["entities"])
    else:
        task.log.info("%s: no personal data found", uri)


def _pace(task: Any) -> Pace:
    from airflow_approvals.pii.pace import Pace

    return Pace(lambda standing: task.log.info("%s", standing.words))


@contextmanager
def refusals_are_final() -> Iterator[None]:
    """Fail the task without retries where another try would come to the same."""
    from airflow.providers.common.compat.sdk import AirflowFailException

    try:
        yield
    except FINAL as refusal:
        raise AirflowFailException(str(refusal)) from refusal


def _keeping(task: Any, source: str) -> Callable[[Written], None]:
    """Keep what a verification found before it refuses: lineage tells what failed, too."""
    return lambda proof: keep(task, source=source, masked=task.masked, verification=proof.report)


def _lineage_of(made: Masked) -> dict[str, Any]:
    from airflow_approvals.core.model import Column

    columns = [Column(name=each.column, type=each.type) for each in made.plan.columns]
    return {"columns": columns, "mask": made.written.report}


def plan_source(operator: Any) -> PlanSource:
    """Return where the plan comes from, by the arguments of an operator."""
    from airflow_approvals.pii.steps import PlanSource

    drawn = {
        name: getattr(operator, name)
        for name in ("operators", "otherwise", "domain")
        if getattr(operator, name, None) is not None
    }
    return PlanSource(file=operator.plan, digest=operator.plan_digest, **drawn)


def facts_of_scan(scanned: Written) -> dict[str, Any]:
    """Return what downstream tasks need to know."""
    return {
        **_file(scanned),
        "rows": scanned.report["rows"],
        "findings": scanned.report["residual"],
        "columns": len(scanned.report["columns"]),
    }


def facts_of_masking(made: Masked) -> dict[str, Any]:
    """Return what downstream tasks need to know."""
    report = made.written.report
    return {
        **_file(made.written),
        "source_sha256": report["source_sha256"],
        "rows": report["rows"],
        "plan": str(made.plan_file),
        "plan_digest": made.plan.digest,
        "resumed_parts": made.resumed_parts,
    }


def facts_of_verification(verified: Written) -> dict[str, Any]:
    """Return what downstream tasks need to know."""
    names = ("source_sha256", "verified", "residual", "rows", "plan_digest")
    return {**_file(verified), **{name: verified.report[name] for name in names}}


def _file(written: Written) -> dict[str, Any]:
    return {
        "report": str(written.path),
        "report_sha256": written.sha256,
        "sha256": written.report["dataset_sha256"],
    }
