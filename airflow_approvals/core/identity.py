"""One canonical person across all channels, and who stands behind a run."""

from __future__ import annotations

import unicodedata

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.model import Origin, Person

MAX_NAME_LENGTH = 250
"""Airflow's own user names are at most 250 characters long."""

MANUAL = "manual"
UNKNOWN = "unknown"
"""What Airflow writes for the triggering user when it cannot tell."""


# Blank on the screen although they count as letters, marks or symbols: Unicode's Default_Ignorable_Code_Point
# that no category above takes, the Hangul fillers among them, and the empty braille pattern.
_BLANKS = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0100, 0xE01EF),
)


def person_named(name: str) -> Person:
    """Return the canonical person behind a login, whatever its case or width.

    Case and width make no difference: otherwise a second spelling of a name would be a second vote.
    Raises `InvalidRequestError` for a name that is empty, too long, or holds invisible characters.
    """
    # Measured before anything is computed from it, and again after: NFKC can make one character eighteen.
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidRequestError(_too_long(len(name)))
    canonical = _folded(name)
    if not canonical:
        raise InvalidRequestError("a person's name is empty; give the user name of the login")
    if len(canonical) > MAX_NAME_LENGTH:
        raise InvalidRequestError(_too_long(len(canonical)))
    for character in canonical:
        if is_invisible(character):
            raise InvalidRequestError(
                f"a person's name holds U+{ord(character):04X}, which cannot be seen; "
                "expected visible characters and plain spaces only"
            )
    return Person(canonical)


def person_logged_in_as(name: str) -> Person:
    """Return the person behind a login that somebody holds now.

    Raises `InvalidRequestError` for a name in compatibility characters, or with spaces around it: an auth
    manager keeps such a name apart from the plain one, whose person it would become here.
    """
    plain = unicodedata.normalize("NFKC", name)
    if name.strip() != name or unicodedata.normalize("NFC", name) != plain:
        raise InvalidRequestError(
            "the name of this login reads like another one's; expected plain letters and no spaces around "
            "them: have it renamed"
        )
    return person_named(name)


def requesters_of(origin: Origin) -> tuple[Person, ...]:
    """Return everybody who stands behind a run, and is therefore barred from approving it; sorted, each once.

    A manual run is its triggering user's. Any other run (scheduled, asset-triggered, backfill, or a type that
    is not known here) is the DAG owners', and the triggering user's too; so is a manual run of which Airflow
    cannot tell the user: TriggerDagRunOperator makes such runs before Airflow 3.3. Whoever cleared tasks of
    the run asks with those. Empty when unknown.
    """
    names = [origin.triggering_user, *origin.cleared_by]
    if origin.run_type != MANUAL or not is_starter_known(origin):
        names.extend(origin.owners)
    return tuple(sorted({person_named(name) for name in names if name is not None and _is_known(name)}))


def is_starter_known(origin: Origin) -> bool:
    """Return whether Airflow tells who started a run that somebody must have started."""
    return origin.run_type != MANUAL or _is_known(origin.triggering_user)


def _is_known(name: str | None) -> bool:
    return name is not None and _folded(name) not in ("", UNKNOWN)


def _folded(name: str) -> str:
    # Folding case can undo NFKC, so it is done again (Unicode 15, 3.13: compatibility caseless).
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def is_invisible(character: str) -> bool:
    """Return whether `character` shows nothing of itself, and may change what stands beside it."""
    # Cc control, Cf format (bidi, zero-width), Co private, Cn unassigned, Cs surrogate, Zl and Zp line ends.
    return unicodedata.category(character) in {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"} or any(
        first <= ord(character) <= last for first, last in _BLANKS
    )


def _too_long(length: int) -> str:
    return f"a person's name has {length} characters; at most {MAX_NAME_LENGTH} are allowed"
