"""Publishes again and again, each time in a child that is killed before its n-th step.

Every step that changes something outside the writer goes through one of the calls that `die_before` wraps.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_approvals.core.model import Snapshot
from airflow_approvals.staging import publish_local
from airflow_approvals.staging.publish import publish, verify_published
from airflow_approvals.staging.snapshot import snapshot

PATH_STEPS = ("mkdir", "unlink", "rename", "replace", "rmdir")
STEPS: list[tuple[Any, str]] = [(os, name) for name in ("write", "fsync", "fchmod", "link")]
STEPS += [(Path, name) for name in PATH_STEPS]
STEPS += [(fcntl, "flock"), (publish_local, "_exchange")]


def die_before(step: int) -> None:
    left = step

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*args, **kwargs)

        return call

    for owner, name in STEPS:
        setattr(owner, name, deadly(getattr(owner, name)))


def publish_killed(step: int, approved: Snapshot, target: Path, *, overwrite: bool) -> bool:
    """Return whether the writer got to its end."""
    child = os.fork()
    if child == 0:
        die_before(step)
        publish(approved.uri, str(target), expected=approved, overwrite=overwrite)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status == 0


def state_of(target: Path, before: Snapshot | None, approved: Snapshot) -> str:
    if verify_published(str(target), approved):
        return "complete"
    as_before = verify_published(str(target), before) if before else not os.path.lexists(target)
    return "as before" if as_before else "torn"


def main(new: str, old: str, folder: Path, *, overwrite: bool) -> list[str]:
    """Return the state that each killed writer left behind."""
    approved = snapshot(new)
    before = snapshot(old) if overwrite else None
    states = []
    for step in range(200):
        target = folder / str(step) / "x"
        if before:
            publish(old, str(target), expected=before)
        finished = publish_killed(step, approved, target, overwrite=overwrite)
        states.append(state_of(target, before, approved))
        publish(new, str(target), expected=approved, overwrite=True)
        states.extend(f"left over: {path}" for path in target.parent.iterdir() if path != target)
        if finished:
            return states
    return [*states, "never finished"]


if __name__ == "__main__":
    found = main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), overwrite=sys.argv[4] == "overwrite")
    sys.stdout.write(json.dumps(found))
