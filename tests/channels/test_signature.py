from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from airflow_approvals.channels.slack.signature import SignatureRefusedError, check_signature

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "the signing secret of a test app"
BODY = b"payload=%7B%7D"
Headers = dict[str, str]


def signed(body: bytes = BODY, *, at: datetime = NOW, secret: str = SECRET) -> Headers:
    timestamp = str(int(at.timestamp()))
    digest = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"x-slack-signature": f"v0={digest}", "x-slack-request-timestamp": timestamp}


def test_what_slack_signed_is_taken() -> None:
    first = check_signature(BODY, signed(), [SECRET], now=NOW)
    assert first == check_signature(BODY, signed(), [SECRET], now=NOW + timedelta(seconds=1))
    assert first != check_signature(BODY, signed(at=NOW + timedelta(seconds=1)), [SECRET], now=NOW)


def test_the_previous_secret_still_counts_while_it_is_configured() -> None:
    check_signature(BODY, signed(secret="the old one"), [SECRET, "the old one"], now=NOW)
    with pytest.raises(SignatureRefusedError):
        check_signature(BODY, signed(secret="the old one"), [SECRET], now=NOW)


FORGERIES: dict[str, Callable[[Headers], Headers]] = {
    "no headers": lambda _: {},
    "no signature": lambda headers: {**headers, "x-slack-signature": ""},
    "no timestamp": lambda headers: {**headers, "x-slack-request-timestamp": ""},
    "another secret": lambda _: signed(secret="guessed"),
    "another body": lambda _: signed(b"payload=%7B1%7D"),
    "one byte changed": lambda headers: {
        **headers,
        "x-slack-signature": headers["x-slack-signature"][:-1] + "g",
    },
    "timestamp changed": lambda headers: {
        **headers,
        "x-slack-request-timestamp": str(int(NOW.timestamp()) + 1),
    },
    "timestamp of letters": lambda headers: {**headers, "x-slack-request-timestamp": "abc"},
    "timestamp with a fraction": lambda headers: {**headers, "x-slack-request-timestamp": "123.5"},
    "timestamp of other digits": lambda headers: {**headers, "x-slack-request-timestamp": "١٢٣"},
    "timestamp without end": lambda headers: {**headers, "x-slack-request-timestamp": "9" * 5000},
    "signature not ASCII": lambda headers: {**headers, "x-slack-signature": "v0=grün"},
    "301 s old": lambda _: signed(at=NOW - timedelta(seconds=301)),
    "301 s ahead": lambda _: signed(at=NOW + timedelta(seconds=301)),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forgery_is_refused(forge: Callable[[Headers], Headers]) -> None:
    with pytest.raises(SignatureRefusedError):
        check_signature(BODY, forge(signed()), [SECRET], now=NOW)


def test_a_body_that_is_no_text_is_refused() -> None:
    with pytest.raises(SignatureRefusedError):
        check_signature(b"\xff\xfe", signed(b"\xff\xfe"), [SECRET], now=NOW)


@pytest.mark.parametrize("secrets", [[], [""], ["", ""]])
def test_without_a_secret_nothing_is_taken(secrets: list[str]) -> None:
    with pytest.raises(SignatureRefusedError):
        check_signature(BODY, signed(secret=""), secrets, now=NOW)
