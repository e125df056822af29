"""Evidence: what an auditor is handed stands on its own, and shows when a word of it was changed."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_approvals.cli.exits import Exit
from demo.calls import Stage, verify_offline
from demo.promises.board import Promises, Subject
from demo.screen import show_wrapped

PROMISE = "evidence_verifies_offline"


def fetch(stage: Stage, promises: Promises) -> None:
    """Have alice, who is an auditor, take the evidence of everything that was done and attacked so far."""
    since = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    folder = _folder(stage)
    shutil.rmtree(folder, ignore_errors=True)
    told = stage.command("evidence", "--since", since, "--out", str(folder), user="alice")
    show_wrapped((told.stdout or told.stderr).strip(), indent=9, style="dim")


def inspect(stage: Stage, promises: Promises) -> None:
    """Verify the folder with the public key alone, and copies of it that say something else."""
    folder, key = _folder(stage), ("--key", str(stage.places.evidence / "keys.json"))
    verified = verify_offline(str(folder), *key, "-o", "json")
    told = json.loads(verified.stdout)["verified"][0] if verified.returncode == Exit.OK else {}
    found = []
    for name, old, new in (
        ("index.html", "alice", "bob"),
        ("actions.csv", "alice", "bob"),
        ("oscal.json", "satisfied", "not-satisfied"),
        ("receipts.jsonl", '"index":', '"index":1'),
    ):
        copy = folder.with_name("tampered-package")
        shutil.copytree(folder, copy)
        content = (copy / name).read_text(encoding="utf-8")
        (copy / name).write_text(content.replace(old, new, 1), encoding="utf-8")
        found.append(old in content and verify_offline(str(copy), *key).returncode == Exit.NOT_VERIFIED)
        shutil.rmtree(copy)
    promises.observe(
        PROMISE,
        bool(told) and told["actions"] > 0 and told["receipts"] == told["approvals"] > 0 and all(found),
        f"{told.get('actions')} actions, {told.get('approvals')} approvals each with its receipt, "
        f"{told.get('refused')} refused attempts; {sum(found)} of {len(found)} changed copies found",
    )


SUBJECT = Subject(promises=(PROMISE,), attack=fetch, inspect=inspect)


def _folder(stage: Stage) -> Path:
    return stage.places.evidence / "package"
