"""How moments, sizes, digests and text from outside are written on a page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup

from airflow_approvals.channels.text import counted as count
from airflow_approvals.channels.text import span
from airflow_approvals.core.identity import is_invisible

__all__ = ["ago", "count", "short", "size", "span", "utc", "visible"]

_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")
_SHOWN_IN_ROW = 120


def visible(value: Any) -> Any:
    """Return text with every invisible character spelled out; markup of our own and other values as they are.

    What is shown decides a vote: a right-to-left override in a destination must not repaint it.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    if value.isascii() and value.isprintable():
        return value
    return "".join(
        char if char in "\n\t" or not is_invisible(char) else f"[U+{ord(char):04X}]" for char in value
    )


def short(text: str, length: int = _SHOWN_IN_ROW) -> str:
    """Return `text` for one line: both ends stay, because a destination is told by both."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    head = length // 2
    return f"{line[:head]} … {line[head - length + 3 :]}"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    amount = float(count)
    for unit in _SIZES:
        if abs(amount) < 1024 or unit == _SIZES[-1]:
            return f"{count:,} bytes" if unit == "bytes" else f"{amount:,.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable: the last unit takes everything")


def utc(moment: datetime) -> str:
    """Return a moment to the second, with its zone."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago something was."""
    passed = now - moment
    return "just now" if passed < timedelta(seconds=10) else f"{span(passed)} ago"
