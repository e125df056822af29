"""The plugin through which Airflow's API server finds the approvals app."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin


class ApprovalsPlugin(AirflowPlugin):
    """Mounts the approvals app under /approvals, and puts its pages into Airflow's own."""

    name = "approvals"

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]  # Airflow declares a class attribute
        # Only the API server reads this, so workers never import FastAPI or SQL models.
        return [{"name": "approvals", "url_prefix": "/approvals", "app": self._app}]

    @cached_property
    def fastapi_root_middlewares(self) -> list[Any]:  # type: ignore[override]  # Airflow declares a class attribute
        from airflow_approvals.enforcement.joined import root_middlewares

        return root_middlewares(self._app.state.backend)

    @cached_property
    def _app(self) -> Any:
        from airflow_approvals.wiring import build_app

        return build_app()

    @cached_property
    def external_views(self) -> list[Any]:  # type: ignore[override]  # Airflow declares a class attribute
        from airflow.configuration import conf

        # Airflow may be served below a path; it puts the address into its frame as it stands here.
        below = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        task = "{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}"
        return [
            {
                "name": "Approvals",
                "href": f"{below}/approvals/",
                "destination": "nav",
                "url_route": "approvals",
                "nav_top_level": True,  # 3.3; a 3.1 lists it under Plugins' own menu
            },
            {
                "name": "Approval",
                "href": f"{below}/approvals/task-instances/{task}",
                "destination": "task_instance",
                "url_route": "approval",
            },
        ]
