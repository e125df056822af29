"""A writer killed at any step leaves the destination as it was or complete; the next one tidies up."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_approvals.core.model import Snapshot
from airflow_approvals.staging.publish import publish, verify_published
from airflow_approvals.staging.snapshot import snapshot
from tests.staging.samples import write_dataset, write_parts

# Every step that changes something outside goes through one of these; the writer dies before the n-th of them.
KILLED = """
import os, sys, signal
from pathlib import Path
from airflow_approvals.core.model import FileDigest
from airflow_approvals.staging.publish import publish
from airflow_approvals.staging import publish_local
left = int(sys.argv[1])
def deadly(name, owner):
    real = getattr(owner, name)
    def step(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*args, **kwargs)
    setattr(owner, name, step)
for name in ("write", "fsync", "fchmod", "link"):
    deadly(name, os)
deadly("flock", publish_local.fcntl)
deadly("_exchange", publish_local)
for name in ("mkdir", "unlink", "rename", "replace", "rmdir"):
    deadly(name, Path)
files = [FileDigest(name=n, sha256=d, size=int(s)) for n, d, s in (w.split("|") for w in sys.argv[5:])]
publish(sys.argv[2], sys.argv[3], expected=files, overwrite=sys.argv[4] == "True")
"""


def publish_and_die(step: int, source: Path, target: Path, approved: Snapshot, *, overwrite: bool) -> bool:
    """Publish in another process that is killed before its n-th step; return whether it got to its end."""
    files = [f"{file.name}|{file.sha256}|{file.size}" for file in approved.files]
    command = [sys.executable, "-c", KILLED, str(step), str(source), str(target), str(overwrite), *files]
    code = subprocess.run(command, check=False).returncode
    assert code in (0, -signal.SIGKILL)
    return code == 0


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_writer_killed_at_any_step_leaves_before_or_complete(
    tmp_path: Path, kind: str, overwrite: bool
) -> None:
    source = (
        write_dataset(tmp_path / "in" / "a.csv") if kind == "file" else write_parts(tmp_path / "in", ".csv")
    )
    old = tmp_path / "old" / "a.csv"
    write_dataset(old, range(9))
    before = snapshot(str(old if kind == "file" else old.parent))
    approved = snapshot(str(source))
    target = tmp_path / "out" / "x"
    seen = set()
    for step in range(100):
        for leftover in target.parent.glob("x"):
            leftover.rename(tmp_path / f"done-{step}")
        if overwrite:
            publish(before.uri, str(target), expected=before)
        finished = publish_and_die(step, source, target, approved, overwrite=overwrite)
        if verify_published(str(target), approved):
            seen.add("complete")
        else:
            assert verify_published(str(target), before) if overwrite else not target.exists()
            seen.add("as before")
        if finished:
            break
    else:
        pytest.fail("the writer never got to its end")
    assert seen == {"as before", "complete"}

    publish(str(source), str(target), expected=approved, overwrite=True)
    assert [path.name for path in target.parent.iterdir()] == ["x"]
