"""What time drives: expiry, a changed policy file, reminders, a new key, signed checkpoints: one loop.

Every process runs it, several at once: each step looks again under the store's locks before it writes.
"""

from __future__ import annotations

import asyncio
import logging

from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.service import Service
from airflow_approvals.web.backend import Backend, now
from airflow_approvals.web.ledger import ensure_checkpoint
from airflow_approvals.web.loops import Loop
from airflow_approvals.web.witnesses import Witnesses

_BATCH = 100

log = logging.getLogger(__name__)


class Background(Loop):
    """Repeats all steps every `due_interval` seconds until it is stopped."""

    name = "what time drives"

    def __init__(self, backend: Backend, witnesses: Witnesses | None = None) -> None:
        super().__init__()
        self._backend = backend
        self._witnesses = witnesses or Witnesses(backend, None, None)
        self._followed: str | None = None
        self._key_recorded = False

    async def run_once(self) -> None:
        """Do every step once; one that fails is logged and does not keep the others from running."""
        for step in (
            self._expire,
            self._follow_policy,
            self._remind,
            self._record_key,
            self._sign_checkpoint,
            self._publish_to_witness,
        ):
            try:
                await self._backend.run(step)
            except ApprovalsError as trouble:
                log.warning("%s: %s", step.__name__.strip("_"), trouble)
            except Exception:
                # The loop must outlive a fault: without it nothing expires. The traceback is in the log.
                log.exception("%s failed", step.__name__.strip("_"))
        self._backend.events.wake()

    async def go_round(self) -> None:
        await self.run_once()
        await asyncio.sleep(self._backend.settings.due_interval)

    def _expire(self) -> None:
        # By the clock of each batch: entries of the ledger are dated when they are made.
        while self._service.expire_due(now=now(), limit=_BATCH) == _BATCH:
            pass

    def _follow_policy(self) -> None:
        """Bind every pending request to the policy file, once per change of it."""
        service = self._service
        problem = service.policies.problem()
        if problem is not None:
            log.error("the policy file on disk is not the one in force: %s", problem)
        digest = service.policies.current().digest
        if digest == self._followed:
            return
        service.record_policy(now=now())
        for request_id in service.store.pending_ids():
            service.follow_policy(request_id, now=now())
        self._followed = digest

    def _remind(self) -> None:
        while self._service.remind_due(now=now(), limit=_BATCH) == _BATCH:
            pass

    def _record_key(self) -> None:
        """Record the key once per process: it signs with the same one until it ends."""
        if not self._key_recorded:
            self._service.record_key(now=now())
            self._key_recorded = True

    def _sign_checkpoint(self) -> None:
        ensure_checkpoint(self._service, self._backend.settings.ledger_origin, now=now())

    def _publish_to_witness(self) -> None:
        self._witnesses.publish_due(now())

    @property
    def _service(self) -> Service:
        return self._backend.service
