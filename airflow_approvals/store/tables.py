"""The tables this package keeps in Airflow's metadata database, all of them named `approvals_...`.

A request is stored whole, as JSON; its columns repeat only what is searched, sorted and locked by.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.types import TypeDecorator

from airflow_approvals.store.append_only import create_guards, drop_guards

KEY_LENGTH = 255
"""Characters of an Idempotency-Key."""
CALLER_LENGTH = 600
"""Characters of whoever sent it: a person, or a worker's DAG and task (each at most 250 in Airflow)."""
ID_LENGTH = 250
"""Characters of a DAG, run or task id in Airflow."""
PROBLEM_LENGTH = 500
"""Characters of why a delivery failed."""


class UtcTime(TypeDecorator[datetime]):
    """An aware time, kept in UTC: SQLite's text and PostgreSQL's timestamptz then order in the same way."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # SQLite keeps no offset; what was written there is UTC.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


BigId = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere; only a column declared INTEGER is SQLite's row id."""

OPEN_DELIVERY = {
    "sqlite": "is_dead IS 0 AND wanted > shown",
    "postgresql": "is_dead IS false AND wanted > shown",
}
DEAD_DELIVERY = {"sqlite": "is_dead = 1", "postgresql": "is_dead"}
"""Conditions word for word as the outbox asks them: SQLite uses a partial index for nothing else."""


def partial_index(name: str, *columns: str, where: Mapping[str, str]) -> Index:
    """Return an index of the rows that fit `where`, said for each database."""
    return Index(
        name, *columns, sqlite_where=text(where["sqlite"]), postgresql_where=text(where["postgresql"])
    )


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

requests = Table(
    "approvals_request",
    metadata,
    # Order of arrival: two requests can be opened within one tick of the clock.
    Column("seq", BigId, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("state", String(20), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("slot", String(64), nullable=True),
    Column("dag_id", String(ID_LENGTH), nullable=True),
    Column("run_id", String(ID_LENGTH), nullable=True),
    Column("task_id", String(ID_LENGTH), nullable=True),
    Column("map_index", Integer, nullable=True),
    Column("gate", String(ID_LENGTH), nullable=False),
    Column("policy", String(ID_LENGTH), nullable=False),
    Column("opened_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("receipt_expires_at", UtcTime, nullable=True),
    Column("document", JSON, nullable=False),
    Column("next_notice_at", UtcTime, nullable=True),
    Index(None, "slot", "seq"),
    Index(None, "state", "expires_at"),
    Index(None, "state", "receipt_expires_at"),
    Index(None, "state", "next_notice_at"),
    Index(None, "dag_id", "run_id"),
    Index(None, "policy"),
)

requesters = Table(
    "approvals_requester",
    metadata,
    Column("request_id", String(36), ForeignKey(requests.c.id), primary_key=True),
    Column("person", String(ID_LENGTH), primary_key=True),
    Index(None, "person"),
)

# One row per gate that ever asked: something to lock before there is a request.
slots = Table("approvals_slot", metadata, Column("slot", String(64), primary_key=True))

idempotency_keys = Table(
    "approvals_idempotency_key",
    metadata,
    Column("caller", String(CALLER_LENGTH), primary_key=True),
    Column("key", String(KEY_LENGTH), primary_key=True),
    Column("request_id", String(36), nullable=False),
    Column("body_sha256", String(64), nullable=False),
)

ledger_entries = Table(
    "approvals_ledger_entry",
    metadata,
    Column("idx", BigId, primary_key=True, autoincrement=False),
    Column("kind", String(100), nullable=False),
    Column("request_id", String(36), nullable=True),
    Column("body", LargeBinary, nullable=False),  # canonical JSON, as it was hashed
    Index(None, "request_id"),
    Index(None, "kind", "idx"),
)

ledger_nodes = Table(
    "approvals_ledger_node",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("idx", BigId, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# One row, locked by whoever appends.
ledger_head = Table(
    "approvals_ledger_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("peaks", LargeBinary, nullable=False),  # 32 bytes each, largest subtree first
)

checkpoints = Table(
    "approvals_checkpoint",
    metadata,
    Column("size", BigId, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
)

# How far the ledger was read for what has to be told outside; one row.
delivery_cursor = Table(
    "approvals_delivery_cursor",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, nullable=False),
)

deliveries = Table(
    "approvals_delivery",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("request_id", String(36), nullable=False),
    Column("channel", String(ID_LENGTH), nullable=False),
    Column("entry", BigInteger, nullable=False),  # -1: the prompt; else the entry that a note tells
    Column("wanted", BigInteger, nullable=False),
    Column("shown", BigInteger, nullable=False),
    Column("place", JSON(none_as_null=True), nullable=True),
    Column("tries", Integer, nullable=False),
    Column("next_try_at", UtcTime, nullable=False),
    Column("is_dead", Boolean, nullable=False),
    Column("problem", String(PROBLEM_LENGTH), nullable=False),
    Column("lease", String(36), nullable=True),
    Column("leased_until", UtcTime, nullable=True),
    UniqueConstraint("request_id", "channel", "entry"),
    # What is to be sent and what was given up are looked for every second, among all that was ever sent.
    partial_index("ix_approvals_delivery_open", "next_try_at", where=OPEN_DELIVERY),
    partial_index("ix_approvals_delivery_dead", "id", where=DEAD_DELIVERY),
)

# One row per channel and kind of call; locked by whoever takes a delivery of it.
delivery_paces = Table(
    "approvals_delivery_pace",
    metadata,
    Column("channel", String(ID_LENGTH), primary_key=True),
    Column("kind", String(10), primary_key=True),  # post, update
    Column("free_at", UtcTime, nullable=False),
)

identity_links = Table(
    "approvals_identity_link",
    metadata,
    Column("provider", String(20), primary_key=True),
    Column("team_id", String(ID_LENGTH), primary_key=True),
    Column("user_id", String(ID_LENGTH), primary_key=True),
    Column("person", String(ID_LENGTH), nullable=False),
    Column("linked_at", UtcTime, nullable=False),
    Index(None, "person"),
)

link_codes = Table(
    "approvals_link_code",
    metadata,
    Column("provider", String(20), primary_key=True),
    Column("team_id", String(ID_LENGTH), primary_key=True),
    Column("user_id", String(ID_LENGTH), primary_key=True),
    Column("code_sha256", String(64), nullable=False, unique=True),
    Column("expires_at", UtcTime, nullable=False),
)

# How far the ledger was read for lineage, and which process sends its events; one row.
lineage_cursor = Table(
    "approvals_lineage_cursor",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, nullable=False),
    Column("lease", String(36), nullable=True),
    Column("leased_until", UtcTime, nullable=True),
)

# Events on their way; those that were sent are remembered, so that a repeated one is known.
lineage_events = Table(
    "approvals_lineage_event",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("run_id", String(36), nullable=False),
    Column("key", String(KEY_LENGTH), nullable=False),  # START, COMPLETE, ...: once for each run
    Column("state", String(10), nullable=False),  # queued, aside, sent, refused
    Column("body", Text, nullable=True),  # JSON; gone once it was sent
    Column("queued_at", UtcTime, nullable=False),
    Column("sent_at", UtcTime, nullable=True),
    Column("tries", Integer, nullable=False),
    Column("next_try_at", UtcTime, nullable=False),
    Column("problem", String(PROBLEM_LENGTH), nullable=False),
    UniqueConstraint("run_id", "key"),
    Index(None, "state", "id"),
    Index(None, "state", "sent_at"),
)

# Signatures that were taken, until they are too old to be sent again.
seen_signatures = Table(
    "approvals_seen_signature",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("seen_at", UtcTime, nullable=False),
    Index(None, "seen_at"),
)


@event.listens_for(metadata, "after_create")
def _guard(_: MetaData, connection: Connection, **__: Any) -> None:
    create_guards(connection)


@event.listens_for(metadata, "after_drop")
def _unguard(_: MetaData, connection: Connection, **__: Any) -> None:
    drop_guards(connection)
