"""The demo for a person: one export waits for your answer; then see what came of it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from rich.console import Console

from airflow_approvals.core.model import ApprovalRequest, State
from demo.calls import Stage, verify_offline
from demo.places import CHECKOUT

DAG_ID = "customer_export"
RUN_ID = "demo"
BATCH = "customers"
WAIT_HOURS = 4

console = Console(highlight=False, soft_wrap=True)


def walk(stage: Stage) -> None:
    """Trigger the export, say how to answer, wait, and show the outcome with its proof."""
    stage.trigger(DAG_ID, RUN_ID, {"batch": BATCH})
    console.print(
        f"engineer triggered [bold]{DAG_ID}[/]; it stages 5,000 customers and asks for approval ..."
    )
    request = stage.wait_for(lambda: stage.request_of(RUN_ID), "the request")
    _say_how_to_answer(stage, request)
    decided = stage.wait_for(lambda: _if_decided(stage), "somebody's answer", seconds=WAIT_HOURS * 3600)
    console.print(f"\n[bold]{decided.state.value}[/]: {decided.decided_because}")
    if decided.state in (State.APPROVED, State.REDEEMED, State.COMPLETED):
        stage.wait_for(lambda: _if_finished(stage), "the export")
        _show_proof(stage, decided.id)
    else:
        left = ", ".join(path.name for path in stage.places.outbox.iterdir()) or "nothing"
        console.print(f"in the outbox: {left}")


def _if_decided(stage: Stage) -> ApprovalRequest | None:
    request = stage.request_of(RUN_ID)
    return request if request is not None and request.state is not State.PENDING else None


def _if_finished(stage: Stage) -> bool:
    request = stage.request_of(RUN_ID)
    return request is not None and request.outcome is not None


def _say_how_to_answer(stage: Stage, request: ApprovalRequest) -> None:
    console.rule("waiting for somebody other than engineer")
    console.print(stage.command("show", request.id, user="alice").stdout)
    command = Path(".venv/bin/airflow-approvals")
    for verdict in ("approve", "deny"):
        reason = " --reason 'not this month'" if verdict == "deny" else ""
        console.print(
            f"  APPROVALS_PASSWORD={shlex.quote(stage.passwords['alice'])} {command} {verdict}"
            f" {request.id[:8]} --username alice --url {stage.airflow.url}{reason}"
        )
    console.print(
        f"\nBob may answer too, engineer may only try. Airflow itself: {stage.airflow.url} "
        f"(passwords: {stage.places.passwords.relative_to(CHECKOUT)})"
    )


def fetch_evidence(stage: Stage, request_id: str, name: str) -> None:
    """Put the receipt of a request and the public keys into the evidence folder."""
    with stage.client("alice") as client:
        bundle = client.get_request(request_id).receipt
        (stage.places.evidence / f"{name}.receipt.json").write_text(json.dumps(bundle, indent=2))
        (stage.places.evidence / "keys.json").write_text(json.dumps(client.keys(), indent=2))


def fetch_ledger(stage: Stage) -> Path:
    """Put an export of the ledger into the evidence folder."""
    export = stage.places.evidence / "ledger.jsonl"
    with stage.client("alice") as client, export.open("wb") as stream:
        for chunk in client.export():
            stream.write(chunk)
    return export


def _show_proof(stage: Stage, request_id: str) -> None:
    fetch_evidence(stage, request_id, BATCH)
    ledger = fetch_ledger(stage)
    evidence = stage.places.evidence.relative_to(CHECKOUT)
    published = stage.places.published(BATCH).relative_to(CHECKOUT)
    receipt, keys = evidence / f"{BATCH}.receipt.json", evidence / "keys.json"
    console.rule("published, and proven without Airflow, database or network")
    for arguments in (
        (str(receipt), "--file", str(published), "--key", str(keys)),
        (str(ledger.relative_to(CHECKOUT)), "--key", str(keys)),
    ):
        console.print(f"[dim]$ .venv/bin/airflow-approvals verify {shlex.join(arguments)}[/]")
        verified = verify_offline(*arguments)
        console.print(verified.stdout or verified.stderr)
