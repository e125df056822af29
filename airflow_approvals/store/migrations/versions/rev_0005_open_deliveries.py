"""Indexes of what is still to be sent: what was sent long ago is not looked through every second.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLE = "approvals_delivery"
EVENTS = "approvals_lineage_event"


def upgrade() -> None:
    # "If (not) exists": SQLite has no transaction around DDL, and a run that was cut off is begun again.
    op.create_index(
        "ix_approvals_delivery_open",
        TABLE,
        ["next_try_at"],
        if_not_exists=True,
        sqlite_where=sa.text("is_dead IS 0 AND wanted > shown"),
        postgresql_where=sa.text("is_dead IS false AND wanted > shown"),
    )
    op.create_index(
        "ix_approvals_delivery_dead",
        TABLE,
        ["id"],
        if_not_exists=True,
        sqlite_where=sa.text("is_dead = 1"),
        postgresql_where=sa.text("is_dead"),
    )
    op.drop_index("ix_approvals_delivery_is_dead_next_try_at", TABLE, if_exists=True)
    op.create_index(
        "ix_approvals_lineage_event_state_sent_at", EVENTS, ["state", "sent_at"], if_not_exists=True
    )


def downgrade() -> None:
    op.drop_index("ix_approvals_lineage_event_state_sent_at", EVENTS)
    op.create_index("ix_approvals_delivery_is_dead_next_try_at", TABLE, ["is_dead", "next_try_at"])
    op.drop_index("ix_approvals_delivery_dead", TABLE)
    op.drop_index("ix_approvals_delivery_open", TABLE)
