"""What operators tell of their own runs, before an approval, with one, and without."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.openlineage.extractors import OperatorLineage
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import BaseHook, BaseOperator, Connection
from airflow.sdk.api.datamodels._generated import TerminalTIState
from airflow.utils.state import TaskInstanceState
from openlineage.client.event_v2 import InputDataset

from airflow_approvals.core.model import Action, Evidence, State
from airflow_approvals.lineage.facets import APPROVAL, PII, RELEASE
from airflow_approvals.lineage.names import DatasetName
from airflow_approvals.lineage.remembered import keep, remember
from airflow_approvals.lineage.tasks import approval_run_facet, table_of
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.operators.gated import gated
from airflow_approvals.operators.pii import PiiMaskOperator, PiiScanOperator, PiiVerifyOperator
from airflow_approvals.operators.pii_decrypt import PiiDecryptOperator
from airflow_approvals.operators.sql import ApprovedSqlWriteOperator
from airflow_approvals.sensors.approval import ApprovalSensor
from tests.lineage.samples import a_folder, a_masking, a_report, a_snapshot, answered
from tests.lineage.spec import Spec
from tests.lineage.test_facets import through_airflow

pytestmark = pytest.mark.airflow

STAGED, OUT = "file:///staged/customers.parquet", "file:///outbox/customers.parquet"
APPROVED = answered(State.APPROVED)


class Tells(BaseOperator):
    """A foreign operator with lineage of its own."""

    def get_openlineage_facets_on_start(self) -> Any:
        return OperatorLineage(inputs=[InputDataset(namespace="own", name="raw")])


class TellsAtTheEnd(BaseOperator):
    """Another one, which is asked for its end."""

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        return OperatorLineage(
            inputs=[InputDataset(namespace="own", name=f"raw-{task_instance.state.value}")]
        )


def an_export(**arguments: Any) -> Any:
    return ApprovedExportOperator(task_id="export", source=STAGED, destination=OUT, **arguments)


def ended(operator: Any, state: Any = TaskInstanceState.SUCCESS) -> Any:
    return operator.get_openlineage_facets_on_complete(SimpleNamespace(state=state, task=operator))


def failed(operator: Any) -> Any:
    return operator.get_openlineage_facets_on_failure(SimpleNamespace(state=TaskInstanceState.FAILED))


def use_hook(monkeypatch: pytest.MonkeyPatch, hook: Any, connection: Any) -> None:
    """Let a connection be found outside of a task; Airflow 3.1 asks its supervisor alone."""
    monkeypatch.setattr(BaseHook, "get_hook", lambda *_: hook)
    hook.get_connection = lambda *_: connection


def names(datasets: Any) -> list[str]:
    return [each.name for each in datasets]


def test_a_write_tells_at_its_start_what_it_reads() -> None:
    told = an_export().get_openlineage_facets_on_start()
    assert names(told.inputs) == ["/staged/customers.parquet"]
    assert told.outputs == []


@pytest.mark.parametrize("state", [TaskInstanceState.SUCCESS, TerminalTIState.SUCCESS])
def test_an_export_tells_its_approval_and_what_it_published(state: Any, spec: Spec) -> None:
    operator = an_export()
    remember(operator, APPROVED)
    told = ended(operator, state)
    assert names(told.inputs) == ["/staged/customers.parquet", f"receipt/{APPROVED.id}"]
    # Marquez takes the description of a dataset away with the next event that has none.
    assert told.inputs[-1].facets["documentation"]["description"].startswith("Receipt of approval")
    assert names(told.outputs) == ["/outbox/customers.parquet"]
    assert told.run_facets[APPROVAL]["state"] == "completed"
    about = told.outputs[0].facets
    assert about[RELEASE]["sha256"] == APPROVED.evidence.datasets[0].sha256
    assert about["columnLineage"].fields["id"]["transformationType"] == "IDENTITY"
    assert about["lifecycleStateChange"]["lifecycleStateChange"] == "CREATE"
    spec.check([through_airflow(told)])


NOT_PUBLISHED = (State.DENIED, State.EXPIRED, State.CANCELLED, State.REVOKED, State.LAPSED)


@pytest.mark.parametrize("state", NOT_PUBLISHED)
def test_what_was_not_let_out_has_no_output(state: State, spec: Spec) -> None:
    operator = an_export()
    remember(operator, answered(state))
    for told in (failed(operator), ended(operator, TaskInstanceState.SKIPPED)):
        assert told.outputs == []
        assert told.inputs
        assert told.run_facets[APPROVAL]["state"] == state
        spec.check([through_airflow(told)])


def test_a_write_that_never_asked_tells_no_approval() -> None:
    told = failed(an_export())
    assert (names(told.inputs), told.outputs, told.run_facets) == (["/staged/customers.parquet"], [], {})


def test_an_overwriting_export_of_a_folder_says_so(spec: Spec) -> None:
    operator = an_export(overwrite=True)
    remember(operator, replace(APPROVED, evidence=Evidence(datasets=(a_folder(3),), pii=a_report())))
    told = ended(operator)
    (output,) = told.outputs
    assert output.facets["lifecycleStateChange"]["lifecycleStateChange"] == "OVERWRITE"
    assert len(output.outputFacets["subset"]["outputCondition"]["locations"]) == 3
    assert told.inputs[0].inputFacets["dataQualityAssertions"]["assertions"][0]["success"] is True
    assert PII in told.inputs[0].facets
    spec.check([through_airflow(told)])


def test_a_table_write_names_columns_as_the_table_has_them(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hook(monkeypatch, SimpleNamespace(), SimpleNamespace())
    operator = ApprovedSqlWriteOperator(
        task_id="write", source=STAGED, conn_id="crm", table="customers", column_names={"id": "customer_id"}
    )
    remember(operator, APPROVED)
    told = ended(operator)
    (output,) = told.outputs
    assert (output.namespace, output.name) == ("sql://crm", "customers")
    assert output.facets["columnLineage"].fields["customer_id"]["inputFields"][0]["field"] == "id"
    assert "lifecycleStateChange" not in output.facets, "rows were added"
    spec.check([through_airflow(told)])


def test_a_postgresql_table_is_named_by_its_database(monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = pytest.importorskip("airflow.providers.postgres.hooks.postgres")
    warehouse = Connection(
        conn_id="warehouse",
        conn_type="postgres",
        host="db.example",
        port=5433,
        schema="sales",
        password="hush",
    )
    use_hook(monkeypatch, postgres.PostgresHook(postgres_conn_id="warehouse"), warehouse)
    wanted = DatasetName(namespace="postgres://db.example:5433", name="sales.public.customers")
    assert table_of("warehouse", "customers") == wanted
    assert table_of("warehouse", "crm.customers").name == "sales.crm.customers"


def test_a_gate_of_its_own_tells_its_approval_and_no_data() -> None:
    operator = ApprovalGateOperator(task_id="gate", kind="export", source=STAGED, destination=OUT)
    assert ended(operator).run_facets == {}
    remember(operator, APPROVED)
    told = ended(operator)
    assert (told.inputs, told.outputs) == ([], [])
    assert told.run_facets[APPROVAL]["requestId"] == APPROVED.id


@pytest.mark.parametrize("state", [State.APPROVED, State.DENIED])
def test_a_sensor_tells_the_approval_that_it_has_waited_for(state: State) -> None:
    request = answered(state)
    sensor = ApprovalSensor(task_id="wait", request_id=request.id)
    with suppress(AirflowFailException):
        sensor._check_decided(request)  # what `poke` does once the service has answered
    told = sensor.get_openlineage_facets_on_complete(SimpleNamespace(state=None))
    assert told.run_facets[APPROVAL]["requestId"] == request.id
    assert ("jobDependencies" in told.run_facets) == (state is State.APPROVED)
    assert (told.inputs, told.outputs) == ([], [])


def test_opened_tokens_are_told_with_the_approval_and_as_other_bytes(spec: Spec) -> None:
    operator = PiiDecryptOperator(
        task_id="open",
        source="file:///staged/customers.parquet",
        destination="file:///open/customers.parquet",
        token_columns=["email"],
        key_file="/keys",
    )
    remember(operator, replace(APPROVED, evidence=Evidence(datasets=(a_snapshot(),))))
    assert failed(operator).outputs == []
    told = ended(operator)
    assert names(told.inputs) == ["/staged/customers.parquet", f"receipt/{APPROVED.id}"]
    assert told.run_facets[APPROVAL]["requestId"] == APPROVED.id
    (output,) = told.outputs
    assert output.name == "/open/customers.parquet"
    assert RELEASE not in output.facets
    assert "version" not in output.facets
    columns = output.facets["columnLineage"].fields
    assert columns["email"]["transformationType"] == "DECRYPTED"
    (step,) = columns["email"]["inputFields"][0]["transformations"]
    assert step["masking"] is False
    assert columns["id"]["transformationType"] == "IDENTITY"
    spec.check([through_airflow(told)])


def test_a_gated_operator_keeps_its_own_lineage_and_adds_its_approval(spec: Spec) -> None:
    operator = gated(Tells(task_id="copy"))
    assert names(operator.get_openlineage_facets_on_start().inputs) == ["raw"]
    assert names(ended(operator).inputs) == ["raw"]
    remember(operator, APPROVED)
    told = ended(operator)
    assert names(told.inputs) == ["raw", f"receipt/{APPROVED.id}"]
    assert told.run_facets[APPROVAL]["requestId"] == APPROVED.id
    spec.check([through_airflow(told)])


def test_a_gated_operator_is_asked_for_its_end_as_the_provider_would() -> None:
    operator: Any = gated(TellsAtTheEnd(task_id="copy"))
    assert operator.get_openlineage_facets_on_start().inputs == []
    assert names(ended(operator).inputs) == ["raw-success"]
    assert names(failed(operator).inputs) == ["raw-failed"]


def test_a_gated_operator_without_lineage_tells_what_the_gate_was_told() -> None:
    operator = gated(BaseOperator(task_id="copy"), source=STAGED, destination=OUT)
    remember(operator, APPROVED)
    told = ended(operator)
    assert names(told.inputs) == ["/staged/customers.parquet", f"receipt/{APPROVED.id}"]
    assert names(told.outputs) == ["/outbox/customers.parquet"]
    assert failed(operator).outputs == []


def test_a_gated_operator_that_names_nothing_leaves_room_for_hook_lineage() -> None:
    operator = gated(BaseOperator(task_id="grant"))
    remember(operator, APPROVED)
    told = ended(operator)
    assert (told.inputs, told.outputs) == ([], [])
    assert APPROVAL in told.run_facets


def test_operators_that_are_not_asked_carry_their_approval_by_configuration() -> None:
    operator = gated(BashOperator(task_id="copy", bash_command="true"))
    instance = SimpleNamespace(task=operator)
    assert approval_run_facet(instance, TaskInstanceState.RUNNING) == {}
    remember(operator, APPROVED)
    assert approval_run_facet(instance, TaskInstanceState.SUCCESS)[APPROVAL]["requestId"] == APPROVED.id
    assert approval_run_facet(SimpleNamespace(), TaskInstanceState.SUCCESS) == {}


def test_scan_mask_and_verify_tell_what_they_found(spec: Spec) -> None:
    scan = PiiScanOperator(task_id="scan", source=STAGED)
    mask = PiiMaskOperator(task_id="mask", source=STAGED, masked="/masked/c.parquet")
    verify = PiiVerifyOperator(task_id="verify", source=STAGED, masked="/masked/c.parquet", plan="/p.yaml")
    for operator in (scan, mask, verify):
        assert names(operator.get_openlineage_facets_on_start().inputs) == ["/staged/customers.parquet"]
        assert names(ended(operator).inputs) == ["/staged/customers.parquet"]
    keep(scan, source=STAGED, scan={**a_report(), "verified": None, "after": None})
    columns = list(a_snapshot().columns)
    keep(mask, source=STAGED, masked="/masked/c.parquet", columns=columns, mask=a_masking("email"))
    keep(verify, source=STAGED, masked="/masked/c.parquet", verification=a_report(verified=False))
    told = [ended(operator) for operator in (scan, mask, verify)]
    spec.check([through_airflow(each) for each in told])
    lineage = told[1].outputs[0].facets["columnLineage"].fields
    assert {name: each["transformationType"] for name, each in lineage.items()} == {
        "id": "IDENTITY",
        "email": "MASKED",
    }
    assertions = told[2].inputs[0].inputFacets["dataQualityAssertions"]["assertions"]
    assert [each["success"] for each in assertions] == [False, False]
    assert names(told[2].inputs) == ["/masked/c.parquet", "/staged/customers.parquet"]


def test_credentials_in_addresses_are_told_nowhere() -> None:
    operator = ApprovedExportOperator(
        task_id="export", source=STAGED, destination="s3://key:hush@bucket/a.csv"
    )
    action = Action(kind="export", source=STAGED, destination="s3://key:hush@bucket/a.csv")
    remember(operator, replace(APPROVED, action=action))
    assert "hush" not in json.dumps(through_airflow(ended(operator)))
