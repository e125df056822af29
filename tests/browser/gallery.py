"""A site with a few days of history: what the browser tests and the screenshots look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from airflow_approvals.channels.outbox import Deliveries
from airflow_approvals.core.canonical import digest_of, sha256_hex
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    Column,
    Evidence,
    FileDigest,
    Snapshot,
    Verdict,
    to_json,
)
from airflow_approvals.service import Opening
from airflow_approvals.web.app import create_app
from airflow_approvals.wiring import build_channels
from tests.web.site import Site

POLICY = """
version: 1
groups:
  data-stewards: {users: [alice, bob]}
  security: {users: [carol]}
  oncall: {users: [dana]}
  admins: {users: [root]}
channels:
  data-approvals: {kind: slack, conn_id: slack_approvals, channel: C0123456}
  stewards: {kind: email, conn_id: smtp_default, to: [data-stewards@example.com]}
  on-call: {kind: webhook, conn_id: on_call}
policies:
  - name: partner-export
    match: {action: [export], destination: ["s3://partner-*/**"]}
    require:
      - {group: data-stewards}
      - {group: security, when: "pii.residual > 0 || dataset.rows > 1000"}
    expires_after: 4h
    receipt_valid_for: 30m
    notify: [data-approvals, stewards]
    remind_every: 20m
    escalate: {after: 25m, to: security, notify: [on-call]}
  - name: payroll-export
    match: {action: [export], destination: ["s3://bank-*/**"]}
    require: [{group: data-stewards}]
    high_risk: true
    break_glass: {group: oncall}
  - name: daily-feed
    match: {action: [export], destination: ["s3://feed-*/**"]}
    require: [{group: data-stewards}]
    standing: {max_days: 30, void_on: [schema, residual_pii, "rows > 1.2x"]}
  - name: schema-change
    match: {action: [alter]}
    require: [{group: security}]
    break_glass: {group: oncall}
  - name: internal-write
    match: {action: [write, delete, grant]}
    require: [{group: data-stewards}]
    expires_after: 24h
"""

COLUMNS = (
    ("customer_id", "int64", False),
    ("full_name", "string", True),
    ("email", "string", True),
    ("phone", "string", True),
    ("city", "string", True),
    ("notes", "string", True),
    ("signed_up", "date32[day]", True),
    ("lifetime_value", "double", True),
)
FOUND = {
    "full_name": {"PERSON": 4931},
    "email": {"EMAIL_ADDRESS": 5184},
    "phone": {"PHONE_NUMBER": 4702},
    "city": {"LOCATION": 3120},
    "notes": {"PERSON": 412, "PHONE_NUMBER": 96, "EMAIL_ADDRESS": 31},
}


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The site, and the requests in it that tests go to."""

    site: Site
    pending: ApprovalRequest  # two groups must answer, one question is open
    completed: ApprovalRequest
    high_risk: ApprovalRequest  # asks twice before an approval counts
    standing: ApprovalRequest  # in force, and has let one run out
    emergency: ApprovalRequest  # granted by dana alone; carol should look at it


def hang(folder: Path) -> Gallery:
    """Make the site; nothing is served yet."""
    site = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    site.policy_file.write_text(POLICY, encoding="utf-8")
    now = datetime.now(UTC)
    completed = _completed(site, at=now - timedelta(days=7))
    _denied(site, at=now - timedelta(days=2))
    ask(site, rows=310, name="suppliers", dag_id="supplier_feed", at=now - timedelta(hours=2))
    ask(
        site,
        kind="delete",
        name="sessions_2023",
        destination="sql://warehouse/web.sessions_2023",
        dag_id="retention",
        task_id="drop_expired",
        why="Retention period of three years is over, ticket PRIV-318.",
        at=now - timedelta(hours=5),
    )
    standing = _standing(site, at=now - timedelta(days=4))
    emergency = _emergency(site, at=now - timedelta(minutes=10))
    high_risk = ask(
        site,
        rows=412,
        name="payroll_november",
        destination="s3://bank-transfer/payroll/2026-11.parquet",
        dag_id="payroll",
        why="Salaries of November, checked by finance.",
        at=now - timedelta(minutes=41),
    )
    pending = ask(site, rows=5210, at=now - timedelta(minutes=26))
    service = site.service
    service.ask(
        person_named("alice"),
        pending.id,
        "Is the notes column part of the contract with the partner?",
        channel=Channel.PAGE,
        now=now - timedelta(minutes=14),
    )
    service.remind_due(now=now - timedelta(minutes=5))
    _tell(site, completed, now=now - timedelta(minutes=5))
    return Gallery(
        site=site,
        pending=pending,
        completed=completed,
        high_risk=high_risk,
        standing=standing,
        emergency=emergency,
    )


def _tell(site: Site, unlucky: ApprovalRequest, *, now: datetime) -> None:
    """Have the channels told, but for one mail, whose server said no; nothing is ever really sent."""
    channels = build_channels(site.service, site.settings)
    outbox = channels.deliveries.outbox
    while channels.deliveries.plan(now=now):
        pass
    for second in range(600):
        at = now + timedelta(seconds=second)
        while (found := outbox.claim(now=at, lease="gallery")) is not None:
            if (found.channel, found.request_id) == ("stewards", unlucky.id):
                long_ago, problem = at - timedelta(days=8), "the mail server says 550"
                outbox.failed(found, lease="gallery", problem=problem, refused=True, now=long_ago)
            else:
                outbox.done(found, lease="gallery", place={"told": "all"}, now=at)
    still = replace(channels, deliveries=Deliveries(site.service, outbox, {}), kinds=frozenset())
    site.app = create_app(lambda: site.service, site.settings, site.users, lambda _: still)


def ask(
    site: Site,
    *,
    name: str = "customers",
    rows: int = 5210,
    kind: str = "export",
    destination: str | None = None,
    dag_id: str = "customer_export",
    task_id: str = "publish",
    why: str = "Monthly feed for the loyalty programme, contract 2024-117.",
    at: datetime | None = None,
    asked_by: str = "engineer",
    columns: tuple[tuple[str, str, bool], ...] = COLUMNS,
    pii: dict[str, Any] | None = None,
    links: tuple[str, ...] = (),
) -> ApprovalRequest:
    """Open a request as a running task of `asked_by` does."""
    at = at or datetime.now(UTC)
    ti_id = site.add_task(
        dag_id=dag_id, run_id=f"manual__{at:%Y-%m-%dT%H:%M:%S}+00:00", task_id=task_id, triggered_by=asked_by
    )
    opening = an_opening(name, rows, kind, destination, why, columns, pii, links)
    opened = site.service.open_for_task(ti_id, opening, request_id=str(uuid4()), now=at)
    return opened.request


def an_opening(
    name: str,
    rows: int,
    kind: str,
    destination: str | None,
    why: str,
    columns: tuple[tuple[str, str, bool], ...],
    pii: dict[str, Any] | None,
    links: tuple[str, ...],
) -> Opening:
    action = Action(
        kind=kind,
        source=f"file:///staging/{name}.parquet" if kind == "export" else None,
        destination=destination or f"s3://partner-acme/inbox/{name}.parquet",
        justification=why,
    )
    if kind != "export":
        return Opening(action=action, evidence=Evidence())
    digest = sha256_hex(f"{name}{rows}".encode())
    told = tuple(Column(name=column, type=kind, nullable=nullable) for column, kind, nullable in columns)
    snapshot = Snapshot(
        uri=f"file:///staging/{name}.parquet",
        format="parquet",
        sha256=digest,
        size=rows * 93,
        rows=rows,
        columns=told,
        schema_sha256=digest_of([to_json(column) for column in told]),
        files=(FileDigest(name=f"{name}.parquet", sha256=digest, size=rows * 93),),
    )
    report = {"dataset_sha256": digest, **(pii_report(rows, columns) if pii is None else pii)}
    return Opening(action=action, evidence=Evidence(datasets=(snapshot,), pii=report, links=links))


def pii_report(rows: int, columns: tuple[tuple[str, str, bool], ...] = COLUMNS) -> dict[str, Any]:
    """Return a report of masked data: found before, nothing left after."""

    def scan(found: dict[str, dict[str, int]]) -> dict[str, Any]:
        return {
            "mode": "exact",
            "rows": rows,
            "columns": [
                {
                    "column": name,
                    "type": kind,
                    "scanned": rows,
                    "cells_with_findings": min(rows, sum(found.get(name, {}).values())),
                    "entities": [
                        {"entity_type": entity, "cells": min(rows, cells)}
                        for entity, cells in found.get(name, {}).items()
                    ],
                }
                for name, kind, _ in columns
            ],
        }

    return {
        "scanned": True,
        "verified": True,
        "residual": 0,
        "engine": "Presidio 2.2.366, en_core_web_sm",
        "before": scan(FOUND),
        "after": scan({}),
    }


def approve(site: Site, request: ApprovalRequest, *names: str, at: datetime | None = None) -> ApprovalRequest:
    """Let each of `names` approve `request`."""
    for name in names:
        request = site.service.cast_vote(
            person_named(name),
            request.id,
            Verdict.APPROVE,
            reason="Matches the contract.",
            revision=request.revision,
            channel=Channel.PAGE,
            now=at or datetime.now(UTC),
        )
    return request


def _completed(site: Site, *, at: datetime) -> ApprovalRequest:
    old = tuple(column for column in COLUMNS if column[0] != "notes")
    old = tuple((name, "int64" if name == "lifetime_value" else kind, empty) for name, kind, empty in old)
    request = ask(site, rows=4984, at=at, columns=old, pii=pii_report(4984, old))
    later = at + timedelta(minutes=9)
    return publish(site, approve(site, request, "alice", "carol", at=later), at=later)


def publish(site: Site, request: ApprovalRequest, *, at: datetime) -> ApprovalRequest:
    """Let the task that asked use its approval, and end well."""
    service, ti_id = site.service, request.origin.ti_id if request.origin else ""
    service.redeem(ti_id, request.id, digest=request.action_digest, now=at + timedelta(seconds=6))
    digest = request.evidence.datasets[0].sha256
    done = service.report_outcome(
        ti_id, request.id, published=True, digest=digest, detail="", now=at + timedelta(seconds=8)
    )
    site.set_task_state(ti_id, "success")
    return done


def feed(site: Site, *, rows: int, at: datetime, dag_id: str = "daily_feed") -> ApprovalRequest:
    """Open the request of one run of the daily feed."""
    return ask(
        site,
        rows=rows,
        name="orders",
        destination="s3://feed-acme/orders.parquet",
        dag_id=dag_id,
        why="Daily feed of orders.",
        at=at,
        columns=COLUMNS[:1],
        pii=pii_report(rows, COLUMNS[:1]),
    )


def _standing(site: Site, *, at: datetime) -> ApprovalRequest:
    soon = at + timedelta(minutes=4)
    approved = publish(site, approve(site, feed(site, rows=1800, at=at), "bob", at=soon), at=soon)
    opened = site.service.open_standing(
        person_named("engineer"),
        approved.id,
        days=30,
        source=None,
        destination=None,
        new_id=str(uuid4()),
        now=at + timedelta(hours=1),
    )
    standing = approve(site, opened.request, "alice", at=at + timedelta(hours=2))
    for day, rows in enumerate((1910, 1874, 1902), start=1):
        publish(site, feed(site, rows=rows, at=at + timedelta(days=day)), at=at + timedelta(days=day))
    return standing


def _emergency(site: Site, *, at: datetime) -> ApprovalRequest:
    request = ask(
        site,
        kind="alter",
        name="orders",
        destination="sql://warehouse/sales.orders",
        dag_id="repair",
        task_id="add_column",
        why="Loads have failed since 02:40 because the column is missing.",
        at=at,
    )
    return site.service.break_glass(
        person_named("dana"),
        request.id,
        reason="Loads fail, and nobody of security answers at 3 a.m.",
        revision=1,
        channel=Channel.PAGE,
        now=at + timedelta(minutes=2),
    )


def _denied(site: Site, *, at: datetime) -> None:
    request = ask(site, name="leads", rows=880, dag_id="lead_export", at=at)
    site.service.cast_vote(
        person_named("bob"),
        request.id,
        Verdict.DENY,
        reason="The partner has no contract for leads.",
        revision=1,
        channel=Channel.PAGE,
        now=at + timedelta(minutes=3),
    )
