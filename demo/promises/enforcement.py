"""What the policy file does to DAGs that never heard of approvals, and to those that go around it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from airflow_approvals.core.model import State
from demo.calls import Stage
from demo.embedded import DemoError
from demo.places import Places
from demo.promises.board import Promises, Subject
from demo.promises.following import answer, over, settled, waiting

STOCK, READS, BY_HAND = "stock_insert", "attack_protected_connection", "attack_execute_by_hand"
CONNECTION = "prod_warehouse"
_BIN = Path(sys.executable).parent


def start(stage: Stage) -> None:
    """Put a warehouse behind a sealed connection, and start what wants to write to it."""
    with closing(sqlite3.connect(_warehouse(stage.places))) as connection:
        connection.execute("CREATE TABLE written (what TEXT)")
    host = str(_warehouse(stage.places))
    _run(stage, "airflow", "connections", "add", CONNECTION, "--conn-type", "sqlite", "--conn-host", host)
    _run(stage, "airflow-approvals", "seal", CONNECTION)
    for dag_id in (STOCK, READS, BY_HAND):
        stage.trigger(dag_id, dag_id)


def attack(stage: Stage, promises: Promises) -> None:
    """Read the sealed connection without an approval, and see what the stock operator does without one."""
    _gated(stage, promises)
    _withheld(stage, promises)


SUBJECT = Subject(
    promises=("ungated_operator_gated_by_policy", "protected_connection_withheld"),
    start=start,
    attack=attack,
)


def _gated(stage: Stage, promises: Promises) -> None:
    """Watch a DAG with Airflow's own SQL operator and no word of approvals in it."""
    request = waiting(stage, STOCK, STOCK, "insert")
    before = _rows(stage.places)
    told = _run(stage, "airflow-approvals", "policy", "explain", STOCK, "-o", "json")
    (gate,) = json.loads(told.stdout)["tasks"]
    answer(stage, "approve", settled(stage, request))
    state = over(stage, STOCK, STOCK, "insert")
    after = _rows(stage.places)
    promises.observe(
        "ungated_operator_gated_by_policy",
        not before
        and gate["standing"] == "by rule"
        and request.policy == "warehouse-write"
        and state == "success"
        and after == ["approved"],
        f"gated by {gate['because']}; nothing was written until alice approved, then the stock operator ran "
        "unchanged",
    )


def _withheld(stage: Stage, promises: Promises) -> None:
    """Watch tasks without an approval, of which one calls the gated operator's `execute` itself."""
    over(stage, READS, READS, "read")
    refusal = stage.returned(READS, READS, "read")
    by_hand = over(stage, BY_HAND, BY_HAND, "by_hand")
    denied = _denials(stage)
    stored = _stored(stage.places)
    with stage.client("alice") as client:
        used = client.list_requests(run_id=STOCK).requests[0].state
    promises.observe(
        "protected_connection_withheld",
        refusal != "read"
        and by_hand == "failed"
        and _rows(stage.places) == ["approved"]
        and all(any(dag_id in each for each in denied) for dag_id in (READS, BY_HAND))
        and str(_warehouse(stage.places)) not in stored
        and used is State.COMPLETED,
        f"a task that read {CONNECTION}: {refusal}; one that called execute itself: {by_hand}; "
        f"{len(denied)} denials in the ledger; the database holds ciphertext; the approved task was lent it",
    )


def _denials(stage: Stage) -> list[str]:
    """Return why tasks were denied the connection, as the ledger has it."""
    with closing(sqlite3.connect(stage.places.airflow / "airflow.db")) as connection:
        query = "SELECT body FROM approvals_ledger_entry WHERE kind = 'attempt.refused'"
        entries = [json.loads(body)["data"] for (body,) in connection.execute(query)]
    return [entry["because"] for entry in entries if entry["attempt"] == f"read connection {CONNECTION}"]


def _warehouse(places: Places) -> Path:
    return places.data / "warehouse.db"


def _rows(places: Places) -> list[str]:
    with closing(sqlite3.connect(_warehouse(places))) as connection:
        return [row[0] for row in connection.execute("SELECT what FROM written")]


def _stored(places: Places) -> str:
    """Return the connection as it stands in the metadata database (which has no Fernet key here)."""
    with closing(sqlite3.connect(places.airflow / "airflow.db")) as connection:
        return str(connection.execute("SELECT * FROM connection WHERE conn_id = ?", (CONNECTION,)).fetchone())


def _run(stage: Stage, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the API server runs, with its configuration."""
    done = subprocess.run(
        [str(_BIN / program), *arguments],
        env=stage.airflow.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"{program} {' '.join(arguments)} failed: {done.stderr.strip()[-300:]}")
    return done
