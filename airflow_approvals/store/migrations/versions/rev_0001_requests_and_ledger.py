"""Requests, idempotency keys, slots and the append-only ledger.

Revision ID: 0001
Revises: none
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_approvals.store.append_only import guard_statements, unguard_statements
from airflow_approvals.store.tables import UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_requests()
    _create_ledger()
    for statement in guard_statements(op.get_context().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    for table in (
        "approvals_checkpoint",
        "approvals_ledger_head",
        "approvals_ledger_node",
        "approvals_ledger_entry",
        "approvals_idempotency_key",
        "approvals_slot",
        "approvals_requester",
        "approvals_request",
    ):
        op.drop_table(table)
    for statement in unguard_statements(op.get_context().dialect.name):
        op.execute(statement)


def _create_requests() -> None:
    # "If not exists": SQLite has no transaction around DDL, and a run that was cut off is begun again.
    op.create_table(
        "approvals_request",
        sa.Column("seq", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("slot", sa.String(64), nullable=True),
        sa.Column("dag_id", sa.String(250), nullable=True),
        sa.Column("run_id", sa.String(250), nullable=True),
        sa.Column("task_id", sa.String(250), nullable=True),
        sa.Column("map_index", sa.Integer(), nullable=True),
        sa.Column("gate", sa.String(250), nullable=False),
        sa.Column("policy", sa.String(250), nullable=False),
        sa.Column("opened_at", UtcTime(), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.Column("receipt_expires_at", UtcTime(), nullable=True),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_approvals_request"),
        sa.UniqueConstraint("id", name="uq_approvals_request_id"),
        if_not_exists=True,
    )
    for columns in (
        ["slot", "seq"],
        ["state", "expires_at"],
        ["state", "receipt_expires_at"],
        ["dag_id", "run_id"],
        ["policy"],
    ):
        _create_index("approvals_request", columns)
    op.create_table(
        "approvals_requester",
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("person", sa.String(250), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "person", name="pk_approvals_requester"),
        sa.ForeignKeyConstraint(
            ["request_id"], ["approvals_request.id"], name="fk_approvals_requester_request_id"
        ),
        if_not_exists=True,
    )
    _create_index("approvals_requester", ["person"])
    op.create_table(
        "approvals_slot",
        sa.Column("slot", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("slot", name="pk_approvals_slot"),
        if_not_exists=True,
    )
    op.create_table(
        "approvals_idempotency_key",
        sa.Column("caller", sa.String(600), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("caller", "key", name="pk_approvals_idempotency_key"),
        if_not_exists=True,
    )


def _create_ledger() -> None:
    op.create_table(
        "approvals_ledger_entry",
        sa.Column("idx", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(100), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("idx", name="pk_approvals_ledger_entry"),
        if_not_exists=True,
    )
    _create_index("approvals_ledger_entry", ["request_id"])
    _create_index("approvals_ledger_entry", ["kind", "idx"])
    op.create_table(
        "approvals_ledger_node",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("idx", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "idx", name="pk_approvals_ledger_node"),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_table(
        "approvals_ledger_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("peaks", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_approvals_ledger_head"),
        if_not_exists=True,
    )
    op.create_table(
        "approvals_checkpoint",
        sa.Column("size", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("size", name="pk_approvals_checkpoint"),
        if_not_exists=True,
    )


def _create_index(table: str, columns: list[str]) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns, if_not_exists=True)
