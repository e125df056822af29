"""What time and configuration drive: expiry, the policy file, the signing key."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow_approvals.core.model import (
    EntryDraft,
    State,
)
from airflow_approvals.service.cases import UseCases, data_of

MAX_KEYS = 1000
"""Public keys that are told; more rotations than that have other troubles."""


class UpkeepCases(UseCases):
    """Closes what ran out of time, and puts on record what is in force."""

    def expire_due(self, *, now: datetime, limit: int = 100) -> int:
        """Close what ran out of time: pending ones expire, unredeemed approvals lapse. Returns how many."""
        with self.store.begin() as tx:
            due = tx.find_due(now, limit=limit)
            for request in due:
                to = State.EXPIRED if request.state is State.PENDING else State.LAPSED
                because = "nobody answered in time" if to is State.EXPIRED else "not redeemed in time"
                self._close(tx, request, to, because, actor="service", now=now)
        return len(due)

    def record_policy(self, *, now: datetime) -> None:
        """Put the policy file in force into the ledger, unless it is what was put there last."""
        current = self.policies.current()
        names = [policy.name for policy in current.policies]
        self._append_unless_last(
            "policy.loaded", "digest", {"digest": current.digest, "policies": names}, now
        )

    def record_key(self, *, now: datetime) -> None:
        """Put the public key that signs here into the ledger, unless it is there.

        Processes with different keys (each host made its own) must not take turns in adding them.
        """
        known = self.store.entries_of_kind("key.added", limit=MAX_KEYS)
        if any(data_of(entry).get("keyid") == self.signer.keyid for entry in known):
            return
        key = {"keyid": self.signer.keyid, "public_key": self.signer.public_key_json()}
        self._append_unless_last("key.added", "keyid", key, now)

    def _append_unless_last(self, kind: str, identity: str, data: dict[str, Any], now: datetime) -> None:
        """Append what the service found, unless the newest entry of its kind says the same."""
        with self.store.begin() as tx:
            last = tx.find_last_entry(kind)
            if last is None or data_of(last).get(identity) != data[identity]:
                tx.append(EntryDraft(kind=kind, request_id=None, actor="service", time=now, data=data))
