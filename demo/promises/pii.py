"""Personal data: what leaves is masked, the proof is about exactly those bytes, and nothing gets around."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from typing import Any

from airflow_approvals.cli.exits import Exit
from demo.calls import Stage, verify_offline
from demo.embedded import DemoError
from demo.promises.board import Promises, Subject
from demo.promises.following import OVER, answer, leftovers, outcome, over, settled, waiting
from demo.walk import DAG_ID, fetch_evidence, fetch_ledger

RUN = "masked"
PLANTED, UNMASKED = "attack_planted_leak", "attack_unmasked"
PATIENCE = 600.0  # seconds
PERSONAL = ("name", "email", "phone", "city")


def start(stage: Stage) -> None:
    """Start the runs that scan and mask: they take the longest."""
    stage.trigger(DAG_ID, RUN, {"batch": RUN})
    stage.trigger(PLANTED, "planted")


def attack(stage: Stage, promises: Promises) -> None:
    """Export a masked list, plant a value in another one, and leave masking out."""
    # Three tasks load a language model before this one asks: on a busy machine that takes minutes.
    stage.wait_for(lambda: _has_begun(stage), f"{DAG_ID} {RUN} to ask", seconds=PATIENCE)
    request = settled(stage, waiting(stage, DAG_ID, RUN))
    answer(stage, "approve", request)
    # Beside the list as it is: the report that has just proven another one clean.
    stage.trigger(UNMASKED, "unmasked", {"report": f"{stage.places.masked(RUN)}.pii.json"})
    _planted_leak(stage, promises)
    _unmasked(stage, promises)
    fetch_evidence(stage, outcome(stage, DAG_ID, RUN).id, RUN)


def inspect(stage: Stage, promises: Promises) -> None:
    """Look at the published file itself, and at what its receipt says of the verification."""
    _masked(stage, promises)
    _verified(stage, promises)


SUBJECT = Subject(
    promises=("pii_masked", "masking_verified", "planted_leak_found", "unmasked_export_denied"),
    start=start,
    attack=attack,
    inspect=inspect,
)


def _has_begun(stage: Stage) -> bool:
    state = stage.task_state(DAG_ID, RUN, "export")
    if state in OVER:
        raise DemoError(f"{DAG_ID} {RUN} is {state} before it was answered; see {stage.places.logs}")
    return state == "deferred"


def _planted_leak(stage: Stage, promises: Promises) -> None:
    """See that a value that was put back is found, by column and row, and that nothing is published."""
    mask, verify, export = (over(stage, PLANTED, "planted", task) for task in ("mask", "verify", "export"))
    report = json.loads((stage.places.data / "masked" / "planted.csv.pii.json").read_text())
    found = [(leak["column"], leak["entity_type"], leak["rows"]) for leak in report["leaks"]]
    refused = _refusals(stage, PLANTED, "planted", "export")
    destination = stage.places.outbox / "customers" / "planted.csv"
    promises.forbid("planted_leak_found", destination)
    promises.observe(
        "planted_leak_found",
        (mask, verify, export) == ("success", "failed", "failed")
        and not report["verified"]
        and ("internal_note", "EMAIL_ADDRESS", [7]) in found
        and refused == ["policy-denies"]
        and stage.request_of("planted") is None
        and not leftovers(destination),
        f"found: {'; '.join(f'{kind} in {column}, rows {rows}' for column, kind, rows in found)}; "
        f"exported all the same: refused as {', '.join(refused) or 'nothing'}",
    )


def _unmasked(stage: Stage, promises: Promises) -> None:
    """See that the policy denies what has no report; a report about other bytes is not even sent."""
    tasks = ("without_report", "with_another_report")
    states = [over(stage, UNMASKED, "unmasked", task) for task in tasks]
    asked = [task for task in tasks if stage.request_of("unmasked", task) is not None]
    refused = _refusals(stage, UNMASKED, "unmasked", "without_report")
    log = _log(stage, UNMASKED, "unmasked", "with_another_report")
    destinations = [
        stage.places.outbox / "customers" / f"{name}.csv" for name in ("unmasked", "unmasked-too")
    ]
    promises.forbid("unmasked_export_denied", *destinations)
    promises.observe(
        "unmasked_export_denied",
        states == ["failed", "failed"]
        and not asked
        and refused == ["policy-denies"]
        and "the PII report is about other bytes" in log
        and not any(map(leftovers, destinations)),
        f"without a report: refused as {', '.join(refused) or 'nothing'}; "
        "with the report of another list: it is about other bytes; nobody was asked",
    )


def _masked(stage: Stage, promises: Promises) -> None:
    """Search the published file for every value of the source, without any code of the masking."""
    from pyarrow import csv, parquet

    before = csv.read_csv(stage.places.data / "source" / "customers.csv")
    after = parquet.read_table(stage.places.exported_customers(RUN))
    told = "\n".join(str(value) for column in after.columns for value in column.to_pylist()).lower()
    values = {str(value).lower() for name in PERSONAL for value in before[name].to_pylist()}
    survivors = sum(value in told for value in values)
    kept = before.column_names == after.column_names and before["customer_id"].equals(after["customer_id"])
    changed = not any(before[name].equals(after[name]) for name in PERSONAL)
    promises.observe(
        "pii_masked",
        bool(values) and not survivors and kept and changed,
        f"{survivors} of {len(values):,} names, addresses, phone numbers and cities stand in "
        f"{after.num_rows:,} published rows; rows, order and columns are as before",
    )


def _verified(stage: Stage, promises: Promises) -> None:
    """See that the receipt carries a verification of exactly the bytes that were published."""
    published, evidence = stage.places.exported_customers(RUN), stage.places.evidence
    with published.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    receipt, key = evidence / f"{RUN}.receipt.json", ("--key", str(evidence / "keys.json"))
    told = verify_offline(str(receipt), *key, "--file", str(published))
    statement = json.loads(b64decode(json.loads(receipt.read_text())["envelope"]["payload"]))
    proof: dict[str, Any] = statement["predicate"].get("pii", {}) if told.returncode == Exit.OK else {}
    promises.observe(
        "masking_verified",
        proof.get("dataset_sha256") == sha256
        and proof.get("verified") is True
        and proof.get("residual") == 0,
        f"the receipt says so of {sha256}, masked by the plan with sha256 {proof.get('plan_digest')}",
    )


def _refusals(stage: Stage, dag_id: str, run_id: str, task_id: str) -> list[str]:
    """Return the words of all that the service has refused this task, from the ledger."""
    actor = f"worker:{dag_id}/{run_id}/{task_id}"
    lines = fetch_ledger(stage).read_text().splitlines()
    facts = [json.loads(line)[1] for line in lines if line.startswith('["')]
    return [
        fact["data"]["type"] for fact in facts if (fact["kind"], fact["actor"]) == ("attempt.refused", actor)
    ]


def _log(stage: Stage, dag_id: str, run_id: str, task_id: str) -> str:
    folder = stage.places.logs / "tasks" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
    return "\n".join(log.read_text() for log in folder.glob("*.log"))
