"""What `doctor` finds out about enforcement: each way around it, as far as it can be seen from here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.core.gated_rules import GateRule
from airflow_approvals.core.lending import Kind
from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.core.policy import PolicyFile
from airflow_approvals.core.policy_gates import find_protection
from airflow_approvals.enforcement.answers import GATE
from airflow_approvals.enforcement.in_force import EndedRun, answered_questions, ended_runs
from airflow_approvals.enforcement.joined import open_vault_of
from airflow_approvals.enforcement.rules_file import read_rules
from airflow_approvals.enforcement.sealing import Secret, all_secrets
from airflow_approvals.ports import RequestFilter, Store
from airflow_approvals.service.lending import last_seals
from airflow_approvals.wiring import open_store

if TYPE_CHECKING:
    from airflow_approvals.settings import Settings

Level = Literal["ok", "note", "wrong"]
USED = (State.REDEEMED, State.COMPLETED, State.FAILED)
LOOK_BACK = timedelta(days=7)
_NAMED = 10
"""So many are named; of more the count is told."""
_PAGE = 500
"""Requests of one task instance that are looked at: one for each of its tries and gates."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    level: Level
    text: str


def examine_enforcement(settings: Settings, policy_file: PolicyFile, *, now: datetime) -> Iterator[Finding]:
    """Yield what stands of the gates and seals that the policy file asks for, and what can go around them."""
    secrets = all_secrets()
    yield from _seals(settings, secrets)
    yield from _unsealed(policy_file, secrets)
    yield from _shadows(policy_file, secrets, os.environ)
    if any(secret.sealed for secret in secrets) or policy_file.protected_connections:
        yield from _surroundings()
    yield from _gates(settings, now=now)
    if settings.govern_hitl:
        yield from _answers(now=now)


def _seals(settings: Settings, secrets: Iterable[Secret]) -> Iterator[Finding]:
    broken = [f"{secret.kind} {secret.name}: {secret.problem}" for secret in secrets if secret.problem]
    sealed = [secret for secret in secrets if secret.sealed]
    if sealed:
        try:
            vault = open_vault_of(settings)
        except ApprovalsError as error:
            yield Finding(subject="seals", level="wrong", text=str(error))
            return
        with open_store() as store:
            recorded = last_seals(store)
        for secret in sealed:
            assert secret.sealed is not None  # noqa: S101  # chosen above
            try:
                vault.open(secret.sealed)
            except ApprovalsError as error:
                broken.append(str(error))
                continue
            if recorded.get((secret.kind, secret.name)) != secret.sealed.digest:
                broken.append(
                    f"{secret.kind} {secret.name}: not what the ledger says was sealed last: an older seal "
                    "was put back, or the record is missing; unseal it, check it, and seal it again"
                )
    for text in broken:
        yield Finding(subject="seals", level="wrong", text=text)
    if sealed and not broken:
        yield Finding(subject="seals", level="ok", text=f"{len(sealed)} sealed, all of them open as recorded")


def _unsealed(policy_file: PolicyFile, secrets: Iterable[Secret]) -> Iterator[Finding]:
    """Yield what is protected and not sealed: only the API server's guard stands before it."""
    names = {
        "connection": policy_file.protected_connections,
        "variable": policy_file.protected_variables,
    }
    for secret in secrets:
        if not secret.sealed and not secret.problem and find_protection(names[secret.kind], secret.name):
            option = " --variable" if secret.kind == "variable" else ""
            text = (
                f"{secret.kind} {secret.name} is protected and not sealed: the dag processor, triggers and "
                f"exports can read it; run `airflow approvals seal{option} {secret.name}`"
            )
            yield Finding(subject="seals", level="wrong", text=text)


def _shadows(
    policy_file: PolicyFile, secrets: Iterable[Secret], environment: Iterable[str]
) -> Iterator[Finding]:
    """Yield environment variables that hold a protected secret in the open."""
    known = {(secret.kind, secret.name.upper()): secret for secret in secrets}
    prefix: str
    kind: Kind
    for kind, prefix in (("connection", "AIRFLOW_CONN_"), ("variable", "AIRFLOW_VAR_")):
        protected = (
            policy_file.protected_connections if kind == "connection" else policy_file.protected_variables
        )
        for name in sorted(name for name in environment if name.startswith(prefix)):
            own = name.removeprefix(prefix)
            secret = known.get((kind, own))
            if (secret and secret.sealed) or find_protection(protected, own.lower()):
                text = f"{name} is set here: it holds in the open what is protected; remove it everywhere"
                yield Finding(subject="environment", level="wrong", text=text)


def _surroundings() -> Iterator[Finding]:
    from airflow.configuration import conf

    for section, option in (("secrets", "backend"), ("workers", "secrets_backend")):
        backend = conf.get(section, option, fallback="")
        if backend:
            text = (
                f"[{section}] {option} is {backend.rpartition('.')[2]}: what it holds cannot be sealed, and "
                "on workers nothing of ours is asked; keep protected secrets in the metadata database"
            )
            yield Finding(subject="secrets", level="note", text=text)
    executor = str(conf.get("core", "executor", fallback=""))
    if "Local" in executor:
        text = (
            "LocalExecutor: tasks run on the machine, and as the user, that can read the sealing and signing "
            "keys; use run_as_user, or workers of their own"
        )
        yield Finding(subject="executor", level="note", text=text)


def _gates(settings: Settings, *, now: datetime) -> Iterator[Finding]:
    if settings.gated_operators == "off":
        yield Finding(subject="gates", level="note", text="[approvals] gated_operators is off here")
        return
    path = Path(settings.policy_file)
    rules = read_rules(path.read_text(encoding="utf-8"))
    if not rules:
        return
    if settings.gated_operators != "required":
        text = (
            "[approvals] gated_operators is auto: a dag processor or worker without the policy file gates "
            "nothing; set it to required"
        )
        yield Finding(subject="gates", level="note", text=text)
    missing = list(find_unapproved(rules, since=now - LOOK_BACK))
    for run in missing[:_NAMED]:
        how = "ran without its gate, or was marked" if run.was_started else "was marked successful"
        mapped = f"[{run.map_index}]" if run.map_index >= 0 else ""
        text = f"{run.dag_id}/{run.run_id}/{run.task_id}{mapped} {how}: it is gated, and used no approval"
        yield Finding(subject="gates", level="wrong", text=text)
    if len(missing) > _NAMED:
        text = f"and {len(missing) - _NAMED} more task instances without an approval"
        yield Finding(subject="gates", level="wrong", text=text)
    if not missing:
        text = f"{len(rules)} rules; every gated task of the last {LOOK_BACK.days} days used an approval"
        yield Finding(subject="gates", level="ok", text=text)


def _answers(*, now: datetime) -> Iterator[Finding]:
    """Yield what Airflow asked people and was answered around the policy, by a timeout or a trigger."""
    around = []
    with open_store() as store:
        for run, ti_id in answered_questions(since=now - LOOK_BACK):
            if not any(
                request.gate.startswith(GATE) and request.origin is not None and request.origin.ti_id == ti_id
                for request in _requests_of(store, run, (*USED, State.DENIED))
            ):
                around.append(f"{run.dag_id}/{run.run_id}/{run.task_id}")
    for name in around[:_NAMED]:
        text = f"{name}: answered without a vote, by its timeout or by a trigger, which Airflow lets answer"
        yield Finding(subject="answers", level="wrong", text=text)
    if len(around) > _NAMED:
        yield Finding(
            subject="answers", level="wrong", text=f"and {len(around) - _NAMED} more without a vote"
        )
    if not around:
        yield Finding(
            subject="answers", level="ok", text="every answer to a Human-in-the-loop task was a vote"
        )


def find_unapproved(rules: tuple[GateRule, ...], *, since: datetime) -> Iterator[EndedRun]:
    """Yield the ended task instances of gated tasks that used no approval."""
    with open_store() as store:
        for run in ended_runs(rules, since=since):
            if not _requests_of(store, run, USED):
                yield run


def _requests_of(store: Store, run: EndedRun, states: tuple[State, ...]) -> Sequence[ApprovalRequest]:
    """Return the requests of a task instance in these states, newest first."""
    wanted = RequestFilter(
        states=states,
        dag_id=run.dag_id,
        run_id=run.run_id,
        task_id=run.task_id,
        map_index=run.map_index,
        limit=_PAGE,
    )
    return store.list_requests(wanted).requests
