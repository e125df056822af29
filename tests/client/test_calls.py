"""The client: problems are raised as the errors they were, and only harmless calls are repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from airflow_approvals.client import calls
from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.client.tokens import login_token
from airflow_approvals.core.errors import (
    ApprovalsError,
    NotAuthenticatedError,
    PolicyError,
    ServiceUnavailableError,
    error_types,
)
from tests.web.site import free_port

REQUEST_ID = "00000000-0000-4000-8000-000000000000"
Answer = tuple[int, str, bytes]


@contextmanager
def answering(answers: Iterator[Answer]) -> Iterator[tuple[str, list[str]]]:
    """Serve `answers` one after the other; yield the address and the list of calls that came."""
    seen: list[str] = []

    class Once(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content_type, body = next(answers)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # the base class names it

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Once)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def problem(status: int, word: str) -> Answer:
    body = {"type": word, "title": "t", "status": status, "detail": "what to do next"}
    return status, "application/problem+json", json.dumps(body).encode()


def client(url: str, patience: float = 10.0) -> ApprovalsClient:
    return ApprovalsClient(url, login_token("t"), 5.0, patience=patience)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_FIRST_PAUSE", 0.01)


@pytest.mark.parametrize("word", sorted(error_types()))
def test_a_problem_is_raised_as_the_error_it_was(word: str) -> None:
    with answering(iter([problem(409, word)] * 2)) as (url, _), client(url, patience=0.0) as caller:
        with pytest.raises(ApprovalsError) as caught:
            caller.vote(REQUEST_ID, "approve", revision=1)
        assert type(caught.value) is error_types()[word]
        assert str(caught.value) == "what to do next"


def test_a_call_that_may_be_repeated_is_until_the_service_is_back() -> None:
    answers = [
        (503, "text/plain", b"away"),
        (502, "text/html", b"<html>"),
        (200, "application/json", b'{"keys": []}'),
    ]
    with answering(iter(answers)) as (url, seen), client(url) as caller:
        assert caller.keys() == {"keys": []}
        assert len(seen) == 3


CHANGES: dict[str, Callable[[ApprovalsClient], object]] = {
    "vote": lambda caller: caller.vote(REQUEST_ID, "approve", revision=1),
    "ask": lambda caller: caller.ask(REQUEST_ID, "why?"),
    "cancel": lambda caller: caller.cancel(REQUEST_ID),
    "revoke": lambda caller: caller.revoke(REQUEST_ID),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_may_have_happened_is_not_sent_twice(change: Callable[[ApprovalsClient], object]) -> None:
    with answering(iter([(503, "text/plain", b"away")])) as (url, seen), client(url) as caller:
        with pytest.raises(ServiceUnavailableError):
            change(caller)
        assert len(seen) == 1


@pytest.mark.parametrize(
    ("status", "word", "error"),
    [(401, "not-authenticated", NotAuthenticatedError), (503, "policy-invalid", PolicyError)],
)
def test_an_answer_that_waiting_does_not_mend_is_raised_at_once(
    status: int, word: str, error: type[ApprovalsError]
) -> None:
    with answering(iter([problem(status, word)])) as (url, seen), client(url) as caller:
        with pytest.raises(error):
            caller.keys()
        assert len(seen) == 1


def test_a_service_that_stays_away_is_said_so_in_the_end() -> None:
    caller = client(f"http://127.0.0.1:{free_port()}", patience=0.2)
    with caller, pytest.raises(ServiceUnavailableError, match="service_url"):
        caller.keys()


def test_something_else_that_answers_is_not_taken_for_the_service() -> None:
    html = (200, "text/html", b"<html>hello</html>")
    with answering(iter([html])) as (url, _):
        caller = client(url, patience=0.0)
        with caller, pytest.raises(ServiceUnavailableError, match="something else"):
            caller.keys()


def test_an_id_is_never_a_path_of_its_own() -> None:
    with answering(iter([problem(404, "request-not-found")])) as (url, seen):
        caller = client(url)
        with caller, pytest.raises(ApprovalsError):
            caller.get_request("../../keys?x=1")
        assert seen == ["GET /approvals/api/v1/requests/..%2F..%2Fkeys%3Fx%3D1"]
