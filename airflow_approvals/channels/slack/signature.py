"""Did Slack send this: the signature over the raw body, no older than five minutes, never twice.

https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_approvals.core.errors import NotAuthenticatedError

if TYPE_CHECKING:
    from slack_sdk.signature import Clock

MAX_AGE = timedelta(minutes=5)
MAX_BODY = 256 << 10
"""Bytes of a body; Slack's own are a few kilobytes."""

_SIGNATURE = "x-slack-signature"
_TIMESTAMP = "x-slack-request-timestamp"


class SignatureRefusedError(NotAuthenticatedError):
    """Slack did not send this, or not now."""

    type = "slack-signature"


def check_signature(body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, now: datetime) -> str:
    """Return the digest by which a replay is known; raise `SignatureRefusedError` unless Slack signed `body`.

    `headers` have lower-case names. Any of `secrets` may have signed, so that a secret can be changed while
    clicks come in.
    """
    from slack_sdk.signature import SignatureVerifier

    signature, timestamp = headers.get(_SIGNATURE, ""), headers.get(_TIMESTAMP, "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise SignatureRefusedError("the timestamp is no number; Slack sends seconds")
    if abs(now.timestamp() - int(timestamp)) > MAX_AGE.total_seconds():
        raise SignatureRefusedError("the timestamp is more than five minutes away")
    usable = [secret for secret in secrets if secret]
    try:
        # All of them are tried, whichever fits: how long it takes tells nothing.
        fits = [
            SignatureVerifier(secret, clock=_standing_still(now)).is_valid(body, timestamp, signature)
            for secret in usable
        ]
    except (ValueError, TypeError) as error:  # a body that is no UTF-8, a signature that is no ASCII
        raise SignatureRefusedError("body or signature cannot be read") from error
    if not any(fits):
        raise SignatureRefusedError("the signature does not fit")
    return hashlib.sha256(f"{timestamp}:{signature}".encode()).hexdigest()


def _standing_still(now: datetime) -> Clock:
    """Return a clock for slack_sdk: the caller's `now` judges, nobody else's."""
    from slack_sdk.signature import Clock

    class At(Clock):
        def now(self) -> float:
            return now.timestamp()

    return At()
