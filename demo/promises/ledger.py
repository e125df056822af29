"""Receipts and ledger: what happened can be proven with files and public keys alone, and only that."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

from airflow_approvals.cli.exits import Exit
from demo.calls import Stage, verify_offline
from demo.promises.board import Promises, Subject
from demo.promises.following import ended
from demo.screen import show_wrapped
from demo.walk import fetch_evidence, fetch_ledger

LEDGER_TABLE = "approvals_ledger_entry"


def fetch(stage: Stage, promises: Promises) -> None:
    """Take what is inspected later: a receipt, the keys and the ledger."""
    fetch_evidence(stage, ended(stage, "approved").id, "approved")
    fetch_ledger(stage)


def inspect(stage: Stage, promises: Promises) -> None:
    """Verify everything offline, and damage copies of it."""
    _published_is_approved(stage, promises)
    _ledger(stage, promises)
    _tampered_ledger(stage, promises)


SUBJECT = Subject(
    promises=(
        "exported_sha256_matches_receipt",
        "receipt_verifies_offline",
        "ledger_verifies_offline",
        "tampered_ledger_found",
    ),
    attack=fetch,
    inspect=inspect,
)


def _published_is_approved(stage: Stage, promises: Promises) -> None:
    evidence, published = stage.places.evidence, stage.places.published("approved")
    receipt, key = str(evidence / "approved.receipt.json"), ("--key", str(evidence / "keys.json"))
    with published.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    verified = verify_offline(receipt, *key, "--output", "json")
    subjects = (
        json.loads(verified.stdout)["verified"][0]["subjects"] if verified.returncode == Exit.OK else []
    )
    promises.observe(
        "exported_sha256_matches_receipt",
        [subject["sha256"] for subject in subjects] == [sha256],
        f"{sha256} is both",
    )
    with_data = verify_offline(receipt, *key, "--file", str(published))
    other_data = verify_offline(receipt, *key, "--file", str(stage.places.staged("changed")))
    promises.observe(
        "receipt_verifies_offline",
        with_data.returncode == Exit.OK and other_data.returncode == Exit.NOT_VERIFIED,
        "with the published file and the public key alone; with another file it does not",
    )


def _ledger(stage: Stage, promises: Promises) -> None:
    evidence = stage.places.evidence
    verified = verify_offline(
        str(evidence / "ledger.jsonl"), "--key", str(evidence / "keys.json"), "-o", "json"
    )
    entries = json.loads(verified.stdout)["verified"][0]["entries"] if verified.returncode == Exit.OK else 0
    promises.observe(
        "ledger_verifies_offline", verified.returncode == Exit.OK and entries > 0, f"{entries} entries"
    )


def _tampered_ledger(stage: Stage, promises: Promises) -> None:
    """Damage copies of the export in every way there is, and the table itself."""
    key = ("--key", str(stage.places.evidence / "keys.json"))
    lines = (stage.places.evidence / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    # A checkpoint of its own between the first lines is no entry: these places hold entries.
    places = [place for place, line in enumerate(lines) if line.startswith(b'["')]
    middle, following = places[len(places) // 2], places[len(places) // 2 + 1]
    tamperings = {
        "a word changed": [
            *lines[:middle],
            lines[middle].replace(b'"kind":', b'"kinD":'),
            *lines[middle + 1 :],
        ],
        "an entry dropped": [*lines[:middle], *lines[middle + 1 :]],
        "two entries swapped": _swapped(lines, middle, following),
        "the end cut off": lines[: places[-1]],
    }
    found = []
    for name, tampered in tamperings.items():
        copy = stage.places.evidence / "tampered.jsonl"
        copy.write_bytes(b"".join(tampered))
        verified = verify_offline(str(copy), *key)
        found.append(verified.returncode == Exit.NOT_VERIFIED and "entr" in verified.stderr)
        show_wrapped(f"{name}: {verified.stderr.strip().partition(': ')[2]}", indent=9, style="dim")
        copy.unlink()
    refused = _table_refuses(stage.places.airflow / "airflow.db")
    promises.observe(
        "tampered_ledger_found",
        all(found) and refused == {"UPDATE", "DELETE"},
        f"{sum(found)} of {len(found)} damaged copies found; the table refused {', '.join(sorted(refused))}",
    )


def _swapped(lines: list[bytes], one: int, other: int) -> list[bytes]:
    swapped = list(lines)
    swapped[one], swapped[other] = lines[other], lines[one]
    return swapped


def _table_refuses(database: Path) -> set[str]:
    """Return which of UPDATE and DELETE the ledger table itself refused, as its owner."""
    connection = sqlite3.connect(database)
    try:
        rows = connection.execute(f"SELECT count(*) FROM {LEDGER_TABLE}").fetchone()[0]  # noqa: S608  # a constant
        refused = set()
        for word, statement in (
            ("UPDATE", f"UPDATE {LEDGER_TABLE} SET kind = 'x' WHERE idx = 0"),  # noqa: S608
            ("DELETE", f"DELETE FROM {LEDGER_TABLE}"),  # noqa: S608
        ):
            try:
                connection.execute(statement)
            except sqlite3.IntegrityError:
                refused.add(word)
        return refused if rows else set()
    finally:
        connection.rollback()
        connection.close()
