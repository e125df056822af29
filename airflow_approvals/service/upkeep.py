"""What time and configuration drive: expiry, the policy file, the signing key."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from airflow_approvals.core import reminders
from airflow_approvals.core.model import EntryDraft, State
from airflow_approvals.core.policy import digest_of_policy
from airflow_approvals.service.cases import UseCases, data_of, draft_entry

MAX_KEYS = 1000
"""Public keys that are told; more rotations than that have other troubles."""

_AFTER_A_CHANGE = timedelta(minutes=1)


class UpkeepCases(UseCases):
    """Closes what ran out of time, and puts on record what is in force."""

    def expire_due(self, *, now: datetime, limit: int = 100) -> int:
        """Close what ran out of time: pending ones expire, unredeemed approvals lapse. Returns how many."""
        with self.store.begin() as tx:
            due = tx.find_due(now, limit=limit)
            for request in due:
                to = State.EXPIRED if request.state is State.PENDING else State.LAPSED
                because = "nobody answered in time" if to is State.EXPIRED else "not redeemed in time"
                if request.standing is not None and to is State.LAPSED:
                    because = f"stood for its {request.standing.days} days"
                self._close(tx, request, to, because, actor="service", now=now)
        return len(due)

    def remind_due(self, *, now: datetime, limit: int = 100) -> int:
        """Put reminders and escalations that are due on record; channels tell them. Returns how many.

        In one transaction with the moment of the next one: however many processes look, each is told once.
        """
        policy_file = self.policies.current()
        reminded = 0
        with self.store.begin() as tx:
            for request in tx.find_unanswered(now, limit=limit):
                policy = policy_file.find_policy(request.policy)
                if policy is None or digest_of_policy(policy) != request.policy_digest:
                    # The file has changed, and the request is about to follow it.
                    tx.update_request(replace(request, next_notice_at=now + _AFTER_A_CHANGE))
                    continue
                told, notice = reminders.told(request, policy, now=now)
                if notice is not None:
                    facts = {"to": told.escalated_to} if notice is reminders.Notice.ESCALATED else {}
                    waited = int((now - request.opened_at).total_seconds())
                    tx.append(
                        draft_entry(notice, told, actor="service", now=now, waited_seconds=waited, **facts)
                    )
                    reminded += 1
                tx.update_request(told)
        return reminded

    def record_policy(self, *, now: datetime) -> None:
        """Put the policy file in force into the ledger, unless it is what was put there last."""
        current = self.policies.current()
        names = [policy.name for policy in current.policies]
        # What a digest in a receipt stood for can be read years later; channels stay out, they may hold a URL
        # that is a credential.
        rules = [policy.model_dump(mode="json") for policy in current.policies]
        groups = {name: group.model_dump(mode="json") for name, group in current.groups.items()}
        facts = {"digest": current.digest, "policies": names, "rules": rules, "groups": groups}
        self._append_unless_last("policy.loaded", "digest", facts, now)

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
