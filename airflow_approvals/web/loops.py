"""What a server process does again and again beside its calls."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import ClassVar

from airflow_approvals.core.errors import ApprovalsError

IDLE = 5.0
"""Seconds until the next look when there is nothing to do, or when a round has failed."""

log = logging.getLogger(__name__)


class Loop(ABC):
    """Goes round until it is stopped, whatever a round runs into."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._repeat())

    async def stop(self) -> None:
        """Stop; what a thread is at is finished by that thread."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @abstractmethod
    async def go_round(self) -> None:
        """Do once what is to be done, and wait until it is to be done again."""

    async def _repeat(self) -> None:
        while True:
            try:
                await self.go_round()
            except ApprovalsError as trouble:
                log.warning("%s: %s", self.name, trouble)
                await asyncio.sleep(IDLE)
            except Exception:
                # The loop must outlive a fault: who would know that it ended? The traceback is in the log.
                log.exception("%s failed", self.name)
                await asyncio.sleep(IDLE)
