"""The plugin through which Airflow's API server finds the approvals app."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class ApprovalsPlugin(AirflowPlugin):
    """Mounts the approvals API under /approvals."""

    name = "approvals"

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]  # Airflow declares a class attribute
        # Only the API server reads this, so workers never import FastAPI or SQL models.
        from airflow_approvals.wiring import build_app

        return [{"name": "approvals", "url_prefix": "/approvals", "app": build_app()}]
