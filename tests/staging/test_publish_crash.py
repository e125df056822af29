"""A writer killed at any step leaves the destination as it was or complete; the next one tidies up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.staging.samples import write_dataset

WRITER = Path(__file__).with_name("killed_writer.py")


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("mode", ["new", "overwrite"])
def test_a_writer_killed_at_any_step_leaves_before_or_complete(tmp_path: Path, kind: str, mode: str) -> None:
    new = write_dataset(tmp_path / "new" / "a.csv", range(50))
    old = write_dataset(tmp_path / "old" / "a.csv", range(9))
    if kind == "folder":
        write_dataset(new.parent / "day=1" / "b.csv", range(5))
        new, old = new.parent, old.parent

    run = subprocess.run(
        [sys.executable, str(WRITER), str(new), str(old), str(tmp_path / "out"), mode],
        check=True,
        capture_output=True,
        text=True,
    )

    states = json.loads(run.stdout)
    assert set(states) == {"as before", "complete"}
    assert states == sorted(states)  # before, up to one step; complete from there on
    assert len(states) >= 8
