"""Run by alembic: our migrations, on the connection it is given or else on Airflow's own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from alembic import context

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.store.schema import VERSION_TABLE
from airflow_approvals.store.tables import metadata


def include_object(_: Any, name: str | None, kind: str, *__: Any) -> bool:
    """Return whether alembic may look at this: Airflow's own tables are none of our business."""
    return kind != "table" or name in metadata.tables


def run_offline() -> None:
    """Print the SQL."""
    context.configure(
        url=context.config.get_main_option("sqlalchemy.url"),
        target_metadata=metadata,
        literal_binds=True,
        version_table=VERSION_TABLE,
        include_object=include_object,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Change the database."""
    with ExitStack() as stack:
        connection = context.config.attributes.get("connection")
        if connection is None:
            from airflow.settings import engine

            if engine is None:
                raise ConfigurationError(
                    "metadata database: Airflow has no engine for it; run `airflow db migrate`"
                )
            connection = stack.enter_context(engine.connect())
        context.configure(
            connection=connection,
            target_metadata=metadata,
            compare_type=True,
            compare_server_default=True,
            render_as_batch=True,
            transaction_per_migration=True,
            version_table=VERSION_TABLE,
            include_object=include_object,
        )
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
