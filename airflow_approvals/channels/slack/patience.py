"""How often an account that nobody knows is answered: a script must not fill the ledger."""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime, timedelta

from airflow_approvals.channels.slack.interactive import SlackUser

TIMES = 5
WITHIN = timedelta(minutes=10)
MAX_ACCOUNTS = 10_000
"""Accounts that are remembered; beyond that the oldest are forgotten."""


class Patience:
    """Counts, per process, what accounts without a person have tried."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[SlackUser, deque[datetime]] = {}

    def has_for(self, who: SlackUser, *, now: datetime) -> bool:
        """Return whether `who` is answered once more, and count it if so."""
        with self._lock:
            times = self._seen.pop(who, deque())
            while times and now - times[0] >= WITHIN:
                times.popleft()
            is_left = len(times) < TIMES
            if is_left:
                times.append(now)
            self._seen[who] = times  # the newest stands last
            if len(self._seen) > MAX_ACCOUNTS:
                self._seen.pop(next(iter(self._seen)))
            return is_left
