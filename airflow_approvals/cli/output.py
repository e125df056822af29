"""What people and programs see: tables, times in words, JSON, and errors in one sentence."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from airflow_approvals.core.identity import is_invisible
from airflow_approvals.core.moments import rfc3339

if TYPE_CHECKING:
    from airflow_approvals.core.export import LedgerReport

SHORT_ID = 8
"""Characters of a request id that are shown at least."""


def stdout() -> Console:
    return Console(highlight=False)


def print_json(value: Any) -> None:
    """Write `value` for programs: one indented JSON document, never wrapped or coloured."""
    stdout().out(json.dumps(value, indent=2, ensure_ascii=False), highlight=False)


def print_line(text: str = "", *, style: str = "") -> None:
    """Write one line as it is: no markup is read from it, and it is not wrapped."""
    stdout().print(Text(visible(text), style=style), soft_wrap=True)


def print_problem(text: str) -> None:
    """Write what went wrong to stderr, in red where there are colours."""
    Console(stderr=True, highlight=False).print(Text(visible(text), style="red"), soft_wrap=True)


def visible(text: str) -> str:
    """Return `text` with every invisible character spelled out.

    What is shown decides a vote: an escape sequence or a right-to-left override in a justification must not
    repaint it.
    """
    return "".join(
        char if char in "\n\t" or not is_invisible(char) else f"\\u{ord(char):04x}" for char in text
    )


def short_ids(ids: Collection[str]) -> dict[str, str]:
    """Return the shortest beginning of each id, from `SHORT_ID` characters, that no other one shares."""
    length = next(
        (n for n in range(SHORT_ID, 36) if len({id_[:n] for id_ in ids}) == len(set(ids))),
        36,
    )
    return {id_: id_[:length] for id_ in ids}


def duration_words(span: timedelta) -> str:
    """Return a span in its two largest units: `3d 4h`, `2h 05m`, `12m 30s`, `8s`."""
    seconds = max(0, int(span.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes:02d}m"
    if minutes:
        return f"{minutes}m {seconds % 60:02d}s"
    return f"{seconds}s"


def size_words(size: int) -> str:
    """Return a number of bytes in the unit that the pages use too."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def moment(at: datetime, *, now: datetime) -> str:
    """Return a time in UTC with how long ago, or how far ahead, it is."""
    words = f"{duration_words(now - at)} ago" if at <= now else f"in {duration_words(at - now)}"
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({words})"


def head_json(report: LedgerReport) -> dict[str, Any]:
    """Return what programs are told about whose word a ledger stands on, and up to when."""
    head = report.head
    return {
        "origin": report.origin,
        "entries": report.entries,
        "signed_by": head.keyid,
        "signed_at": rfc3339(head.time) if head.time else None,
        "trust_on_first_use": report.trust_on_first_use,
    }


def head_lines(report: LedgerReport) -> Iterator[str]:
    """Yield up to when a ledger tells, and which key says so."""
    head = report.head
    if report.known_checkpoints:
        yield f"  witnessed   up to entry {report.known_size:,} of {report.entries:,}"
    # A ledger that was cut back to an older head of its own holds; its time alone tells.
    if head.time is not None:
        yield f"  as of       {head.time:%Y-%m-%d %H:%M:%S} UTC; what was written later is not in it"
    yield f"  signed by   key {head.keyid}"


def key_lines(report: LedgerReport, came_with: str) -> Iterator[str]:
    """Yield on whose word a ledger stands, where nobody has given a key from elsewhere."""
    if report.trust_on_first_use:
        yield f"  note        the key came with {came_with}; give --key to hold it against one you know"
