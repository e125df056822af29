"""Numbers behind full-width digits, other scripts' digits, typographic dashes and invisible characters.

Presidio's patterns do not see through them, so exact findings do not hold these numbers. They are looked for
as well, in the text as it would read in ASCII, and marked as such: without them the findings are exactly
Presidio's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from airflow_approvals.pii.findings import Span

INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63"
BLANKS = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
FULL_WIDTH = range(0xFF01, 0xFF5F)  # the printable ASCII characters, shifted
SHIFT = 0xFEE0

_SUSPICIOUS = re.compile(f"[{INVISIBLE}{DASHES}{BLANKS}\uff01-\uff5e]|(?![0-9])\\d")


def undisguised(text: str) -> tuple[str, list[int]] | None:
    """Return how a text would read in ASCII, and where each character stood; None where nothing differs."""
    if text.isascii() or not _SUSPICIOUS.search(text):
        return None
    characters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        plain = _plain(character)
        if plain:
            characters.append(plain)
            places.append(place)
    plain_text = "".join(characters)
    return (plain_text, places) if any(map(str.isdigit, plain_text)) else None


def found_beneath(spans: Iterable[Span], places: list[int], known: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans of the undisguised text where they stand in the original, without those known there."""
    seen = list(known)
    moved = (
        Span(span.entity_type, places[span.start], places[span.end - 1] + 1, span.score) for span in spans
    )
    return tuple(
        span
        for span in moved
        if not any(
            span.entity_type == other.entity_type and other.start <= span.start and span.end <= other.end
            for other in seen
        )
    )


def _plain(character: str) -> str:
    if character.isascii():
        return character
    if character in INVISIBLE:
        return ""
    if character in DASHES:
        return "-"
    if character in BLANKS:
        return " "
    if ord(character) in FULL_WIDTH:
        return chr(ord(character) - SHIFT)
    return str(unicodedata.decimal(character)) if character.isdecimal() else character
