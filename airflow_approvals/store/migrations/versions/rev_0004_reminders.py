"""When people are told again that a request waits.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from airflow_approvals.store.tables import UtcTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE, COLUMN = "approvals_request", "next_notice_at"
INDEX = "ix_approvals_request_state_next_notice_at"


def upgrade() -> None:
    # SQLite has no transaction around DDL, and a run that was cut off is begun again.
    if context.is_offline_mode() or COLUMN not in _columns():
        op.add_column(TABLE, sa.Column(COLUMN, UtcTime(), nullable=True))
    op.create_index(INDEX, TABLE, ["state", COLUMN], if_not_exists=True)


def downgrade() -> None:
    op.drop_index(INDEX, TABLE)
    op.drop_column(TABLE, COLUMN)


def _columns() -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(TABLE)}
