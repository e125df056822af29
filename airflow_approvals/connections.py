"""Airflow's connections, as a server process finds them on every Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


def find_connection(conn_id: str) -> Connection:
    """Return the connection; raises what Airflow raises, `AirflowNotFoundException` when there is none."""
    from airflow.providers.common.compat.sdk import BaseHook

    try:
        return BaseHook.get_connection(conn_id)
    except ImportError:
        # Airflow 3.1.0 asks a task's supervisor for what stands in its own database; servers have none.
        from airflow.models.connection import Connection as Stored

        return cast("Connection", Stored.get_connection_from_secrets(conn_id))
