"""Lineage events on their way, and how far the ledger was read for them.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_approvals.store.tables import UtcTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # "If not exists": SQLite has no transaction around DDL, and a run that was cut off is begun again.
    op.create_table(
        "approvals_lineage_cursor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("lease", sa.String(36), nullable=True),
        sa.Column("leased_until", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_approvals_lineage_cursor"),
        if_not_exists=True,
    )
    op.create_table(
        "approvals_lineage_event",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("queued_at", UtcTime(), nullable=False),
        sa.Column("sent_at", UtcTime(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", UtcTime(), nullable=False),
        sa.Column("problem", sa.String(500), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_approvals_lineage_event"),
        sa.UniqueConstraint("run_id", "key", name="uq_approvals_lineage_event_run_id_key"),
        if_not_exists=True,
    )
    op.create_index(
        "ix_approvals_lineage_event_state_id", "approvals_lineage_event", ["state", "id"], if_not_exists=True
    )


def downgrade() -> None:
    op.drop_table("approvals_lineage_event")
    op.drop_table("approvals_lineage_cursor")
