"""Deliveries to chats, accounts that are linked to logins, signatures that were seen.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_approvals.store.tables import UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # "If not exists": SQLite has no transaction around DDL, and a run that was cut off is begun again.
    _create_deliveries()
    _create_identities()


def downgrade() -> None:
    for table in (
        "approvals_seen_signature",
        "approvals_link_code",
        "approvals_identity_link",
        "approvals_delivery_pace",
        "approvals_delivery",
        "approvals_delivery_cursor",
    ):
        op.drop_table(table)


def _create_deliveries() -> None:
    op.create_table(
        "approvals_delivery_cursor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_approvals_delivery_cursor"),
        if_not_exists=True,
    )
    op.create_table(
        "approvals_delivery",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("channel", sa.String(250), nullable=False),
        sa.Column("entry", sa.BigInteger(), nullable=False),
        sa.Column("wanted", sa.BigInteger(), nullable=False),
        sa.Column("shown", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.JSON(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", UtcTime(), nullable=False),
        sa.Column("is_dead", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.String(500), nullable=False),
        sa.Column("lease", sa.String(36), nullable=True),
        sa.Column("leased_until", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_approvals_delivery"),
        sa.UniqueConstraint(
            "request_id", "channel", "entry", name="uq_approvals_delivery_request_id_channel_entry"
        ),
        if_not_exists=True,
    )
    _create_index("approvals_delivery", ["is_dead", "next_try_at"])
    op.create_table(
        "approvals_delivery_pace",
        sa.Column("channel", sa.String(250), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("free_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "kind", name="pk_approvals_delivery_pace"),
        if_not_exists=True,
    )


def _create_identities() -> None:
    op.create_table(
        "approvals_identity_link",
        sa.Column("provider", sa.String(20), nullable=False),
        sa.Column("team_id", sa.String(250), nullable=False),
        sa.Column("user_id", sa.String(250), nullable=False),
        sa.Column("person", sa.String(250), nullable=False),
        sa.Column("linked_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "team_id", "user_id", name="pk_approvals_identity_link"),
        if_not_exists=True,
    )
    _create_index("approvals_identity_link", ["person"])
    op.create_table(
        "approvals_link_code",
        sa.Column("provider", sa.String(20), nullable=False),
        sa.Column("team_id", sa.String(250), nullable=False),
        sa.Column("user_id", sa.String(250), nullable=False),
        sa.Column("code_sha256", sa.String(64), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "team_id", "user_id", name="pk_approvals_link_code"),
        sa.UniqueConstraint("code_sha256", name="uq_approvals_link_code_code_sha256"),
        if_not_exists=True,
    )
    op.create_table(
        "approvals_seen_signature",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("seen_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_approvals_seen_signature"),
        if_not_exists=True,
    )
    _create_index("approvals_seen_signature", ["seen_at"])


def _create_index(table: str, columns: list[str]) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns, if_not_exists=True)
