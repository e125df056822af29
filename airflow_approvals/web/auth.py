"""Who is behind a call: every route asks here first, before it reads a body."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.routing import APIRoute

from airflow_approvals.core.errors import NotAllowedError, NotAuthenticatedError
from airflow_approvals.core.worker_token import (
    WorkerClaims,
    is_worker_token,
    verify_worker_token,
    worker_key,
)
from airflow_approvals.web.backend import Backend, now
from airflow_approvals.web.callers import Caller, Users
from airflow_approvals.web.problems import PRIVATE

LINEAGE_PATH = "/api/v1/lineage/events"
"""The one route that a lineage token opens."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CUSTOM_HEADER = "x-requested-with"
"""A page of another origin cannot send it without asking first, and is told no."""


class AuthenticatedRoute(APIRoute):
    """A route that nobody gets into without a login or a worker token."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def authenticated(request: Request) -> Response:
            request.state.approvals_caller = await authenticate(request)
            response = await handle(request)
            response.headers.update(PRIVATE)
            return response

        return authenticated


def caller_of(request: Request) -> Caller:
    """Return who calls, as `AuthenticatedRoute` found out."""
    caller: Caller = request.state.approvals_caller
    return caller


async def authenticate(request: Request) -> Caller:
    """Return who calls, or raise `NotAuthenticatedError`.

    An explicit credential wins over the cookie that a browser sends along; and only what came by cookie needs
    protection against forged calls from other pages.
    """
    token = _bearer_of(request)
    if token is not None and is_worker_token(token):
        return _worker(request, token)
    users: Users = request.app.state.users
    user = await users.user_of(request)
    if token is None and request.method not in SAFE_METHODS:
        check_same_origin(request)
    return user


def check_same_origin(request: Request) -> None:
    """Raise `NotAllowedError` unless a page of this server made the call, and not a form elsewhere."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    backend: Backend = request.app.state.backend
    # Behind a proxy the Host header may be an inner name: the configured address is ours as well.
    own = {request.headers.get("host"), urlsplit(backend.settings.base_url).netloc}
    foreign = origin is not None and urlsplit(origin).netloc not in own
    if content_type != "application/json" or CUSTOM_HEADER not in request.headers or foreign:
        raise NotAllowedError(
            "a call with a login cookie must be JSON from a page of this server and carry X-Requested-With; "
            "programs send a bearer token instead"
        )
    if site not in ("same-origin", "none"):
        raise NotAllowedError(
            "a call with a login cookie came from another site; open Airflow and answer there"
        )


def _worker(request: Request, token: str) -> WorkerClaims:
    backend: Backend = request.app.state.backend
    claims = verify_worker_token(token, worker_key(backend.settings.worker_secret), now=now())
    if claims.scope == "read" and request.method not in SAFE_METHODS:
        raise NotAllowedError("the triggerer's token reads, and nothing else")
    if claims.scope == "lineage" and not request.url.path.endswith(LINEAGE_PATH):
        raise NotAllowedError("a lineage token tells lineage events, and nothing else")
    return claims


def _bearer_of(request: Request) -> str | None:
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticatedError("the Authorization header holds no bearer token; log in, or send one")
    return token.strip()
