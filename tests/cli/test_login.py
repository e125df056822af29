"""Logging in: the password goes to Airflow's own token endpoint, and every odd answer has a sentence."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from airflow_approvals.cli.session import log_in
from airflow_approvals.core.errors import NotAuthenticatedError, ServiceUnavailableError


class TokenServer(HTTPServer):
    """Answers every POST with what it was told to, and remembers what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = 201
        self.body: bytes = b'{"access_token": "the token"}'
        self.seen: list[tuple[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:  # the name that http.server calls
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:  # http.server's name
        pass


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    server = TokenServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_password_becomes_a_token_of_airflows_own(tokens: TokenServer) -> None:
    assert log_in(tokens.url, "alice", "secret") == "the token"
    assert tokens.seen == [("/auth/token", {"username": "alice", "password": "secret"})]


ODD_ANSWERS = {
    "wrong password": (401, b'{"detail": "Invalid credentials"}', NotAuthenticatedError),
    "an auth manager without passwords": (404, b"", NotAuthenticatedError),
    "something else than Airflow": (200, b"<html>", ServiceUnavailableError),
    "no token inside": (201, b'{"access_token": 7}', ServiceUnavailableError),
    "broken": (500, b"", ServiceUnavailableError),
}


@pytest.mark.parametrize(("status", "body", "expected"), ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
def test_an_odd_answer_is_no_login_and_never_repeats_the_password(
    tokens: TokenServer, status: int, body: bytes, expected: type[Exception]
) -> None:
    tokens.status, tokens.body = status, body
    with pytest.raises(expected) as refusal:
        log_in(tokens.url, "alice", "the secret password")
    assert "the secret password" not in str(refusal.value)
