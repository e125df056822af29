"""The trigger: waits in the triggerer for the decision on one request, and tells the task which it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

HOLD_BACK = 15.0
"""Seconds that a defer must be old before it may end.

Airflow 3.3.2 can fail a task whose trigger fires before the scheduler has read the executor's event of the
defer (apache/airflow #67287, #71580, #72716). The scheduler reads it in its next loop: seen 6.3 s late on a
machine with a load of 7 on 2 cores, when 5 s were not enough.
"""


class ApprovalTrigger(BaseTrigger):
    """Fires once, when the request is no longer pending; trouble with the connection is never a decision.

    All triggers of one triggerer process and server share one long-poll. The event repeats everything that
    the task resumes with, because `dag.test()` drops what was handed to `defer`.
    """

    hold_back = HOLD_BACK

    def __init__(self, request_id: str, base_url: str, deferred_at: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's triggers are untyped
        self.request_id = request_id
        self.base_url = base_url
        self.deferred_at = deferred_at  # seconds since the epoch, by the worker's clock

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_approvals.triggers.approval.ApprovalTrigger",
            {
                "request_id": self.request_id,
                "base_url": self.base_url,
                "deferred_at": self.deferred_at,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow_approvals.client.watch import wait_for_decision

        decided = await wait_for_decision(self.base_url, self.request_id)
        # Clocks may differ: wait for at most the whole hold-back, whatever they say.
        age = max(0.0, time.time() - self.deferred_at)
        if age < self.hold_back:
            await asyncio.sleep(self.hold_back - age)
        yield TriggerEvent(decided)  # type: ignore[no-untyped-call]  # Airflow's triggers are untyped
