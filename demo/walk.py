"""The demo for a person: one export waits for your answer; then see what came of it."""

from __future__ import annotations

import json
import shlex
from itertools import chain
from pathlib import Path

from rich.text import Text

from airflow_approvals.cli.pii_showing import scan_table
from airflow_approvals.core.model import ApprovalRequest, State, from_json
from airflow_approvals.pii.report import ScanReport
from demo.calls import Stage, verify_offline
from demo.embedded import DemoError
from demo.places import CHECKOUT
from demo.screen import console, rule, show
from demo.slack import ACCOUNTS, DemoSlack

DAG_ID = "customer_export"
RUN_ID = "demo"
BATCH = "customers"
WAIT_HOURS = 4
COMMAND = ".venv/bin/airflow-approvals"
APPROVED = (State.APPROVED, State.REDEEMED, State.COMPLETED, State.FAILED)


def walk(stage: Stage, slack: DemoSlack) -> None:
    """Trigger the export, say how to answer, wait, and show the outcome with its proof."""
    for user in ("alice", "engineer"):
        slack.link(stage, user)
    stage.trigger(DAG_ID, RUN_ID, {"batch": BATCH})
    console.print(
        f"engineer triggered [bold]{DAG_ID}[/]: it stages 5,000 customers, looks for personal data,\n"
        "masks it, proves that nothing is left (about a minute), and asks for approval ..."
    )
    request = stage.wait_for(lambda: _if_asked(stage), "the request", seconds=600)
    _show_personal_data(stage, request)
    _say_how_to_answer(stage, request, slack)
    decided = stage.wait_for(lambda: _if_decided(stage), "somebody's answer", seconds=WAIT_HOURS * 3600)
    console.print(Text(f"\n{decided.decided_because}", style="bold"))
    console.print(f"the export {'goes on' if decided.state in APPROVED else 'ends'} within seconds ...")
    state = stage.wait_for(lambda: _if_over(stage), "the export to end", seconds=180)
    finished = stage.request_of(RUN_ID)
    if finished is not None and finished.state is State.COMPLETED:
        _show_proof(stage, finished.id)
    else:
        _show_nothing(stage, state, finished)


def _if_asked(stage: Stage) -> ApprovalRequest | None:
    if stage.task_state(DAG_ID, RUN_ID, "export") == "upstream_failed":
        raise DemoError(f"{DAG_ID} has failed before it could ask; see {stage.places.logs / 'tasks'}")
    return stage.request_of(RUN_ID)


def _show_personal_data(stage: Stage, request: ApprovalRequest) -> None:
    """Show what was found before masking, and what the verification says."""
    report = request.evidence.pii or {}
    rule("personal data before masking")
    console.print(scan_table(from_json(ScanReport, report["before"]).columns))
    rule("and after")
    show(
        f"Masked by the plan {stage.places.plan(BATCH).relative_to(CHECKOUT)},\n"
        f"sha256 {report['plan_digest']}.\n\n"
        f"None of {report['values_searched']:,} values that were found stands anywhere in the masked file.\n"
        f"Left alone by the plan: {', '.join(report['left_by_plan'])}.\n\n"
        f"The chart, before and after:\n\n"
        f"  {stage.airflow.url}/approvals/requests/{request.id}#pii-title"
    )


def _if_decided(stage: Stage) -> ApprovalRequest | None:
    request = stage.request_of(RUN_ID)
    return request if request is not None and request.state is not State.PENDING else None


def _if_over(stage: Stage) -> str | None:
    state = stage.task_state(DAG_ID, RUN_ID, "export")
    return state if state in ("success", "failed", "skipped") else None


def _say_how_to_answer(stage: Stage, request: ApprovalRequest, slack: DemoSlack) -> None:
    rule("waiting for somebody other than engineer")
    show(stage.command("show", request.id, user="alice").stdout)
    rule("your answer")
    answer = f"{COMMAND} {{}} {request.id[:8]} -u alice --url {stage.airflow.url}"
    show(
        "Log in in a browser:\n\n"
        f"  {stage.airflow.url}/approvals/requests/{request.id}\n\n"
        "  user      alice\n"
        f"  password  {stage.passwords['alice']}\n\n"
        "or in Slack (a fake one, of this demo), where you are alice and may be anybody:\n\n"
        f"  {slack.url}/?user={ACCOUNTS['alice']}\n\n"
        "or in a second terminal, in this folder (the password is asked for):\n\n"
        f"  {answer.format('approve')}\n"
        f"  {answer.format('deny')} -r 'not now'\n\n"
        "Who asked can only try:\n\n"
        "  user      engineer\n"
        f"  password  {stage.passwords['engineer']}"
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
    ledger = fetch_ledger(stage).relative_to(CHECKOUT)
    evidence = stage.places.evidence.relative_to(CHECKOUT)
    published = stage.places.exported_customers(BATCH).relative_to(CHECKOUT)
    receipt, keys = evidence / f"{BATCH}.receipt.json", evidence / "keys.json"
    rule("published")
    show(f"{published}, {stage.places.exported_customers(BATCH).stat().st_size:,} bytes")
    rule("proven without Airflow, database or network")
    data, key = ("--file", str(published)), ("--key", str(keys))
    for what, *options in ((str(receipt), data, key), (str(ledger), key)):
        lines = [f"$ {COMMAND} verify {what}", *map(shlex.join, options)]
        console.print()
        show(" \\\n    ".join(lines), style="dim")
        verified = verify_offline(what, *chain(*options))
        show(verified.stdout or verified.stderr)


def _show_nothing(stage: Stage, state: str, request: ApprovalRequest | None) -> None:
    rule("not published")
    left = (
        ", ".join(path.name for path in stage.places.exported_customers(BATCH).parent.iterdir()) or "nothing"
    )
    show(f"request  {request.state if request else 'gone'}\ntask     {state}\noutbox   {left}")
