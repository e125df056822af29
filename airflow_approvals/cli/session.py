"""Who is calling which server: the URL, and an Airflow login turned into a token."""

from __future__ import annotations

import getpass
import os
import sys
from argparse import Namespace
from typing import Any

from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.client.calls import unreachable
from airflow_approvals.client.tokens import login_token
from airflow_approvals.core.errors import NotAuthenticatedError, ServiceUnavailableError

DEFAULT_URL = "http://localhost:8080"
PATIENCE = 3.0
"""Seconds that a command tries again while the server is away; a person is waiting."""


def connect(args: Namespace, *, patience: float = PATIENCE) -> ApprovalsClient:
    """Return a client that speaks for the user of `args`; use it as a context manager."""
    url = server_url(args)
    return ApprovalsClient(url, login_token(find_token(args, url)), patience=patience)


def server_url(args: Namespace) -> str:
    """Return where Airflow's API server is, without /approvals."""
    configured = getattr(args, "configured_url", None)
    return str(args.url or os.environ.get("APPROVALS_URL") or configured or DEFAULT_URL).rstrip("/")


def find_token(args: Namespace, url: str) -> str:
    """Return the user's token: given, from the environment, or for a username and password."""
    token = args.token or (None if args.username else os.environ.get("APPROVALS_TOKEN"))
    if token:
        return str(token)
    username = args.username or os.environ.get("APPROVALS_USERNAME")
    if not username:
        raise NotAuthenticatedError(
            "who are you? Give --username (the password is asked for, or read from APPROVALS_PASSWORD), "
            "or a token in APPROVALS_TOKEN"
        )
    return log_in(url, username, _password_of(username))


def log_in(url: str, username: str, password: str) -> str:
    """Return a token of Airflow's own: every auth manager that takes passwords answers at this path."""
    import httpx

    body = {"username": username, "password": password}
    try:
        answer = httpx.post(f"{url}/auth/token", json=body, timeout=30)
    except httpx.TransportError as error:
        raise unreachable(url, error) from error
    if answer.status_code in (400, 401, 403, 422):
        raise NotAuthenticatedError(f"{url}: Airflow does not know {username} with this password")
    if answer.status_code == 404:
        raise NotAuthenticatedError(
            f"{url}: this Airflow gives no tokens for passwords; log in to it and set APPROVALS_TOKEN"
        )
    token = _token_in(answer)
    if token is None:
        raise ServiceUnavailableError(
            f"{url}: answered {answer.status_code} to a login; is this Airflow's API server?"
        )
    return token


def _token_in(answer: Any) -> str | None:
    if answer.status_code not in (200, 201):
        return None
    try:
        body = answer.json()
    except ValueError:
        return None
    token = body.get("access_token") if isinstance(body, dict) else None
    return token if isinstance(token, str) else None


def _password_of(username: str) -> str:
    password = os.environ.get("APPROVALS_PASSWORD")
    if password:
        return password
    if not sys.stdin.isatty():
        raise NotAuthenticatedError(
            f"no password for {username}: set APPROVALS_PASSWORD, or run this in a terminal"
        )
    return getpass.getpass(f"Airflow password of {username}: ")
