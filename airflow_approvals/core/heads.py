"""The signed head of a ledger as one line, for where people read: a chat, a ticket, a page of lineage.

The line holds all that the checkpoint note does, so that it can be made a note again, and verified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_approvals.core.errors import VerificationError

_NOTE = re.compile(
    r"(?P<origin>\S+)\n(?P<size>[0-9]+)\n(?P<root>\S+)\ntime (?P<time>\S+)\n\n"
    r"— (?P=origin) (?P<signature>\S+)\n"
)
_LINE = re.compile(
    r"Ledger head of (?P<origin>\S{1,250}): (?P<size>[0-9]{1,18}) entries, "
    r"root (?P<root>[A-Za-z0-9+/=]{44}), time (?P<time>[0-9TZ:.-]{20,40}), "
    r"signed (?P<signature>[A-Za-z0-9+/]{1,1000}={0,2})"
)


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a checkpoint note of ours says, part by part; nothing was verified."""

    origin: str
    size: int
    root: str  # base64, as in the note
    time: str
    signature: str  # base64

    @property
    def line(self) -> str:
        return (
            f"Ledger head of {self.origin}: {self.size} entries, root {self.root}, time {self.time}, "
            f"signed {self.signature}"
        )

    @property
    def note(self) -> str:
        return (
            f"{self.origin}\n{self.size}\n{self.root}\ntime {self.time}\n\n— {self.origin} {self.signature}\n"
        )


def head_of(note: str) -> Head:
    """Return the parts of a note that this service has signed; raise `VerificationError` for another."""
    found = _NOTE.fullmatch(note)
    if found is None:
        raise VerificationError("the checkpoint is not one of ours: origin, size, root, time and a signature")
    return _head(found)


def heads_in(text: str) -> tuple[Head, ...]:
    """Return every head that stands in a text: copied lines, an export of a chat, a lineage event as JSON."""
    plain = text.replace("\\/", "/").replace("\\u003d", "=").replace("\\u002b", "+")
    return tuple(dict.fromkeys(map(_head, _LINE.finditer(plain))))


def _head(found: re.Match[str]) -> Head:
    return Head(
        origin=found["origin"],
        size=int(found["size"]),
        root=found["root"],
        time=found["time"],
        signature=found["signature"],
    )
