"""The pictures of PII in docs/img: what the command line says of the demo's customers, and their masking."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pyarrow import csv, parquet  # noqa: TID253
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from demo.customers import write_customers

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "img"
NAME = "customers.parquet"
WIDTH = 96
MASK = ("mask", NAME, "masked.parquet", "--operator", "pseudonym", "--key-file", "key")


def main() -> None:
    """Stage the demo's customers as the demo does, and draw what the real commands make of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_customers(folder / "customers.csv")
        parquet.write_table(csv.read_csv(folder / "customers.csv"), folder / NAME)
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_bytes(base64.b64encode(os.urandom(32)))
        draw_terminal(FOLDER / "pii-scan.svg", "scan", told(folder, "scan", NAME))
        told(folder, *MASK, "--chart", str(FOLDER / "pii-masked.svg"))
    print("docs/img/pii-scan.svg\ndocs/img/pii-masked.svg")


def told(folder: Path, *words: str) -> str:
    """Return what the command writes to a terminal."""
    command = [sys.executable, "-m", "airflow_approvals.cli.main", "pii", *words]
    terminal = {"COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **terminal},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # how far it is
        text=True,
        check=True,
    )
    return done.stdout


def draw_terminal(path: Path, command: str, text: str) -> None:
    """Draw a terminal in which a command was run, with the fonts of whoever looks at it."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ airflow-approvals pii {command} {NAME}\n", style="bold"))
    console.print(Text.from_ansi(text.rstrip()))
    console.print()  # the last line is cut off otherwise
    drawn = console.export_svg(title="airflow-approvals", theme=SVG_EXPORT_THEME, unique_id=f"pii-{command}")
    drawn = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # they lie on another host
    drawn = re.sub(r"<!--.*?-->\s*", "", drawn, flags=re.DOTALL)
    path.write_text("\n".join(line.rstrip() for line in drawn.splitlines()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
