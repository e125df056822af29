"""Words from outside as words: nothing invisible, nothing a chat would obey, never longer than allowed."""

from __future__ import annotations

from datetime import timedelta

from airflow_approvals.core.identity import is_invisible

_GAP = " … "
_LOOKED_AT = 4_000
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def visible(text: str) -> str:
    """Return `text` on one line, with every invisible character spelled out as `[U+202E]`.

    What is shown decides a vote: a right-to-left override must neither repaint a destination nor be dropped,
    which would show two different destinations as one.
    """
    line = " ".join(text.split())
    if line.isascii() and line.isprintable():
        return line
    return "".join(f"[U+{ord(char):04X}]" if is_invisible(char) else char for char in line)


def cut(text: str, limit: int) -> str:
    """Return `visible(text)` in at most `limit` UTF-16 units; both ends stay: a destination is told by both.

    How chats count is not documented; UTF-16 units are never fewer than code points.
    """
    if len(text) > _LOOKED_AT:  # the work is bounded, whatever was sent
        text = f"{text[: _LOOKED_AT // 2]}{_GAP}{text[-_LOOKED_AT // 2 :]}"
    line = visible(text)
    if _units(line) <= limit:
        return line
    if limit <= 2 * len(_GAP):
        return _head(line, limit)
    room = limit - len(_GAP)
    head = _head(line, (room + 1) // 2)
    tail = _head(line[::-1], room // 2)[::-1]
    return f"{head}{_GAP}{tail}"


def escaped(text: str, limit: int) -> str:
    """Return `cut(text)` for Slack's mrkdwn, at most `limit` units after `&`, `<` and `>` are escaped.

    An entity is never cut in half. https://docs.slack.dev/messaging/formatting-message-text
    """
    for room in range(limit, 0, -max(1, limit // 16)):
        safe = "".join(_MARKUP.get(char, char) for char in cut(text, room))
        if _units(safe) <= limit:
            return safe
    return ""


def headed(label: str) -> str:
    """Return `label` as it begins a line: `its sql` as `Its sql`."""
    return f"{label[:1].upper()}{label[1:]}"


def counted(number: int, noun: str) -> str:
    """Return `1 row`, `2 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def span(duration: timedelta) -> str:
    """Return a duration in its two largest units: `3 h 12 min`."""
    seconds = max(0, int(duration.total_seconds()))
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes >= 1 else f"{seconds} s"


def _units(text: str) -> int:
    return len(text) + sum(ord(char) > 0xFFFF for char in text)


def _head(text: str, limit: int) -> str:
    used = 0
    for position, char in enumerate(text):
        used += 1 + (ord(char) > 0xFFFF)
        if used > limit:
            return text[:position]
    return text
