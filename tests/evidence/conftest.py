"""A ledger in which everything that a report must tell has happened, and the package made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_approvals.core.canonical import sha256_hex
from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    Column,
    Evidence,
    FileDigest,
    Person,
    Snapshot,
    Verdict,
)
from airflow_approvals.core.policy import parse_policy_file
from airflow_approvals.evidence.ledger_file import Period
from airflow_approvals.evidence.package import LEDGER, Package, make_package
from airflow_approvals.service import Opening
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from airflow_approvals.web.export import export_chunks, receipt_lines
from airflow_approvals.web.ledger import ensure_checkpoint
from tests.test_service import World

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORIGIN = "evidence.example/approvals"
POLICY = """
version: 1
groups:
  stewards: {users: [alice, bob]}
  security: {users: [carol]}
  oncall: {users: [dana]}
  selfish: {users: [erin]}
  admins: {users: [root]}
policies:
  - name: partner-export
    match: {action: [export], destination: ["file:///outbox/**"]}
    require: [{group: stewards}, {group: security, when: "dataset.rows > 2000"}]
    expires_after: 4h
    receipt_valid_for: 30m
    standing: {max_days: 30, void_on: [schema, residual_pii, "rows > 1.2x"]}
    break_glass: {group: oncall}
  - name: own
    match: {action: [rotate_key]}
    require: [{group: selfish}]
    self_approval: allowed
"""


def a_dataset(name: str = "customers", rows: int = 1000) -> Snapshot:
    digest = sha256_hex(f"{name} {rows}".encode())
    return Snapshot(
        uri=f"file:///staged/{name}.parquet",
        format="parquet",
        sha256=digest,
        size=rows * 40,
        rows=rows,
        columns=(Column(name="id", type="int64"), Column(name="email", type="string")),
        schema_sha256="5" * 64,
        files=(FileDigest(name=f"{name}.parquet", sha256=digest, size=rows * 40),),
    )


def a_pii(dataset: Snapshot) -> dict[str, Any]:
    found = {
        "column": "email",
        "type": "string",
        "scanned": dataset.rows,
        "cells_with_findings": dataset.rows,
    }
    entity = {"entity_type": "EMAIL_ADDRESS", "findings": dataset.rows, "cells": dataset.rows}
    return {
        "dataset_sha256": dataset.sha256,
        "before": {"columns": [{**found, "entities": [entity]}]},
        "after": {"columns": [{**found, "cells_with_findings": 0, "entities": []}]},
        "scanned": True,
        "verified": True,
        "residual": 0,
        "entities": {},
    }


def an_export(name: str = "customers", rows: int = 1000, why: str = "monthly feed") -> Opening:
    dataset = a_dataset(name, rows)
    action = Action(
        kind="export",
        source=dataset.uri,
        destination=f"file:///outbox/{name}.parquet",
        justification=why,
    )
    return Opening(action=action, evidence=Evidence(datasets=(dataset,), pii=a_pii(dataset)))


class Office(World):
    """People and tasks at work."""

    def __init__(self, store: SqlStore, home: Path) -> None:
        super().__init__(store, home)
        self.policies.file = parse_policy_file(POLICY, name="policy.yaml")
        self.service.record_key(now=self.now)
        self.service.record_policy(now=self.now)

    def later(self, **span: float) -> None:
        self.now += timedelta(**span)

    def task(self, **more: Any) -> str:
        return self.tasks.start(run_id=f"scheduled__{uuid4()}", **more)

    def ask(self, opening: Opening, **more: Any) -> tuple[str, ApprovalRequest]:
        ti_id = self.task(**more)
        return ti_id, self.open(ti_id, opening)

    def publish(self, ti_id: str, request: ApprovalRequest, digest: str | None = None) -> None:
        self.redeem(ti_id, request)
        found = digest or request.evidence.datasets[0].sha256
        self.service.report_outcome(ti_id, request.id, published=True, digest=found, detail="", now=self.now)

    def stands(self, request: ApprovalRequest, days: int = 10) -> ApprovalRequest:
        """Have the approval of `request` stand, on alice's vote."""
        opened = self.service.open_standing(
            Person("zoe"),
            request.id,
            days=days,
            source=None,
            destination=None,
            new_id=str(uuid4()),
            now=self.now,
        )
        return self.vote("alice", opened.request)

    def glass(
        self, request: ApprovalRequest, person: str = "dana", reason: str = "outage"
    ) -> ApprovalRequest:
        return self.service.break_glass(
            Person(person), request.id, reason=reason, revision=1, channel=Channel.CLI, now=self.now
        )


def a_busy_day(office: Office) -> None:
    """Let everything happen that a report has a list for."""
    office.later(hours=1)
    ti_id, big = office.ask(an_export("big", rows=5000, why="quarter end, as agreed"))
    with suppress(ApprovalsError):
        office.vote("engineer", big)  # a self-approval attempt
    with suppress(ApprovalsError):
        office.vote("mallory", big)
    office.service.ask(Person("alice"), big.id, "for whom?", channel=Channel.SLACK, now=office.now)
    office.service.answer_for_task(ti_id, big.id, 1, "the partner", now=office.now)
    office.vote("alice", big)
    big = office.vote("carol", big)
    office.later(minutes=1)
    office.publish(ti_id, big)

    ti_id, first = office.ask(an_export())
    first = office.vote("bob", first)
    office.publish(ti_id, first)
    office.later(minutes=5)
    office.stands(first)
    office.later(days=1)
    ti_id, covered = office.ask(an_export(rows=1100))
    office.publish(ti_id, covered)
    office.later(days=1)
    _, drifted = office.ask(an_export(rows=1201))
    office.vote("bob", drifted, Verdict.DENY)

    office.later(hours=1)
    ti_id, urgent = office.ask(an_export("urgent"))
    with suppress(ApprovalsError):
        office.glass(urgent, "engineer")
    urgent = office.glass(urgent, reason="=the partner's audit")
    office.publish(ti_id, urgent, digest="f" * 64)  # not what was approved

    own = office.service.open_for_person(
        Person("erin"),
        Opening(action=Action(kind="rotate_key", destination="vault://prod/key"), evidence=Evidence()),
        key=str(uuid4()),
        request_id=str(uuid4()),
        now=office.now,
    ).request
    office.vote("erin", own)  # allowed by this policy, and lapses unused
    office.ask(an_export("forgotten"))  # expires
    office.later(hours=5)
    office.service.expire_due(now=office.now)
    with suppress(ApprovalsError):
        office.open(office.task(), replace(an_export(), policy="own"))
    office.ask(an_export("hostile", why="<img src=x onerror=alert(1)>\u202e<script>alert(1)</script>"))


@dataclass(frozen=True, kw_only=True)
class Made:
    """A package, and the office that it tells of."""

    office: Office
    package: Package

    @property
    def folder(self) -> Path:
        return self.package.path

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return found


def package_of(office: Office, folder: Path, period: Period) -> Package:
    """Take everything out of the store as the server does, and make the package."""
    folder.mkdir()
    _, head = ensure_checkpoint(office.service, ORIGIN, now=office.now)
    with (folder / LEDGER).open("wb") as stream:
        stream.writelines(export_chunks(office.service, head))
    envelopes = folder.parent / f"{folder.name}.receipts"
    with envelopes.open("wb") as stream:
        stream.writelines(receipt_lines(office.service, first=0, last=1 << 62))
    return make_package(folder, envelopes, period, keys=None, made_at=office.now)


@contextmanager
def busy_office(home: Path) -> Iterator[Office]:
    """Give an office after a day on which all that can happen has happened."""
    store = create_store(f"sqlite:///{home / 'airflow.db'}")
    create_tables(store.engine)
    found = Office(store, home)
    a_busy_day(found)
    yield found
    store.close()


def whole_period(office: Office) -> Period:
    return Period(since=NOON - timedelta(days=1), until=office.now + timedelta(days=1))


def package_of_a_busy_day(home: Path) -> Path:
    """Return the folder of a package about that day."""
    with busy_office(home) as office:
        return package_of(office, home / "package", whole_period(office)).path


@pytest.fixture(scope="package")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with busy_office(tmp_path_factory.mktemp("office")) as found:
        yield found


@pytest.fixture(scope="package")
def whole(office: Office) -> Period:
    return whole_period(office)


@pytest.fixture(scope="package")
def made(office: Office, whole: Period, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(office=office, package=package_of(office, tmp_path_factory.mktemp("out") / "package", whole))


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """Return a copy of the package that a test may spoil."""
    return Path(shutil.copytree(made.folder, tmp_path / "package"))
