"""What is told to whom outside of Airflow: one delivery per request and channel, and when to try again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_approvals.core.model import Person

PROMPT = -1
"""The `entry` of a delivery that is the prompt itself; any other is the ledger entry that a note tells."""

LEASE = timedelta(seconds=60)
"""For how long one process has a delivery to itself; longer than any call to a chat may take."""

SPACING = timedelta(seconds=1)
"""Between two new messages in one channel: Slack allows about one a second.

From the answer to one to the call of the next: what counts is when they arrive there.
"""

UNDERWAY = timedelta(seconds=15)
"""For how long a channel waits for a new message that is on its way; longer than a call takes."""

MAX_TRIES = 40
"""Tries when the other side does not answer: about two and a half hours."""

MAX_REFUSALS = 5
"""Tries when it answers with a refusal, which only a person can mend."""

_LONGEST_WAIT = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message that somebody shall see, and how far that has come."""

    id: int
    request_id: str
    channel: str  # name in the policy file
    entry: int  # PROMPT, or the ledger index of a question or an answer
    wanted: int  # ledger index up to which the message shall tell
    shown: int  # up to which it does; -1: not at all
    place: dict[str, str] | None = None  # where it stands, once it does
    tries: int = 0
    next_try_at: datetime
    is_dead: bool = False
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Telling:
    """What one ledger entry means for the outside: every prompt of the request that there is tells it."""

    request_id: str
    channels: tuple[str, ...] = ()  # where a prompt has to stand from now on
    has_note: bool = False  # the entry is told below each prompt too


@dataclass(frozen=True, kw_only=True)
class IdentityLink:
    """An account elsewhere that belongs to a person, as that person said with a login of their own."""

    provider: str  # slack
    team_id: str
    user_id: str
    person: Person
    linked_at: datetime


@dataclass(frozen=True, kw_only=True)
class LinkCode:
    """What an account elsewhere was told, to be repeated by a logged-in person."""

    provider: str
    team_id: str
    user_id: str
    expires_at: datetime


def wait_after(tries: int) -> timedelta:
    """Return how long to wait after the try number `tries` failed: 1 s, 2 s, 4 s, ... at most 5 min."""
    return min(_LONGEST_WAIT, timedelta(seconds=2 ** min(tries - 1, 16)))


def is_last_try(tries: int, *, refused: bool) -> bool:
    """Return whether a delivery is given up after `tries` tries, and waits for a person or for news."""
    return tries >= (MAX_REFUSALS if refused else MAX_TRIES)
