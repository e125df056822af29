"""Personal data in a real Airflow: scanned, masked, proven, and refused where it is not."""

from __future__ import annotations

import json
import runpy
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa  # noqa: TID253
import pytest
from airflow.sdk import DAG, task
from pyarrow import csv, parquet  # noqa: TID253

from airflow_approvals.core.model import State
from airflow_approvals.core.receipt import verify_bundle
from airflow_approvals.core.signature import public_keys_from_json
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.operators.gated import gated
from airflow_approvals.operators.pii import PiiMaskOperator, PiiScanOperator, PiiVerifyOperator
from airflow_approvals.operators.pii_decrypt import PiiDecryptOperator
from airflow_approvals.operators.pii_task import pii_task
from airflow_approvals.pii.masking.rules import Treatment
from airflow_approvals.pii.plan import PlannedColumn, write_plan
from airflow_approvals.pii.scan_datasets import plan_dataset
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.staging.snapshot import snapshot
from demo.customers import write_customers
from tests.provider.runs import Run, Runs, approve
from tests.provider.site import POLICY

pytestmark = pytest.mark.airflow

DAGS = Path(__file__).resolve().parents[2] / "dags"
ROWS = 60
KEYS = {"conn_type": "generic", "password": b64encode(b"k" * 32).decode()}
PII_POLICY = POLICY.replace(
    """destination: ["file:///**/outbox/**"]}
    require""",
    """destination: ["file:///**/outbox/**"]}
    deny_if: ["pii.verified == false"]
    require""",
)
DECRYPT_POLICY = (
    POLICY
    + """
  - name: decrypt
    match: {action: [decrypt]}
    require: [{group: data-stewards}]
"""
)


@pytest.fixture(scope="module", autouse=True)
def one_model() -> Iterator[Scanner]:
    """Load the model once: each task has a process of its own, but not in these tests."""
    shared = Scanner()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(
            "airflow_approvals.pii.steps.Scanner",
            lambda config: shared if config == shared.config else Scanner(config),
        )
        yield shared


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A staged list of customers, and the keys to mask it with."""
    write_customers(tmp_path / "customers.csv", ROWS)
    (tmp_path / "outbox").mkdir()
    monkeypatch.setenv("AIRFLOW_CONN_MASKING_KEYS", json.dumps(KEYS))
    return tmp_path


@pytest.fixture
def pii_policy(runs: Runs) -> None:
    runs.site.put_policy(PII_POLICY)


def masking_dag(name: str, folder: Path, **export: Any) -> DAG:
    source, masked = str(folder / "customers.csv"), str(folder / "masked" / "customers.csv")
    with DAG(name) as dag:
        scan = PiiScanOperator(task_id="scan", source=source)
        mask = PiiMaskOperator(
            task_id="mask",
            source=source,
            masked=masked,
            otherwise="pseudonym",
            keys_conn_id="masking_keys",
        )
        verify = PiiVerifyOperator(
            task_id="verify",
            source=source,
            masked=masked,
            plan="{{ ti.xcom_pull('mask')['plan'] }}",
            plan_digest="{{ ti.xcom_pull('mask')['plan_digest'] }}",
            keys_conn_id="masking_keys",
            scan_report=scan.output,
        )
        publish = ApprovedExportOperator(
            task_id="publish",
            **{
                "source": masked,
                "destination": str(folder / "outbox" / "customers.csv"),
                "pii_report": verify.output,
                **export,
            },
        )
        scan >> mask >> verify >> publish
    return dag


def test_a_masked_list_is_proven_approved_and_published(runs: Runs, folder: Path, pii_policy: None) -> None:
    run = runs.test(masking_dag("masked", folder))
    assert set(run.states.values()) == {"success"}
    before, after = folder / "customers.csv", folder / "outbox" / "customers.csv"
    published = after.read_text()
    for name in ("name", "email", "phone"):
        assert not [value for value in csv.read_csv(before)[name].to_pylist() if str(value) in published]
    assert csv.read_csv(after)["customer_id"].to_pylist() == list(range(1, ROWS + 1))
    (request,) = runs.site.requests_of(run.run_id)
    pii = request.evidence.pii or {}
    assert (pii["verified"], pii["residual"]) == (True, 0)
    assert pii["dataset_sha256"] == request.evidence.datasets[0].sha256
    assert pii["plan_digest"] == run.xcom("mask")["plan_digest"]
    assert {"before", "after"} <= pii.keys()
    told = {column["column"]: column["cells_with_findings"] for column in pii["after"]["columns"]}
    assert told["email"] == 0
    with runs.site.person("admin") as admin:
        bundle, keys = admin.get_request(request.id).receipt, public_keys_from_json(admin.keys())
    receipt = verify_bundle(bundle, keys)
    assert receipt.pii is not None
    assert receipt.pii.verified
    assert receipt.pii.plan_digest == pii["plan_digest"]


def test_the_dag_of_the_demo_runs_from_end_to_end(
    runs: Runs, folder: Path, pii_policy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_CUSTOMER_FOLDER", folder.as_uri())
    write_customers(folder / "source" / "customers.csv", ROWS)
    run = runs.test(runpy.run_path(str(DAGS / "customer_export.py"))["export"].dag)
    assert run.states == dict.fromkeys(("stage", "scan", "mask", "verify", "export"), "success")
    published = parquet.read_table(folder / "outbox" / "customers" / "customers.parquet")
    assert published.num_rows == ROWS
    assert all(value.startswith("PERSON_") for value in published["name"].to_pylist())


def test_what_tasks_hand_on_is_small_and_holds_no_value(runs: Runs, folder: Path, pii_policy: None) -> None:
    run = runs.test(masking_dag("small_xcoms", folder))
    names = csv.read_csv(folder / "customers.csv")["name"].to_pylist()
    for name in ("scan", "mask", "verify"):
        told = json.dumps(run.xcom(name))
        assert len(told) < 1_000
        assert not [value for value in names if value in told]


def test_an_export_whose_masking_was_switched_off_is_refused(
    runs: Runs, folder: Path, pii_policy: None
) -> None:
    with DAG("switched_off") as dag:
        scan = PiiScanOperator(task_id="scan", source=str(folder / "customers.csv"))
        for number, report in enumerate((None, scan.output)):
            scan >> ApprovedExportOperator(
                task_id=f"publish_{number}",
                source=str(folder / "customers.csv"),
                destination=str(folder / "outbox" / "customers.csv"),
                pii_report=report,
            )
    run = runs.test(dag)
    assert run.states == {"scan": "success", "publish_0": "failed", "publish_1": "failed"}
    assert runs.asked == []
    assert list((folder / "outbox").iterdir()) == []


@pytest.mark.parametrize("is_masked", [True, False], ids=["masked", "not masked"])
def test_a_gated_task_of_any_kind_carries_the_report_about_its_source(
    runs: Runs, folder: Path, pii_policy: None, is_masked: bool
) -> None:
    handed_over: list[str] = []
    with DAG("gated_masked") as dag:
        scan = PiiScanOperator(
            task_id="scan",
            source=str(folder / "customers.csv"),
            on_pii="mask" if is_masked else "warn",
            masked=str(folder / "masked.csv") if is_masked else None,
        )

        @gated(
            kind="export",
            source=str(folder / ("masked.csv" if is_masked else "customers.csv")),
            destination=f"file://{folder}/outbox/customers.csv",
            pii_report=scan.output,
        )
        @task
        def hand_over() -> None:
            handed_over.append("customers")

        scan >> hand_over()
    run = runs.test(dag)
    assert run.states["hand_over"] == ("success" if is_masked else "failed")
    assert len(handed_over) == len(runs.asked) == int(is_masked)


# --- reports that are not about these bytes ---------------------------------------------------------------

Tamper = Callable[[Path], Any]


def _report_of_another_list(folder: Path) -> Any:
    return str(folder / "masked" / "customers.csv.pii.json")


def _report_edited(folder: Path) -> Any:
    place = folder / "masked" / "customers.csv.pii.json"
    return {"report": str(place), "report_sha256": "0" * 64}


def _report_without_a_digest(folder: Path) -> Any:
    return {"scanned": True, "verified": True, "residual": 0}


WRONG_REPORTS: dict[str, Tamper] = {
    "of another list": _report_of_another_list,
    "edited since": _report_edited,
    "about nothing": _report_without_a_digest,
}


@pytest.mark.parametrize("wrong", WRONG_REPORTS.values(), ids=WRONG_REPORTS.keys())
@pytest.mark.parametrize("operator", [ApprovedExportOperator, ApprovalGateOperator])
def test_a_report_about_other_bytes_is_refused(
    runs: Runs, folder: Path, pii_policy: None, wrong: Tamper, operator: Any, caplog: Any
) -> None:
    (folder / "masked").mkdir()
    report = {"dataset_sha256": "f" * 64, "scanned": True, "verified": True, "residual": 0}
    (folder / "masked" / "customers.csv.pii.json").write_text(json.dumps(report))
    kind = {"kind": "export"} if operator is ApprovalGateOperator else {}
    with DAG("wrong_report") as dag:
        operator(
            task_id="publish",
            source=str(folder / "customers.csv"),
            destination=str(folder / "outbox" / "customers.csv"),
            pii_report=wrong(folder),
            **kind,
        )
    run = runs.test(dag)
    assert run.states == {"publish": "failed"}
    assert runs.asked == []
    assert list((folder / "outbox").iterdir()) == []


def test_a_list_that_was_changed_after_its_verification_is_not_asked_for(
    runs: Runs, folder: Path, pii_policy: None
) -> None:
    run = runs.test(masking_dag("changed_after", folder))
    (folder / "outbox" / "customers.csv").unlink()
    masked = folder / "masked" / "customers.csv"
    masked.write_text(masked.read_text() + "61,ada.adler1@example.com,,,,,,\n")
    runs.asked.clear()
    runs.again(run, "publish")
    assert run.states["publish"] == "failed"
    assert runs.asked == []


def test_a_planted_value_fails_the_verification_and_the_export(
    runs: Runs, folder: Path, pii_policy: None
) -> None:
    dag = masking_dag(
        "planted",
        folder,
        trigger_rule="all_done",
        pii_report=str(folder / "masked" / "customers.csv.pii.json"),
    )
    with dag:

        @task
        def plant() -> None:
            rows = csv.read_csv(folder / "masked" / "customers.csv").to_pylist()
            rows[7]["internal_note"] = csv.read_csv(folder / "customers.csv")["email"][3].as_py()
            csv.write_csv(pa.Table.from_pylist(rows), folder / "masked" / "customers.csv")

        dag.task_dict["mask"] >> plant() >> dag.task_dict["verify"]
    run = runs.test(dag)
    assert (run.states["verify"], run.states["publish"]) == ("failed", "failed")
    report = json.loads((folder / "masked" / "customers.csv.pii.json").read_text())
    assert ("internal_note", [7]) in [(leak["column"], leak["rows"]) for leak in report["leaks"]]
    assert runs.asked == []


# --- plans and keys ---------------------------------------------------------------------------------------


def test_a_plan_that_was_pinned_and_changed_is_refused(runs: Runs, folder: Path) -> None:
    with DAG("pinned") as dag:
        PiiMaskOperator(
            task_id="mask",
            source=str(folder / "customers.csv"),
            masked=str(folder / "masked.csv"),
            plan=str(folder / "plan.yaml"),
            plan_digest="0" * 64,
        )
    (folder / "plan.yaml").write_text("columns: []\n")
    assert runs.test(dag).states == {"mask": "failed"}
    assert not (folder / "masked.csv").exists()


def test_one_key_masks_alike_in_every_run_and_another_does_not(
    runs: Runs, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for number, key in enumerate((b"k", b"k", b"o")):
        monkeypatch.setenv(
            "AIRFLOW_CONN_MASKING_KEYS", json.dumps({**KEYS, "password": b64encode(key * 32).decode()})
        )
        with DAG(f"keys_{number}") as dag:
            PiiMaskOperator(
                task_id="mask",
                source=str(folder / "customers.csv"),
                masked=str(folder / f"{number}.csv"),
                operators={"PERSON": "pseudonym"},
                keys_conn_id="masking_keys",
            )
        runs.test(dag)
        made.append(csv.read_csv(folder / f"{number}.csv")["name"].to_pylist())
    assert made[0] == made[1]
    assert not set(made[0]) & set(made[2])


# --- on_pii -----------------------------------------------------------------------------------------------

ON_PII = {
    "warn": ({"on_pii": "warn"}, "success"),
    "fail": ({"on_pii": "fail"}, "failed"),
    "mask": ({"on_pii": "mask", "masked": "masked.csv"}, "success"),
}


@pytest.mark.parametrize(("way", "state"), ON_PII.values(), ids=ON_PII.keys())
def test_what_happens_to_personal_data_is_said_in_the_dag(
    runs: Runs, folder: Path, way: dict[str, str], state: str
) -> None:
    told: dict[str, Any] = {
        name: str(folder / value) if name == "masked" else value for name, value in way.items()
    }
    with DAG("on_pii") as dag:
        PiiScanOperator(task_id="scan", source=str(folder / "customers.csv"), **told)
    run = runs.test(dag)
    assert run.states == {"scan": state}
    report = json.loads((folder / "customers.csv.pii-scan.json").read_text())
    assert report["entities"]["EMAIL_ADDRESS"] >= ROWS
    assert (folder / "masked.csv").exists() == (way["on_pii"] == "mask")
    if way["on_pii"] == "mask":
        assert run.xcom("scan")["verified"] is True


def test_what_was_masked_on_the_way_and_does_not_hold_does_not_appear(
    runs: Runs, folder: Path, one_model: Scanner
) -> None:
    plan = plan_dataset(str(folder / "customers.csv"), one_model)
    alone = PlannedColumn(column="internal_note", type="string", treatment=Treatment.LEAVE)
    columns = tuple(alone if one.column == alone.column else one for one in plan.columns)
    write_plan(plan.model_copy(update={"columns": columns}), folder / "leaky.yaml")
    with DAG("does_not_hold") as dag:
        PiiScanOperator(
            task_id="scan",
            source=str(folder / "customers.csv"),
            on_pii="mask",
            masked=str(folder / "masked.csv"),
            plan=str(folder / "leaky.yaml"),
        )
    assert runs.test(dag).states == {"scan": "failed"}
    assert not (folder / "masked.csv").exists()
    report = json.loads((folder / "masked.csv.pii.json").read_text())
    assert (report["verified"], report["columns"]) == (False, ["internal_note"])


@pytest.fixture
def warehouse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table of the customers behind an Airflow connection."""
    rows = csv.read_csv(folder / "customers.csv").to_pandas()
    with sqlite3.connect(folder / "warehouse.db") as connection:
        rows.astype(str).to_sql("customers", connection, index=False)
    connection.close()
    words = {"conn_type": "sqlite", "host": str(folder / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(words))
    return "sql://warehouse/customers"


def test_a_table_is_scanned_and_masked_in_one_task(runs: Runs, folder: Path, warehouse: str) -> None:
    with DAG("a_table") as dag:
        PiiScanOperator(
            task_id="scan",
            source=warehouse,
            on_pii="mask",
            masked=str(folder / "masked.parquet"),
            report=str(folder / "scan.json"),
        )
    run = runs.test(dag)
    assert run.states == {"scan": "success"}
    assert json.loads((folder / "scan.json").read_text())["entities"]["EMAIL_ADDRESS"] >= ROWS
    assert run.xcom("scan")["sha256"] == snapshot(str(folder / "masked.parquet")).sha256
    assert set(parquet.read_table(folder / "masked.parquet")["email"].to_pylist()) == {"<EMAIL_ADDRESS>"}


@pytest.mark.parametrize("operator", [PiiScanOperator, PiiMaskOperator], ids=lambda one: one.__name__)
def test_a_table_needs_a_place_for_its_report_and_one_task_for_its_masking(
    runs: Runs, folder: Path, warehouse: str, operator: Any
) -> None:
    told = {} if operator is PiiScanOperator else {"masked": str(folder / "masked.parquet")}
    with DAG("a_table") as dag:
        operator(task_id="pii", source=warehouse, **told)
    assert runs.test(dag).states == {"pii": "failed"}
    assert not (folder / "masked.parquet").exists()


def test_data_without_personal_data_passes(runs: Runs, staged: Path) -> None:
    (staged.parent / "counts.csv").write_text("country,customers\nAT,3\nPT,4\n")
    with DAG("clean") as dag:
        PiiScanOperator(task_id="scan", source=str(staged.parent / "counts.csv"), on_pii="fail")
    run = runs.test(dag)
    assert run.states == {"scan": "success"}
    assert run.xcom("scan")["findings"] == 0


WRONG_ARGUMENTS: dict[str, dict[str, Any]] = {
    "another word": {"on_pii": "ignore"},
    "mask without a place": {"on_pii": "mask"},
    "a place without mask": {"masked": "/data/y.csv"},
    "another format": {"format": "xlsx"},
}


@pytest.mark.parametrize("wrong", WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS.keys())
def test_wrong_arguments_are_refused_when_the_dag_is_parsed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|belong"):
        PiiScanOperator(task_id="scan", source="/data/x.csv", **wrong)


# --- @task.pii --------------------------------------------------------------------------------------------


def _run_task(runs: Runs, result: Any, **way: Any) -> tuple[Run, list[Any]]:
    seen: list[Any] = []
    with DAG("decorated") as dag:

        @pii_task(**way)
        def make() -> Any:
            return result

        @task
        def use(made: Any) -> None:
            seen.append(made)

        use(make())
    return runs.test(dag), seen


def test_a_task_hands_on_its_data_frame_masked(runs: Runs, folder: Path) -> None:
    frame = csv.read_csv(folder / "customers.csv").to_pandas()
    run, seen = _run_task(runs, frame, on_pii="mask")
    assert set(run.states.values()) == {"success"}
    (masked,) = seen
    assert list(masked.columns) == list(frame.columns)
    assert set(masked["email"]) == {"<EMAIL_ADDRESS>"}
    assert list(masked["customer_id"]) == list(frame["customer_id"])


def test_a_task_hands_on_a_staged_list_masked(runs: Runs, folder: Path) -> None:
    masked = str(folder / "masked.csv")
    run, seen = _run_task(runs, str(folder / "customers.csv"), on_pii="mask", masked=masked)
    assert seen == [masked]
    assert run.xcom("make", "pii")["verified"] is True


@pytest.mark.parametrize("kind", ["frame", "path"])
def test_a_task_that_made_personal_data_fails_where_that_was_asked_for(
    runs: Runs, folder: Path, kind: str
) -> None:
    path = folder / "customers.csv"
    run, seen = _run_task(
        runs, csv.read_csv(path).to_pandas() if kind == "frame" else str(path), on_pii="fail"
    )
    assert run.states == {"make": "failed", "use": "upstream_failed"}
    assert seen == []


def test_a_result_that_cannot_be_scanned_is_not_handed_on(runs: Runs) -> None:
    run, seen = _run_task(runs, {"email": "ada@example.com"}, on_pii="warn")
    assert run.states["make"] == "failed"
    assert seen == []


# --- decrypt ----------------------------------------------------------------------------------------------


def decrypt_dag(name: str, folder: Path) -> DAG:
    with DAG(name) as dag:
        mask = PiiMaskOperator(
            task_id="mask",
            source=str(folder / "customers.csv"),
            masked=str(folder / "masked.csv"),
            otherwise="encrypt",
            keys_conn_id="masking_keys",
        )
        mask >> PiiDecryptOperator(
            task_id="decrypt",
            source=str(folder / "masked.csv"),
            destination=str(folder / "opened.csv"),
            token_columns=["name", "email", "internal_note"],
            keys_conn_id="masking_keys",
            justification="a court order",
        )
    return dag


def test_tokens_are_opened_under_an_approval_of_their_own(runs: Runs, folder: Path) -> None:
    runs.site.put_policy(DECRYPT_POLICY)
    run = runs.test(decrypt_dag("decrypt", folder))
    assert run.states == {"mask": "success", "decrypt": "success"}
    before, masked, opened = (
        csv.read_csv(folder / f"{name}.csv") for name in ("customers", "masked", "opened")
    )
    assert not set(masked["email"].to_pylist()) & set(before["email"].to_pylist())
    for name in ("name", "email", "internal_note"):
        assert opened[name].to_pylist() == before[name].to_pylist()
    assert opened["phone"].equals(masked["phone"])
    (request,) = runs.site.requests_of(run.run_id)
    assert (request.action.kind, request.state) == ("decrypt", State.COMPLETED)
    assert run.xcom("decrypt")["opened_sha256"] == snapshot(str(folder / "opened.csv")).sha256


def test_without_a_policy_for_it_nothing_is_opened(runs: Runs, folder: Path) -> None:
    run = runs.test(decrypt_dag("no_policy", folder))
    assert run.states == {"mask": "success", "decrypt": "failed"}
    assert runs.asked == []
    assert not (folder / "opened.csv").exists()


def test_tokens_of_another_list_than_the_approved_one_are_not_opened(runs: Runs, folder: Path) -> None:
    def change_then_approve(site: Any, request: Any) -> None:
        masked = folder / "masked.csv"
        masked.write_text(masked.read_text().replace("2", "3", 1))
        approve(site, request)

    runs.site.put_policy(DECRYPT_POLICY)
    run = runs.test(decrypt_dag("swapped", folder), change_then_approve)
    assert run.states["decrypt"] == "failed"
    assert not (folder / "opened.csv").exists()
