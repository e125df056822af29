"""One HTTP call: credential, bounded retries with jittered back-off, and problems turned back into errors."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_approvals import __version__
from airflow_approvals.client.tokens import TokenSource
from airflow_approvals.core.errors import (
    ApprovalsError,
    InvalidRequestError,
    NotAllowedError,
    NotAuthenticatedError,
    RequestNotFoundError,
    ServiceUnavailableError,
    VersionMismatchError,
    error_types,
)

if TYPE_CHECKING:
    import httpx

API = "/approvals/api/v1"

_FIRST_PAUSE = 0.2  # seconds, doubled up to the longest, each time drawn between half and all of it
_LONGEST_PAUSE = 5.0
_NO_ROUTE = "http"  # the problem of our own service where it has no such route: nobody else says it so
_BY_STATUS: dict[int, type[ApprovalsError]] = {
    400: InvalidRequestError,
    401: NotAuthenticatedError,
    403: NotAllowedError,
    404: RequestNotFoundError,
    422: InvalidRequestError,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A successful answer."""

    status: int
    body: dict[str, Any]


class Caller:
    """Keeps one connection pool and makes calls with it."""

    def __init__(self, base_url: str, token_source: TokenSource, *, timeout: float, patience: float) -> None:
        self._base_url = base_url
        self._token_source = token_source
        self._timeout = timeout
        self._patience = patience
        self._http: httpx.Client | None = None

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        again: bool,
    ) -> Wire:
        """Return the answer, or raise what the server raised; repeat if `again` and the service is away."""
        deadline = time.monotonic() + (self._patience if again else 0)
        for pause in pauses():
            try:
                return self._call_once(method, path, params, body, headers or {})
            except ServiceUnavailableError as trouble:
                if time.monotonic() + pause >= deadline:
                    raise
                log.warning("%s %s: %s; again in %.1f s", method, path, trouble, pause)
                time.sleep(pause)
        raise AssertionError  # `pauses` never ends

    def stream(self, path: str) -> Iterator[bytes]:
        """Yield the body of a long answer as it comes."""
        import httpx

        try:
            with self._client().stream("GET", API + path, headers=self._headers({})) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise error_of(answer)
                yield from answer.iter_bytes()
        except httpx.TransportError as error:
            raise unreachable(self._base_url, error) from error

    def _call_once(
        self,
        method: str,
        path: str,
        params: dict[str, Any] | None,
        body: dict[str, Any] | None,
        headers: dict[str, str],
    ) -> Wire:
        import httpx

        given = {name: value for name, value in (params or {}).items() if value is not None}
        # A long-poll is answered late on purpose.
        timeout = self._timeout + float(given.get("wait", 0))
        try:
            answer = self._client().request(
                method, API + path, params=given, json=body, headers=self._headers(headers), timeout=timeout
            )
        except httpx.TransportError as error:
            raise unreachable(self._base_url, error) from error
        return read_answer(answer)

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token_source()}", **more}

    def _client(self) -> httpx.Client:
        if self._http is None:
            import httpx

            self._http = httpx.Client(base_url=self._base_url, timeout=self._timeout)
        return self._http


def path_of(request_id: str, *more: str) -> str:
    """Return the path of one request; an id is data, never a path of its own."""
    return "/".join(["/requests", quote(request_id, safe=""), *more])


def pauses() -> Iterator[float]:
    """Yield seconds to wait before the next try, growing and jittered so that clients do not come in step."""
    longest = _FIRST_PAUSE
    while True:
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, protects nothing
        longest = min(longest * 2, _LONGEST_PAUSE)


def read_answer(answer: httpx.Response) -> Wire:
    """Return a successful answer, or raise the error that it states."""
    if answer.status_code not in (200, 201):
        raise error_of(answer)
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ServiceUnavailableError(
            f"{answer.request.url.host}: something else than the approvals service answered; "
            "check [approvals] service_url"
        )
    return Wire(status=answer.status_code, body=body)


def error_of(answer: httpx.Response) -> ApprovalsError:
    """Return the error behind a problem answer; one that is not ours is judged by its status."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        cls = error_types().get(str(problem.get("type")))
        if cls is not None:
            return cls(str(problem.get("detail", "")))
        if problem.get("type") == _NO_ROUTE and answer.status_code in (404, 405):
            return _older(answer)
    status = answer.status_code
    if status >= 500 or status == 429:
        return ServiceUnavailableError(f"{answer.request.url.host}: answered {status}; nothing was decided")
    return _BY_STATUS.get(status, ApprovalsError)(
        f"{answer.request.url.host}: answered {status} to {answer.request.method} {answer.request.url.path}; "
        "check that [approvals] service_url is Airflow's API server and has the approvals plugin"
    )


def _older(answer: httpx.Response) -> VersionMismatchError:
    """Return the error for a service of ours that has no such route yet."""
    asked = f"{answer.request.method} {answer.request.url.path.removeprefix(API)}"
    return VersionMismatchError(
        f"{answer.request.url.host}: asked for {asked} by airflow-approvals {__version__}, which the API "
        "server's is too old to know; nothing was decided: upgrade airflow-approvals on the API server (it "
        "goes first, workers and triggerer after it), then run this again"
    )


def unreachable(base_url: str, error: Exception) -> ServiceUnavailableError:
    """Return the error for a server that did not answer."""
    return ServiceUnavailableError(
        f"{base_url}: no answer ({type(error).__name__}); nothing was decided: check that Airflow's "
        "API server runs and that [approvals] service_url, or --url in a terminal, is its address"
    )
