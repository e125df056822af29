"""One POST to somebody else's server: within seconds, without following anybody anywhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from airflow_approvals import __version__
from airflow_approvals.channels.outbox import SendError

TIMEOUT = 10.0
"""Seconds to connect, and to wait for each part of the answer; far less than a lease."""

_quiet = ContextVar("quiet", default=False)

_LONGEST_REST = timedelta(hours=1)
_ASKS_FOR_REST = (429, 503)


def post(
    address: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    now: datetime,
    lasting: frozenset[int] | None = None,
) -> None:
    """Send `body`; raise `SendError` unless the answer is 2xx.

    `lasting` are the statuses that only a person can mend; None: all of 4xx but timeouts. The address is in
    no message: it may be the secret. The body of the answer is not read.
    """
    try:
        with (
            _unlogged(),
            httpx.Client(timeout=TIMEOUT, follow_redirects=False) as client,
            client.stream(
                "POST",
                address,
                content=body,
                headers={"User-Agent": f"airflow-approvals/{__version__}", **headers},
            ) as answer,
        ):
            status, asked = answer.status_code, answer.headers.get("retry-after")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SendError(f"no answer ({type(error).__name__})") from error
    if 200 <= status < 300:
        return
    if status in _ASKS_FOR_REST and asked is not None:
        raise SendError(f"answered {status}, asks to wait", retry_at=_rest(asked, now))
    refused = status in lasting if lasting is not None else 300 <= status < 500 and status not in (408, 429)
    raise SendError(f"answered {status}", refused=refused)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep httpx from logging the address of the calls in this block."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


class _Quiet(logging.Filter):
    """Drops what is logged within `_unlogged`, and nothing of anybody else's."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _quiet.get()


logging.getLogger("httpx").addFilter(_Quiet())


def _rest(asked: str, now: datetime) -> datetime:
    """Return until when to leave the other side alone: seconds or a date (RFC 9110 10.2.3), at most 1 h."""
    until = now + timedelta(seconds=1)
    if asked.isascii() and asked.isdigit():
        until = now + min(timedelta(seconds=int(asked[:9])), _LONGEST_REST)
    else:
        try:
            date = parsedate_to_datetime(asked)
            until = date if date.tzinfo else date.replace(tzinfo=UTC)
        except ValueError:
            pass
    return min(max(until, now + timedelta(seconds=1)), now + _LONGEST_REST)
