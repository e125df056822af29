"""What holds for every page: a login first, errors as pages, and headers that keep other sites out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from airflow_approvals.core.errors import ApprovalsError, NotAuthenticatedError, RequestNotFoundError
from airflow_approvals.web.auth import SAFE_METHODS
from airflow_approvals.web.callers import Users
from airflow_approvals.web.pages.csrf import keep_seed
from airflow_approvals.web.pages.render import airflow_root_of, render
from airflow_approvals.web.problems import problem_of, status_of

LOGIN = "/api/v2/auth/login"
"""Airflow's own door: it sends people on to the login of whichever auth manager there is."""

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_LOGGED_OUT = NotAuthenticatedError(
    "your login has ended, so nothing was recorded; log in in another tab, then go back here and answer again"
)


class PageRoute(APIRoute):
    """A page that nobody sees without a login; who has none is sent to get one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            response = await _answer(request, handle)
            keep_seed(request, response)
            for name, value in HEADERS.items():
                response.headers[name] = value
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers.setdefault("Vary", "Cookie")
            return response

        return page


async def _answer(request: Request, handle: Callable[[Request], Coroutine[Any, Any, Response]]) -> Response:
    users: Users = request.app.state.users
    try:
        request.state.approvals_caller = await users.user_of(request)
    except NotAuthenticatedError as refusal:
        if not _is_navigation(request):
            return problem_of(request, refusal)
        return _to_login(request) if request.method in SAFE_METHODS else error_page(request, _LOGGED_OUT)
    try:
        return await handle(request)
    except ApprovalsError as error:
        return error_page(request, error)
    except RequestValidationError:
        # An address that cannot be one of ours; what stands in it is not repeated.
        return error_page(
            request, RequestNotFoundError("there is no such page; check the address, or start from the inbox")
        )
    except HTTPException as error:
        return _error(request, error.status_code, HTTPStatus(error.status_code).phrase)


def error_page(request: Request, error: ApprovalsError) -> Response:
    """Return the page that tells `error`."""
    return _error(request, status_of(type(error)), str(error))


def _error(request: Request, status: int, detail: str) -> Response:
    title = HTTPStatus(status).phrase
    return render(request, "error.html", {"title": title, "detail": detail}, status=status)


def _is_navigation(request: Request) -> bool:
    """Return whether somebody looks at what comes back; a script's call is answered for programs."""
    return "text/html" in request.headers.get("accept", "") and "hx-request" not in request.headers


def _to_login(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    # Only path and query: a whole address could name another host.
    wanted = quote(request.url.path) + query
    return RedirectResponse(
        f"{airflow_root_of(request)}{LOGIN}?{urlencode({'next': wanted})}", status_code=303
    )
