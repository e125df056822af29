"""Points in time as they are signed: RFC 3339, in UTC, always to the microsecond."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from airflow_approvals.core.errors import InvalidRequestError

_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)


def rfc3339(time: datetime) -> str:
    """Return `time` as `2026-01-31T08:15:00.000000Z`; refuse a time without a zone."""
    if time.utcoffset() is None:
        raise InvalidRequestError("a time without a zone cannot be signed; expected an aware datetime")
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"


def time_of(text: str) -> datetime:
    """Return the moment that `rfc3339` wrote; raise `InvalidRequestError` for anything else."""
    try:
        if _RFC3339.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidRequestError("not a time as it is signed; expected the form 2026-01-31T08:15:00.000000Z")
