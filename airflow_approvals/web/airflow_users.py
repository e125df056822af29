"""Airflow's own logins: its auth manager says who calls, and which DAGs they may read."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException, Request

from airflow_approvals.core.errors import InvalidRequestError, NotAuthenticatedError
from airflow_approvals.core.identity import person_logged_in_as
from airflow_approvals.web.callers import User


class AirflowUsers:
    """The users of the Airflow that serves this app, whichever auth manager it runs."""

    async def user_of(self, request: Request) -> User:
        """Return who is logged in; a bearer token wins over the cookie, on Airflow 3.1 too."""
        from airflow.api_fastapi.core_api.security import resolve_user_from_token

        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() == "bearer":
                user = await resolve_user_from_token(token.strip())
            else:
                user = await _user_of_cookie(request)
        except HTTPException as refusal:
            raise NotAuthenticatedError("not logged in to Airflow, or no longer; log in again") from refusal
        try:
            return User(person=person_logged_in_as(user.get_name()), airflow_user=user)
        except InvalidRequestError as error:
            raise NotAuthenticatedError(f"this login cannot be used here: {error}") from error

    def may_read_dag(self, user: User, dag_id: str) -> bool:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
        from airflow.models.dag import DagModel

        details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
        return bool(
            get_auth_manager().is_authorized_dag(method="GET", details=details, user=user.airflow_user)
        )

    def readable_dags(self, user: User) -> Sequence[str]:
        from airflow.api_fastapi.app import get_auth_manager

        return sorted(get_auth_manager().get_authorized_dag_ids(user=user.airflow_user, method="GET"))


async def _user_of_cookie(request: Request) -> Any:
    from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
    from airflow.api_fastapi.core_api.security import get_user, resolve_user_from_token

    if "request" in inspect.signature(get_user).parameters:
        return await get_user(request, None, None)
    # Airflow 3.1.0 sets the cookie at login and does not read it.
    return await resolve_user_from_token(request.cookies.get(COOKIE_NAME_JWT_TOKEN))
