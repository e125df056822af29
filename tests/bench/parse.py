"""What gates cost where DAG files are parsed: the operators' import, and 50 gated tasks beside 50 ungated.

Gated and ungated take turns, each parse in a process of its own; what is told of the processor times is the
median of the differences.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 25
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

# As the dag processor does it: a process with Airflow and the standard operators in it, its garbage frozen,
# forks for each parse; there the file is imported and the DAG is serialised. The files take turns.
PARSE = """
import gc, os, runpy, sys, time
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
import airflow.sdk.bases.sensor, airflow.sdk.bases.decorator, airflow.serialization.serialized_objects as ways
serialize = (vars(ways).get("DagSerialization") or ways.SerializedDAG).serialize_dag
tasks, rounds, files = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
gc.collect()
gc.freeze()

def parse(file):
    started = time.process_time()
    dag = runpy.run_path(file)["dag"]
    serialize(dag)
    seconds = time.process_time() - started
    assert len(dag.tasks) == tasks
    print(file, seconds * 1000, flush=True)

for _ in range(rounds):
    for file in files:
        child = os.fork()
        if not child:
            parse(file)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, file
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
        # The first round compiles what is not compiled yet.
        answers = _run(PARSE, str(TASKS), str(rounds + 1), plain, gated)[2:]
        times = [float(answer.split()[1]) for answer in answers]
        ungated, gated_ms = times[::2], times[1::2]
        return {
            "ms_over_ungated": statistics.median(map(float.__sub__, gated_ms, ungated)),
            "ms_ungated": statistics.median(ungated),
            "ms_gated": statistics.median(gated_ms),
            "heavy_modules_imported": len(heavy_modules()),
        }


def heavy_modules() -> list[str]:
    """Return the heavy modules that parsing a DAG with every operator imports, beyond Airflow's own."""
    with tempfile.TemporaryDirectory(prefix="parse-bench-") as folder:
        _, gated = _dag_files(Path(folder))
        imported: list[str] = json.loads(_run(IMPORT, gated)[-1])
    return [name for name in imported if any(f"{name}.".startswith(f"{heavy}.") for heavy in HEAVY)]


def _dag_files(folder: Path) -> tuple[Path, Path]:
    plain, gated = folder / "plain.py", folder / "gated.py"
    plain.write_text(DAG_FILE.format(imports="", gate="", tasks=TASKS))
    gated.write_text(DAG_FILE.format(imports=IMPORTS, gate='gated(task, policy="any")', tasks=TASKS))
    return plain, gated


def _run(script: str, *arguments: str | Path) -> list[str]:
    """Return the lines that it prints."""
    settings = {"AIRFLOW_HOME": str(Path(arguments[-1]).parent), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        # Compiled once, as wherever the package is installed.
        env={**os.environ, **settings, "PYTHONDONTWRITEBYTECODE": ""},
        check=True,
    )
    return done.stdout.splitlines()
