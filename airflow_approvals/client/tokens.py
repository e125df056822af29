"""Where a client's credential comes from: a fresh worker token for every call, or one login token."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from airflow_approvals.core.worker_token import TRIGGERER, WorkerClaims, issue_worker_token, worker_key

TokenSource = Callable[[], str]
"""Returns the bearer token for the next call."""


def worker_tokens(ti_id: str, secret: str) -> TokenSource:
    """Return tokens that speak for one task instance; raise `ConfigurationError` when `secret` is empty."""
    return _tokens(WorkerClaims(subject=ti_id, scope="worker"), secret)


def reader_tokens(secret: str) -> TokenSource:
    """Return tokens that may only read: the triggerer's."""
    return _tokens(WorkerClaims(subject=TRIGGERER, scope="read"), secret)


def login_token(token: str) -> TokenSource:
    """Return the one token of a person's Airflow login for every call."""
    return lambda: token


def _tokens(claims: WorkerClaims, secret: str) -> TokenSource:
    key = worker_key(secret)

    def next_token() -> str:
        return issue_worker_token(key, claims, now=datetime.now(UTC), token_id=str(uuid4()))

    return next_token
