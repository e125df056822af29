"""What somebody who writes DAGs could try: only `make demo AUTO=1` loads these."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, get_current_context, task

from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.operators.pii import PiiMaskOperator, PiiVerifyOperator

SOURCE = "{{ var.value.customer_folder }}/source/customers.csv"
CUSTOMERS = "{{ var.value.customer_folder }}/outbox/customers"
PLANTED = "{{ var.value.customer_folder }}/masked/planted.csv"


def try_to_publish(task_id: str, destination: str) -> str:
    """Redeem the request of another task and publish with it; return the word of the refusal."""
    from airflow_approvals.core.errors import ApprovalsError
    from airflow_approvals.hooks.approvals import ApprovalsHook
    from airflow_approvals.staging.publish import publish

    context = get_current_context()
    hook = ApprovalsHook.of(context)
    found = hook.client.list_requests(
        dag_id=context["ti"].dag_id, run_id=context["ti"].run_id, task_id=task_id
    )
    request = found.requests[0]
    try:
        used = hook.redeem(request.id, action=request.action)
    except ApprovalsError as refusal:
        return refusal.type
    publish(str(request.action.source), destination, expected=used.snapshot)
    return "published"


with DAG("attack_mark_success", schedule=None):
    gate = ApprovalGateOperator(
        task_id="gate",
        kind="export",
        source=SOURCE,
        destination="{{ var.value.customer_folder }}/outbox/around-the-gate.csv",
        justification="An attack: the gate will be marked successful by hand",
    )
    write = ApprovedExportOperator(
        task_id="write",
        source=SOURCE,
        destination="{{ var.value.customer_folder }}/outbox/around-the-gate.csv",
        request_id="{{ ti.xcom_pull('gate') }}",
    )

    @task
    def redeem_anyway(destination: str) -> Any:
        """Take the pending request from the API and redeem it, without an approval."""
        return try_to_publish("gate", destination)

    gate >> [write, redeem_anyway(write.destination)]

with DAG("attack_second_redeem", schedule=None):
    export = ApprovedExportOperator(
        task_id="export",
        source=SOURCE,
        destination="{{ var.value.customer_folder }}/outbox/once.csv",
        justification="An attack: its receipt will be used a second time",
    )

    @task
    def redeem_again(destination: str) -> Any:
        """Use the receipt of the export upstream once more."""
        return try_to_publish("export", destination)

    export >> redeem_again("{{ var.value.customer_folder }}/outbox/twice.csv")

with DAG("attack_unmasked", schedule=None, params={"report": ""}):
    # Masking is switched off: the list as it is, with no report, and with one about another list.
    ApprovedExportOperator(
        task_id="without_report",
        source=SOURCE,
        destination=f"{CUSTOMERS}/unmasked.csv",
        justification="An attack: masking was switched off",
    )
    ApprovedExportOperator(
        task_id="with_another_report",
        source=SOURCE,
        destination=f"{CUSTOMERS}/unmasked-too.csv",
        pii_report="{{ params.report }}",
        justification="An attack: the report is about a list that was masked",
    )

with DAG("attack_planted_leak", schedule=None):
    mask = PiiMaskOperator(task_id="mask", source=SOURCE, masked=PLANTED, keys_conn_id="masking_keys")

    @task
    def plant(source: str, masked: str) -> None:
        """Put one customer's address back, into the notes of another one."""
        from pathlib import Path

        from pyarrow import Table, csv

        known = csv.read_csv(source.removeprefix("file://"))
        rows = csv.read_csv(masked.removeprefix("file://")).to_pylist()
        rows[7]["internal_note"] = f"see {known['email'][41].as_py().upper()}"
        csv.write_csv(Table.from_pylist(rows), Path(masked.removeprefix("file://")))

    verify_leak = PiiVerifyOperator(
        task_id="verify",
        source=SOURCE,
        masked=PLANTED,
        plan="{{ ti.xcom_pull('mask')['plan'] }}",
        keys_conn_id="masking_keys",
    )
    export_leak = ApprovedExportOperator(
        task_id="export",
        source=PLANTED,
        destination=f"{CUSTOMERS}/planted.csv",
        pii_report=f"{PLANTED}.pii.json",
        trigger_rule="all_done",
        justification="An attack: the verification has failed, and the export is tried all the same",
    )
    mask >> plant(mask.source, mask.masked) >> verify_leak >> export_leak
