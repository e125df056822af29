"""How far a run over many rows is, how fast it goes, and for how long still."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run stands."""

    step: str
    rows: int
    of: int
    rows_per_second: float  # of this run; what an earlier one has done does not count
    seconds_left: float | None  # of this step; None as long as nothing is known about the speed

    @property
    def percent(self) -> int:
        """Rows done of all, rounded down."""
        return 100 * self.rows // self.of if self.of else 100

    @property
    def words(self) -> str:
        """One line for a log."""
        told = f"{self.step}: {self.rows:,} of {self.of:,} rows ({self.percent} %)"
        if self.rows_per_second:
            told += f", {self.rows_per_second:,.0f} rows/s"
        if self.seconds_left and self.rows < self.of:
            told += f", {_duration(self.seconds_left)} left"
        return told


class Pace:
    """Tells `say` where a run stands: when a step begins and ends, and every few seconds between."""

    def __init__(
        self,
        say: Callable[[Standing], None],
        *,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._every = every
        self._clock = clock
        self.begin("", 0)

    def begin(self, step: str, of: int) -> None:
        """Begin a step over `of` rows."""
        self._step, self._of = step, of
        self._rows = self._resumed = 0
        self._began = self._said = self._clock()
        if step:
            self._say(self.standing())

    def add(self, rows: int, *, resumed: bool = False) -> None:
        """Count rows that are done, here or (`resumed`) by an earlier run."""
        self._rows += rows
        self._resumed += rows if resumed else 0
        if self._rows >= self._of or self._clock() - self._said >= self._every:
            self._said = self._clock()
            self._say(self.standing())

    def standing(self) -> Standing:
        """Return where the run stands now."""
        seconds, rows = self._clock() - self._began, self._rows - self._resumed
        speed = rows / seconds if seconds > 0 else 0.0
        return Standing(
            step=self._step,
            rows=self._rows,
            of=self._of,
            rows_per_second=speed,
            seconds_left=max(0, self._of - self._rows) / speed if speed else None,
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
