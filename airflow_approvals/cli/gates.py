"""`policy explain DAG_ID`: which rule gates each task of a DAG, and why; and where a gate is missing."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.output import print_json, stdout, visible
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.model import to_json

_STYLES = {"gate missing": "red", "by rule": "green", "by its DAG": "green", "asks itself": "green"}


def explain_dag(args: Namespace) -> int:
    """Tell how every task of the DAG stands; exit code 1 when a gate is missing."""
    try:
        from airflow_approvals.enforcement.in_force import gates_of
        from airflow_approvals.enforcement.rules_file import read_rules
        from airflow_approvals.settings import read_gating
    except ImportError as error:
        raise ConfigurationError(
            "Airflow is not installed here: run this where its metadata database is configured"
        ) from error
    path, _ = read_gating()
    rules = read_rules(Path(args.file or path).read_text(encoding="utf-8"))
    gates = gates_of(args.dag, rules)
    missing = any(gate.standing == "gate missing" for gate in gates)
    if args.output == "json":
        print_json({"dag_id": args.dag, "ok": not missing, "tasks": [to_json(gate) for gate in gates]})
    else:
        table = Table(box=None, pad_edge=False)
        for name in ("task", "gate", "because"):
            table.add_column(name, overflow="fold")
        for gate in gates:
            style = _STYLES.get(gate.standing, "")
            table.add_row(
                visible(gate.task_id), Text(gate.standing, style=style), Text(visible(gate.because))
            )
        stdout().print(table)
    return Exit.ERROR if missing else Exit.OK
