"""`make demo AUTO=1`: both sides are played, and every promise is attacked; only what was observed counts."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_approvals.cli.exits import Exit
from airflow_approvals.core.errors import ApprovalsError, NotAuthenticatedError, VoteRefusedError
from airflow_approvals.core.model import ApprovalRequest, State
from demo.calls import Stage, verify_offline
from demo.embedded import DemoError
from demo.screen import console, show, show_wrapped
from demo.walk import DAG_ID, fetch_evidence, fetch_ledger

PROMISES = (
    "self_approval_refused",
    "unknown_voter_refused",
    "changed_after_approval_blocked",
    "mark_success_bypass_blocked",
    "second_redeem_refused",
    "denied_export_absent",
    "exported_sha256_matches_receipt",
    "receipt_verifies_offline",
    "ledger_verifies_offline",
    "tampered_ledger_found",
)
SETTLING = timedelta(seconds=20)
OVER = ("success", "failed", "upstream_failed", "skipped")


class Promises:
    """What was tried and held; everything starts as not held."""

    def __init__(self) -> None:
        self.held = dict.fromkeys(PROMISES, False)
        self.forbidden: list[tuple[str, Path]] = []
        """Where nothing may ever appear, and the promise that says so."""

    def forbid(self, name: str, *destinations: Path) -> None:
        """Note destinations to look at again when nothing runs any more."""
        self.forbidden += [(name, destination) for destination in destinations]

    def observe(self, name: str, held: bool, told: str) -> None:
        """Record what an attack came to."""
        self.held[name] = held
        console.print(f"  {'[green]held[/]  ' if held else '[bold red]BROKEN[/]'} [bold]{name}[/]")
        show_wrapped(told, indent=9)


def attack_while_running(stage: Stage, promises: Promises) -> None:
    """Everything that needs a running Airflow; all runs are started at once and wait side by side."""
    for batch in ("changed", "approved", "denied", "marked"):
        stage.trigger(DAG_ID, batch, {"batch": batch})
    stage.trigger("attack_mark_success", "around")
    stage.trigger("attack_second_redeem", "twice")

    changed_at = _approve_and_change(stage, "changed")
    approved = _waiting(stage, "approved")
    show(stage.command("list", user="alice").stdout)
    console.print()
    _self_approval(stage, promises, approved)
    _unknown_voter(stage, promises, approved)
    for verdict, run_id in (("approve", "approved"), ("approve", "twice"), ("deny", "denied")):
        _answer(stage, verdict, _settled(stage, _waiting(stage, run_id)))
    _changed_after_approval(stage, promises, changed_at)
    _mark_success(stage, promises)
    _denied(stage, promises)
    _second_redeem(stage, promises)
    _outcome(stage, "approved")
    fetch_evidence(stage, approved.id, "approved")
    fetch_ledger(stage)


def attack_after_the_end(stage: Stage, promises: Promises) -> None:
    """Everything that must hold with files and public keys alone; Airflow has been stopped."""
    _nothing_came_later(stage, promises)
    _published_is_approved(stage, promises)
    _ledger(stage, promises)
    _tampered_ledger(stage, promises)


# --- votes --------------------------------------------------------------------------------------------------


def _self_approval(stage: Stage, promises: Promises, request: ApprovalRequest) -> None:
    told = stage.command("approve", request.id, "--yes", user="engineer")
    still = _fresh(stage, request)
    promises.observe(
        "self_approval_refused",
        told.returncode == Exit.NOT_ALLOWED and still.state is State.PENDING and not still.votes,
        told.stderr.strip(),
    )


def _unknown_voter(stage: Stage, promises: Promises, request: ApprovalRequest) -> None:
    """Somebody whom Airflow knows and the policy does not, and somebody whom nobody knows."""
    told = stage.command("approve", request.id, "--yes", user="mallory")
    forged = _refusal(lambda: _vote_with(stage, "a.forged.token", request))
    outsider = _refusal(lambda: _vote_with(stage, stage.token("mallory"), request))
    still = _fresh(stage, request)
    promises.observe(
        "unknown_voter_refused",
        told.returncode != Exit.OK
        and isinstance(outsider, ApprovalsError)
        and isinstance(forged, NotAuthenticatedError)
        and still.state is State.PENDING
        and not still.votes,
        f"{outsider}; a forged token: {forged}",
    )


def _vote_with(stage: Stage, token: str, request: ApprovalRequest) -> None:
    from airflow_approvals.client.api import ApprovalsClient
    from airflow_approvals.client.tokens import login_token

    with ApprovalsClient(stage.airflow.url, login_token(token)) as client:
        client.vote(request.id, "approve", revision=request.revision)


def _refusal(attempt: Callable[[], None]) -> ApprovalsError | None:
    try:
        attempt()
    except ApprovalsError as refusal:
        return refusal
    return None


# --- writes -------------------------------------------------------------------------------------------------


def _changed_after_approval(stage: Stage, promises: Promises, changed_at: datetime) -> None:
    """See what came of a file that was changed after its approval, before the export redeemed it.

    Only a change that came before the redeem is an attack: where a busy machine was too late for that, or
    lost the wait, another file is tried, up to three.
    """
    batch = "changed"
    for again in ("changed-2", "changed-3", None):
        state = _over(stage, DAG_ID, batch, "export")
        ended = _ended(stage, batch)
        in_time = ended.redeemed_at is not None and changed_at < ended.redeemed_at
        if in_time or again is None:
            break
        batch = again
        stage.trigger(DAG_ID, batch, {"batch": batch})
        changed_at = _approve_and_change(stage, batch)
    published = stage.places.published(batch)
    promises.forbid("changed_after_approval_blocked", published)
    promises.observe(
        "changed_after_approval_blocked",
        in_time and state == "failed" and ended.state is State.FAILED and not _leftovers(published),
        f"task {state}, request {ended.state}: {ended.outcome.detail if ended.outcome else 'no outcome'}"
        if in_time
        else "never tried: each change came after the export had redeemed its receipt",
    )


def _approve_and_change(stage: Stage, batch: str) -> datetime:
    """Approve, then swap a value in the staged file; return when that was done.

    The trigger holds a decision back until the wait is 5 seconds old, and only then is the export started.
    The vote goes straight to the API: a command would take as long to end.
    """
    request = _waiting(stage, batch)
    staged = stage.places.staged(batch)
    content = bytearray(staged.read_bytes())
    content[len(content) // 2] ^= 1
    with stage.client("alice") as client:
        client.vote(request.id, "approve", revision=request.revision)
    staged.write_bytes(content)
    return datetime.now(UTC)


def _mark_success(stage: Stage, promises: Promises) -> None:
    """Mark the waiting export successful, and mark a gate successful in front of writes."""
    marked = _waiting(stage, "marked")
    _waiting(stage, "around", "gate")
    stage.mark_success(DAG_ID, "marked", "export")
    stage.mark_success("attack_mark_success", "around", "gate")
    write = _over(stage, "attack_mark_success", "around", "write")
    anyway = _over(stage, "attack_mark_success", "around", "redeem_anyway")
    refusal = (
        stage.returned("attack_mark_success", "around", "redeem_anyway") if anyway == "success" else anyway
    )
    # Even a yes that comes now must not publish anything: the task is gone.
    late = stage.command("approve", marked.id, "--yes", user="bob")
    state = stage.task_state(DAG_ID, "marked", "export")
    destinations = (stage.places.published("marked"), stage.places.outbox / "around-the-gate.csv")
    absent = not any(map(_leftovers, destinations))
    promises.forbid("mark_success_bypass_blocked", *destinations)
    promises.observe(
        "mark_success_bypass_blocked",
        state == "success" and write == "failed" and refusal == "not-approved" and absent,
        f"export marked {state} and approved afterwards (exit {late.returncode}): nothing published; "
        f"behind a gate marked success: write {write}, its own redeem refused as {refusal}",
    )


def _denied(stage: Stage, promises: Promises) -> None:
    state = _over(stage, DAG_ID, "denied", "export")
    request = stage.request_of("denied")
    published = stage.places.published("denied")
    promises.forbid("denied_export_absent", published)
    promises.observe(
        "denied_export_absent",
        state == "failed"
        and request is not None
        and request.state is State.DENIED
        and not _leftovers(published),
        f"task {state}, nothing at the destination",
    )


def _second_redeem(stage: Stage, promises: Promises) -> None:
    first = _over(stage, "attack_second_redeem", "twice", "export")
    again = _over(stage, "attack_second_redeem", "twice", "redeem_again")
    refusal = stage.returned("attack_second_redeem", "twice", "redeem_again") if again == "success" else again
    once, twice = stage.places.outbox / "once.csv", stage.places.outbox / "twice.csv"
    promises.forbid("second_redeem_refused", twice)
    promises.observe(
        "second_redeem_refused",
        first == "success" and once.exists() and refusal == "receipt-used" and not _leftovers(twice),
        f"the first use published, the second was refused as {refusal}",
    )


def _nothing_came_later(stage: Stage, promises: Promises) -> None:
    """Look again at every destination that must have stayed empty, now that nothing runs any more."""
    for name, destination in promises.forbidden:
        if _leftovers(destination):
            promises.observe(name, False, f"{destination.name} appeared after all")
    left = sorted(path.name for path in stage.places.outbox.iterdir())
    show(f"  in the outbox: {', '.join(left)}")


# --- evidence -----------------------------------------------------------------------------------------------


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


LEDGER_TABLE = "approvals_ledger_entry"


# --- shared -------------------------------------------------------------------------------------------------


def _waiting(stage: Stage, run_id: str, task_id: str = "export") -> ApprovalRequest:
    """Return the request of a task once its task instance really waits."""
    dag_id = {"around": "attack_mark_success", "twice": "attack_second_redeem"}.get(run_id, DAG_ID)
    request = stage.wait_for(lambda: stage.request_of(run_id, task_id), f"the request of {dag_id} {run_id}")
    stage.wait_for(
        lambda: stage.task_state(dag_id, run_id, task_id) == "deferred", f"{dag_id} {run_id} to wait"
    )
    return request


def _settled(stage: Stage, request: ApprovalRequest) -> ApprovalRequest:
    """Return a request whose wait the scheduler must have noticed by now.

    Airflow 3.3.2 fails a task that is resumed before that (see `triggers.approval`), and on a busy machine it
    can take longer than the trigger's hold-back; nothing is published then, but nothing is shown either.
    """
    noticed = request.opened_at + SETTLING
    stage.wait_for(lambda: datetime.now(UTC) > noticed, f"request {request.id} to settle")
    return request


def _answer(stage: Stage, verdict: str, request: ApprovalRequest) -> None:
    reason = ("--reason", "the partner's contract has ended") if verdict == "deny" else ()
    told = stage.command(verdict, request.id, "--yes", *reason, user="alice")
    if told.returncode != Exit.OK:
        raise VoteRefusedError(f"alice could not {verdict} {request.id}: {told.stderr.strip()}")


def _over(stage: Stage, dag_id: str, run_id: str, task_id: str) -> str:
    def state() -> str | None:
        found = stage.task_state(dag_id, run_id, task_id)
        return found if found in OVER else None

    return stage.wait_for(state, f"{dag_id} {run_id} {task_id} to end")


def _outcome(stage: Stage, run_id: str) -> ApprovalRequest:
    state = _over(stage, DAG_ID, run_id, "export")
    request = _ended(stage, run_id)
    if request.outcome is None:
        raise DemoError(f"{DAG_ID} {run_id} is {state} without an outcome; see {stage.places.logs}")
    return request


def _ended(stage: Stage, run_id: str) -> ApprovalRequest:
    return stage.wait_for(lambda: stage.request_of(run_id), f"the request of {run_id}")


def _fresh(stage: Stage, request: ApprovalRequest) -> ApprovalRequest:
    with stage.client("alice") as client:
        return client.get_request(request.id).request


def _leftovers(published: Path) -> list[Path]:
    """Return what is at a destination, or next to it under a temporary name."""
    return [path for path in published.parent.iterdir() if published.stem in path.name]
