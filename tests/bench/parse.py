"""What gates cost where DAG files are parsed: the operators' import, and 50 gated tasks beside 50 ungated.

Each parse is a process of its own, gated and ungated in turn; the medians are compared.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 7
TASKS = 50
HEAVY = (
    "presidio_analyzer",
    "presidio_anonymizer",
    "spacy",
    "pandas",
    "pyarrow",
    "slack_sdk",
    "fastapi",
    "airflow_approvals.store",
)

DAG_FILE = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
{imports}
with DAG("bench") as dag:
    before = None
    for number in range({tasks}):
        task = BashOperator(task_id=f"task_{{number}}", bash_command="echo {{{{ ds }}}}")
        {gate}
        if before is not None:
            before >> task
        before = task
"""
IMPORTS = """
from airflow_approvals.operators.export import ApprovedExportOperator
from airflow_approvals.operators.gate import ApprovalGateOperator
from airflow_approvals.operators.gated import gated
from airflow_approvals.operators.pii import PiiMaskOperator, PiiScanOperator, PiiVerifyOperator
from airflow_approvals.operators.pii_decrypt import PiiDecryptOperator
from airflow_approvals.operators.pii_task import pii_task
from airflow_approvals.operators.sql import ApprovedSqlWriteOperator
from airflow_approvals.sensors.approval import ApprovalSensor
"""

# The dag processor has Airflow and the standard operators loaded when it takes up a file; what it does then
# is timed: importing the file, and serialising what is in it.
PARSE = """
import json, runpy, sys, time
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
import airflow.sdk.bases.sensor, airflow.sdk.bases.decorator, airflow.serialization.serialized_objects as ways
serialize = (vars(ways).get("DagSerialization") or ways.SerializedDAG).serialize_dag
started = time.perf_counter()
dag = runpy.run_path(sys.argv[1])["dag"]
serialize(dag)
seconds = time.perf_counter() - started
assert len(dag.tasks) == int(sys.argv[2])
print(seconds * 1000)
"""

# Without the serialiser, which brings SQLAlchemy and FastAPI along by itself.
IMPORT = """
import json, runpy, sys
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
known = set(sys.modules)
runpy.run_path(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - known)))
"""


def figures(rounds: int = ROUNDS) -> dict[str, float]:
    """Return milliseconds over the ungated DAG, and how many heavy modules were imported."""
    with tempfile.TemporaryDirectory(prefix="parse-bench-") as folder:
        plain, gated = _dag_files(Path(folder))
        _parse(plain)  # compiles what is not compiled yet
        _parse(gated)
        times: dict[Path, list[float]] = {plain: [], gated: []}
        for _ in range(rounds):
            for file, taken in times.items():
                taken.append(_parse(file))
        ungated_ms, gated_ms = (statistics.median(times[file]) for file in (plain, gated))
        return {
            "ms_over_ungated": gated_ms - ungated_ms,
            "ms_ungated": ungated_ms,
            "ms_gated": gated_ms,
            "heavy_modules_imported": len(heavy_modules()),
        }


def heavy_modules() -> list[str]:
    """Return the heavy modules that parsing a DAG with every operator imports, beyond Airflow's own."""
    with tempfile.TemporaryDirectory(prefix="parse-bench-") as folder:
        _, gated = _dag_files(Path(folder))
        imported: list[str] = json.loads(_run(IMPORT, gated))
    return [name for name in imported if any(f"{name}.".startswith(f"{heavy}.") for heavy in HEAVY)]


def _dag_files(folder: Path) -> tuple[Path, Path]:
    plain, gated = folder / "plain.py", folder / "gated.py"
    plain.write_text(DAG_FILE.format(imports="", gate="", tasks=TASKS))
    gated.write_text(DAG_FILE.format(imports=IMPORTS, gate='gated(task, policy="any")', tasks=TASKS))
    return plain, gated


def _parse(file: Path) -> float:
    """Return milliseconds."""
    return float(_run(PARSE, file))


def _run(script: str, file: Path) -> str:
    settings = {"AIRFLOW_HOME": str(file.parent), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(file), str(TASKS)],
        capture_output=True,
        text=True,
        env={**os.environ, **settings},
        check=True,
    )
    return done.stdout.splitlines()[-1]
