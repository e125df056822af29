"""Errors as `application/problem+json` (RFC 9457): one table from error class to HTTP status."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from airflow_approvals import __version__
from airflow_approvals.core import errors
from airflow_approvals.core.errors import ApprovalsError

STATUS: dict[type[ApprovalsError], int] = {
    errors.InvalidRequestError: 422,
    errors.NotAuthenticatedError: 401,
    errors.NotAllowedError: 403,
    errors.RequestNotFoundError: 404,
    errors.IdempotencyConflictError: 409,
    errors.StaleRevisionError: 409,
    errors.AlreadyDecidedError: 409,
    errors.ReceiptUsedError: 409,
    errors.NotApprovedError: 409,
    errors.ReceiptGoneError: 410,
    errors.DigestMismatchError: 412,
    errors.DatasetError: 422,
    errors.NoPolicyError: 403,
    errors.PolicyDeniesError: 403,
    errors.PolicyError: 503,
    errors.ConfigurationError: 503,
    errors.ServiceUnavailableError: 503,
    errors.VerificationError: 500,
    ApprovalsError: 500,
}
"""A class that is not here has the status of its nearest ancestor."""

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER = "2"  # seconds
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Headers of everything that a login has opened."""
_DESCRIBED = "; GET {root}/openapi.json says what there is and what is expected"
_UNKNOWN_KEY = {"extra_forbidden", "unknown_key"}
_NEWER = (
    f"; this server is airflow-approvals {__version__}: a worker or command line that is newer has to wait "
    "until the server is upgraded"
)
_STATUS_WORDS = {400: "invalid-request", 401: "not-authenticated", 403: "not-allowed", 422: "invalid-request"}

log = logging.getLogger(__name__)


class TooLargeError(errors.InvalidRequestError):
    """The body is larger than this API reads."""

    type = "too-large"


STATUS[TooLargeError] = 413


def status_of(error: type[ApprovalsError]) -> int:
    """Return the HTTP status of an error class."""
    return next(STATUS[cls] for cls in error.__mro__ if cls in STATUS)


def problem_of(request: Request, error: ApprovalsError) -> JSONResponse:
    """Return the answer that tells `error`."""
    status = status_of(type(error))
    facts = {name: value for name, value in vars(error).items() if isinstance(value, str | int)}
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.ServiceUnavailableError):
        headers["Retry-After"] = _RETRY_AFTER
    return _problem(request, status, error.type, str(error), headers, facts)


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error of `app` a problem; one that nobody expected tells nothing of the inside."""

    @app.exception_handler(ApprovalsError)
    async def _ours(request: Request, error: ApprovalsError) -> JSONResponse:
        return problem_of(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Places and kinds of trouble only: the values may be anything, and the messages can repeat them.
        found = [(".".join(map(str, each["loc"])), str(each["type"])) for each in error.errors()[:5]]
        detail = "; ".join(f"{place}: {kind}" for place, kind in found)
        kinds = {kind for _, kind in found}
        malformed = "json_invalid" in kinds
        newer = _NEWER if kinds & _UNKNOWN_KEY else ""
        told = f"not understood: {detail}{newer}{_described(request)}"
        return _problem(request, 400 if malformed else 422, "invalid-request", told)

    @app.exception_handler(StarletteHTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        word = _STATUS_WORDS.get(error.status_code, "http")
        detail = f"{HTTPStatus(error.status_code).phrase.lower()}{_described(request)}"
        return _problem(request, error.status_code, word, detail, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def _unknown(request: Request, error: Exception) -> JSONResponse:
        # The server logs the traceback: this handler stands outside of it and the error goes on.
        return _problem(
            request, 500, "internal-error", "something failed inside the service; the server's log says what"
        )


def _described(request: Request) -> str:
    return _DESCRIBED.format(root=str(request.scope.get("root_path", "")).rstrip("/"))


def _problem(
    request: Request,
    status: int,
    word: str,
    detail: str,
    headers: dict[str, str] | None = None,
    facts: dict[str, Any] | None = None,
) -> JSONResponse:
    body = {
        **(facts or {}),
        "type": word,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
    }
    return JSONResponse(
        body, status_code=status, media_type=MEDIA_TYPE, headers={**PRIVATE, **(headers or {})}
    )
