"""Worker tokens: what is forged, replayed late, or says more than it may, is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from airflow_approvals.client.tokens import worker_tokens
from airflow_approvals.core.errors import ClockSkewError, ConfigurationError, NotAuthenticatedError
from airflow_approvals.core.worker_token import (
    WorkerClaims,
    is_worker_token,
    issue_worker_token,
    verify_worker_token,
    worker_key,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = worker_key("the shared secret")
WORKER = WorkerClaims(subject="0190c0de-0000-7000-8000-000000000001", scope="worker")


def good(**changes: Any) -> dict[str, Any]:
    issued = int(NOW.timestamp())
    claims: dict[str, Any] = {
        "iss": "airflow-approvals",
        "aud": "airflow-approvals/worker",
        "sub": WORKER.subject,
        "scope": "worker",
        "iat": issued,
        "exp": issued + 60,
        "jti": "1",
    }
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def signed(key: bytes = KEY, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(good(**changes), key, algorithm=algorithm)


def swapped_subject() -> str:
    head, _, signature = signed().split(".")
    body = base64.urlsafe_b64encode(json.dumps(good(sub="another")).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


def unsigned() -> str:
    return jwt.encode(good(), "", algorithm="none")


FORGERIES: dict[str, Callable[[], str]] = {
    "no signature": unsigned,
    "another key": lambda: signed(key=worker_key("another secret")),
    "the secret itself as key": lambda: signed(key=b"the shared secret" * 2),
    "another algorithm": lambda: signed(key=KEY * 2, algorithm="HS512"),
    "another audience": lambda: signed(aud="urn:airflow"),
    "another issuer": lambda: signed(iss="airflow"),
    "swapped subject": swapped_subject,
    "no subject": lambda: signed(sub=None),
    "no expiry": lambda: signed(exp=None),
    "no id": lambda: signed(jti=None),
    "lives for ever": lambda: signed(exp=int(NOW.timestamp()) + 10**9),
    "expires before it is issued": lambda: signed(exp=int(NOW.timestamp()) - 1),
    "an expiry that is no number": lambda: signed(exp=str(int(NOW.timestamp()) + 60)),
    "an unknown scope": lambda: signed(scope="admin"),
    "no scope": lambda: signed(scope=None),
    "a reader with a task's name": lambda: signed(scope="read"),
    "a worker named triggerer": lambda: signed(sub="triggerer"),
    "nonsense": lambda: "a.b.c",
    "nothing": lambda: "",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_token_is_refused(forge: Callable[[], str]) -> None:
    with pytest.raises(NotAuthenticatedError):
        verify_worker_token(forge(), KEY, now=NOW)


@pytest.mark.parametrize(("seconds", "side"), [(61, "behind"), (4000, "behind"), (-61, "ahead of")])
def test_clocks_too_far_apart_are_said_so_with_the_difference(seconds: int, side: str) -> None:
    token = issue_worker_token(KEY, WORKER, now=NOW, token_id="1")
    with pytest.raises(ClockSkewError, match=f"{abs(seconds)} seconds {side}"):
        verify_worker_token(token, KEY, now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-60, -1, 0, 59, 60])
def test_clocks_within_a_minute_are_accepted(seconds: int) -> None:
    token = issue_worker_token(KEY, WORKER, now=NOW, token_id="1")
    assert verify_worker_token(token, KEY, now=NOW + timedelta(seconds=seconds)) == WORKER


def test_without_a_secret_there_are_no_tokens_and_the_option_is_named() -> None:
    with pytest.raises(ConfigurationError, match="worker_secret"):
        worker_tokens("1", "")


def test_every_call_has_a_token_of_its_own() -> None:
    tokens = worker_tokens(WORKER.subject, "the shared secret")
    first, second = tokens(), tokens()
    assert first != second
    assert is_worker_token(first)


def test_an_airflow_token_is_not_taken_for_one_of_ours() -> None:
    assert not is_worker_token(jwt.encode({"sub": "alice", "iss": "airflow"}, KEY, algorithm="HS256"))
    assert not is_worker_token("nonsense")
