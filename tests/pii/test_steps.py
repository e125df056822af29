"""The steps of a pipeline: each leaves a report beside the data that names the bytes it is about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import csv, parquet  # noqa: TID253

from airflow_approvals.core.errors import (
    ApprovalsError,
    CellTooLongError,
    ConfigurationError,
    DigestMismatchError,
    InvalidRequestError,
    ReportMismatchError,
    VerificationError,
)
from airflow_approvals.core.expressions import expression_variables
from airflow_approvals.core.model import Action, Evidence
from airflow_approvals.pii import steps
from airflow_approvals.pii.cells import LONGEST_CELL
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.rules import Treatment
from airflow_approvals.pii.pace import Pace, Standing
from airflow_approvals.pii.plan import MaskingPlan, PlannedColumn, write_plan
from airflow_approvals.pii.report_files import Written
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.steps import PlanSource, Staged
from airflow_approvals.staging.snapshot import snapshot
from demo.customers import write_customers

ROWS = 40
KEYS = KeyRing(domains={"default": b"k" * 32})


@pytest.fixture
def source(tmp_path: Path) -> Staged:
    for part in range(3):
        write_customers(tmp_path / "in" / f"{part}.csv", ROWS)
    return Staged(uri=str(tmp_path / "in"))


def masked(source: Staged, scanner: Scanner, **wanted: Any) -> tuple[steps.Masked, Staged]:
    target = Staged(uri=f"{source.uri}-masked")
    return steps.mask(source, target.uri, PlanSource(**wanted), KEYS, scanner), target


def test_scan_mask_and_verify_leave_their_reports_beside_the_data(source: Staged, scanner: Scanner) -> None:
    scanned = steps.scan(source, scanner)
    made, target = masked(source, scanner, otherwise="pseudonym")
    verified = steps.verify(source, target, made.plan, scanner, keys=KEYS, scan_report=scanned.report)
    folder = Path(source.uri).parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "in",
        "in-masked",
        "in-masked.pii-mask.json",
        "in-masked.pii.json",
        "in-masked.plan.yaml",
        "in.pii-scan.json",
    ]
    for written in (scanned, made.written, verified):
        assert json.loads(written.path.read_text()) == written.report
    assert scanned.report["dataset_sha256"] == snapshot(source.uri).sha256
    assert verified.report["dataset_sha256"] == snapshot(target.uri).sha256
    about = Evidence(datasets=(snapshot(target.uri),), pii=verified.report)
    pii = expression_variables(Action(kind="export"), about, [])["pii"]
    assert (pii["verified"], pii["residual"]) == (True, 0)


def test_the_report_says_what_was_there_before_and_what_the_plan_lets_stay(
    source: Staged, scanner: Scanner
) -> None:
    customers = csv.read_csv(f"{source.uri}/0.csv")  # with days that are days, which masking leaves alone
    source = Staged(uri=f"{source.uri}.parquet")
    parquet.write_table(customers, source.uri)
    scanned = steps.scan(source, scanner)
    target = Staged(uri=source.uri.replace("in.parquet", "out.parquet"))
    made = steps.mask(source, target.uri, PlanSource(), KEYS, scanner)
    report = steps.verify(source, target, made.plan, scanner, scan_report=scanned.report).report
    before, after = (
        {column["column"]: column["cells_with_findings"] for column in report[when]["columns"]}
        for when in ("before", "after")
    )
    assert before["email"] == ROWS
    assert (after["email"], after["name"], after["internal_note"]) == (0, 0, 0)
    assert after["signed_up"] == before["signed_up"] > 0
    assert "signed_up" in report["left_by_plan"]
    assert "email" not in report["left_by_plan"]


def test_what_is_left_is_in_the_report_that_stays_behind(source: Staged, scanner: Scanner) -> None:
    scanned = steps.scan(source, scanner)
    made, target = masked(source, scanner)
    part = Path(target.uri) / "1.csv"
    address = (Path(source.uri) / "0.csv").read_text().splitlines()[3].split(",")[2]
    part.write_text(part.read_text().replace("<EMAIL_ADDRESS>", address, 1))
    with pytest.raises(VerificationError) as caught:
        steps.verify(source, target, made.plan, scanner, keys=KEYS, scan_report=scanned.report)
    assert address not in str(caught.value)
    report = json.loads(Path(f"{target.uri}.pii.json").read_text())
    assert not report["verified"]
    after = {column["column"]: column for column in report["after"]["columns"]}
    assert after["email"]["cells_with_findings"] == 1


def test_masked_and_verified_at_once_only_what_holds_appears(source: Staged, scanner: Scanner) -> None:
    scanned = steps.scan(source, scanner).report
    made, target = masked(source, scanner)
    write = [f"{target.uri}.pii.json", f"{target.uri}.pii-mask.json", str(made.plan_file)]
    told: list[Written] = []

    def both(plan: str) -> tuple[steps.Masked, Written]:
        return steps.mask_and_verify(
            source,
            target.uri,
            PlanSource(file=plan),
            KEYS,
            scanner,
            scan_report=scanned,
            told=told.append,
        )

    again, proof = both(str(made.plan_file))
    assert told == [proof]
    assert again.written.report == made.written.report
    assert proof.report["verified"]
    assert proof.report["dataset_sha256"] == snapshot(target.uri).sha256
    alone = PlannedColumn(column="internal_note", type="string", treatment=Treatment.LEAVE)
    columns = tuple(alone if one.column == alone.column else one for one in made.plan.columns)
    leaky = Path(f"{target.uri}.leaky.yaml")
    write_plan(made.plan.model_copy(update={"columns": columns}), leaky)
    with pytest.raises(VerificationError, match="'internal_note'"):
        both(str(leaky))
    assert snapshot(target.uri).sha256 == proof.report["dataset_sha256"]  # what was there
    assert json.loads(Path(write[0]).read_text()) == told[1].report
    assert not told[1].report["verified"]
    assert told[1].report["dataset_sha256"] != proof.report["dataset_sha256"]
    assert not [path.name for path in leaky.parent.iterdir() if path.name.startswith(".")]


def test_a_scan_that_was_killed_scans_only_what_is_left(source: Staged, scanner: Scanner) -> None:
    whole = steps.scan(source, scanner).report

    class Killed(BaseException):
        """Nothing that anybody catches."""

    def die(standing: Standing) -> None:
        if standing.rows == 2 * ROWS + ROWS:
            raise Killed

    with pytest.raises(Killed):
        steps.scan(source, scanner, pace=Pace(die, every=0))
    said: list[Standing] = []
    assert steps.scan(source, scanner, pace=Pace(said.append, every=0)).report == whole
    assert [each.rows for each in said if each.rows_per_second == 0] == [0, ROWS, 2 * ROWS]


def _no_scan(source: Staged, report: dict[str, Any]) -> None:
    del report["before"]


def _broken_scan(source: Staged, report: dict[str, Any]) -> None:
    report["before"] = {"rows": "ada@example.com"}


WRONG_SCANS: dict[str, Callable[[Staged, dict[str, Any]], None]] = {
    "of another source": lambda source, report: report.update(dataset_sha256="f" * 64),
    "without a scan": _no_scan,
    "with a broken scan": _broken_scan,
}


@pytest.mark.parametrize("wrong", WRONG_SCANS.values(), ids=WRONG_SCANS.keys())
def test_a_scan_report_of_something_else_is_refused(
    source: Staged, scanner: Scanner, wrong: Callable[[Staged, dict[str, Any]], None]
) -> None:
    report = dict(steps.scan(source, scanner).report)
    made, target = masked(source, scanner)
    wrong(source, report)
    with pytest.raises(ReportMismatchError) as caught:
        steps.verify(source, target, made.plan, scanner, scan_report=report)
    assert "ada@example.com" not in str(caught.value)


def test_a_plan_is_reviewed_pinned_and_used_again(source: Staged, scanner: Scanner) -> None:
    first, _ = masked(source, scanner)
    again, _ = masked(source, scanner, file=str(first.plan_file), digest=first.plan.digest)
    assert again.plan == first.plan
    assert again.written.report["plan_digest"] == first.plan.digest


BAD_PLANS: dict[str, tuple[dict[str, Any], type[ApprovalsError]]] = {
    "pinned to another digest": ({"file": "PLAN", "digest": "0" * 64}, DigestMismatchError),
    "a digest without a file": ({"digest": "0" * 64}, InvalidRequestError),
    "a file that is not there": ({"file": "/nowhere/plan.yaml"}, ConfigurationError),
    "a file elsewhere": ({"file": "s3://bucket/plan.yaml"}, InvalidRequestError),
    "an unknown operator": ({"otherwise": "scramble"}, InvalidRequestError),
    "an operator without its settings": ({"otherwise": {"op": "generalise"}}, InvalidRequestError),
    "a key that is not there": ({"otherwise": "encrypt", "domain": "elsewhere"}, ConfigurationError),
}


@pytest.mark.parametrize(("wanted", "error"), BAD_PLANS.values(), ids=BAD_PLANS.keys())
def test_a_plan_that_does_not_fit_is_refused(
    source: Staged, scanner: Scanner, wanted: dict[str, Any], error: type[ApprovalsError]
) -> None:
    if wanted.get("file") == "PLAN":
        wanted = {**wanted, "file": str(masked(source, scanner)[0].plan_file)}
    with pytest.raises(error):
        masked(source, scanner, **wanted)


@pytest.mark.parametrize("uri", ["sql://warehouse/people", "postgresql://ada:canary@db/app#people"])
def test_a_table_is_staged_before_it_is_masked(uri: str) -> None:
    with pytest.raises(InvalidRequestError, match="stage it") as caught:
        Staged(uri=uri)
    assert "canary" not in str(caught.value)


def test_what_a_step_refuses_is_said_of_a_dataset_a_row_and_a_column(
    tmp_path: Path, scanner: Scanner
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("x,y\n1,2\n3," + "z" * (LONGEST_CELL + 1) + "\n")
    place = r"\.csv: column 'y', row 1 \(the first is 0\)"
    one, other = (Staged(uri=str(tmp_path / f"{name}.csv")) for name in ("a", "b"))
    with pytest.raises(CellTooLongError, match="a" + place):
        steps.scan(one, scanner)
    columns = [PlannedColumn(column=name, treatment=Treatment.TEXT) for name in ("x", "y")]
    with pytest.raises(CellTooLongError, match="a" + place):
        steps.verify(one, other, MaskingPlan(columns=tuple(columns)), scanner)
    columns[1] = PlannedColumn(column="y", treatment=Treatment.LEAVE)
    with pytest.raises(CellTooLongError, match="b" + place):
        steps.verify(one, other, MaskingPlan(columns=tuple(columns)), scanner)


@pytest.mark.parametrize("settings", [{"wrokers": 2}, {"workers": "many"}], ids=["name", "value"])
def test_settings_of_a_scan_that_are_none_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="scan: "):
        steps.scanner_of(settings)


def test_a_report_needs_a_place_that_all_workers_see(scanner: Scanner) -> None:
    with pytest.raises(InvalidRequestError, match="local paths"):
        steps.scan(Staged(uri="s3://bucket/customers.csv"), scanner)
