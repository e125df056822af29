"""Who may read a sealed or protected secret, and the record of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airflow_approvals.core.errors import ApprovalsError, NotLentError, PolicyError
from airflow_approvals.core.lending import Kind, is_lent
from airflow_approvals.core.model import ApprovalRequest, EntryDraft, Origin, State
from airflow_approvals.core.policy_gates import Protected, find_protection
from airflow_approvals.ports import RequestFilter, Store
from airflow_approvals.service.cases import UseCases, actor_of, data_of

RUNNING = "running"
"""The only state in which a task instance reads anything; a deferred one has no process."""

_MAX_HELD = 100
_MAX_ENTRIES = 500


@dataclass(frozen=True, kw_only=True)
class SealChange:
    """What was done to a secret, for the record: `digest` is of what is stored now, None once unsealed."""

    what: str  # sealed, resealed, unsealed
    kind: Kind
    name: str
    digest: str | None
    keyid: str | None


class LendingCases(UseCases):
    """Lends secrets to the task instances that hold an approval for them."""

    def find_protection(self, kind: Kind, name: str) -> Protected | None:
        """Return the entry of the policy file that protects `name`; None where none does."""
        try:
            policy_file = self.policies.current()
        except PolicyError:
            return None
        names = {
            "connection": policy_file.protected_connections,
            "variable": policy_file.protected_variables,
        }
        return find_protection(names[kind], name)

    def lend(self, ti_id: str, kind: Kind, name: str, *, now: datetime) -> ApprovalRequest:
        """Return the approval by which this task instance may read the secret, and record it, once.

        (1) the task instance runs, (2) it has itself redeemed an approval that names the secret, and has not
        reported its outcome, (3) the policy of that approval is one that may lend it. Raises `NotLentError`.
        """
        with self._refusals_recorded(f"worker:{ti_id}", None, f"read {kind} {name}", now):
            origin = self._origins.origin_of(ti_id)
            if origin.state != RUNNING:  # (1)
                raise NotLentError(
                    f"{kind} {name} is protected, and {actor_of(origin)} is {origin.state}: it is lent to "
                    "running tasks only, and the loan ends with the task"
                )
            request = self._loan_of(origin, kind, name)  # (2) (3)
        self._record_loan(request, origin, kind, name, now=now)
        return request

    def refuse_change(self, ti_id: str, kind: Kind, name: str, *, now: datetime) -> NotLentError:
        """Return the refusal of a task that would overwrite or delete a protected secret, on record."""
        refusal = NotLentError(f"{kind} {name} is protected: no task may change or delete it")
        try:
            actor = actor_of(self._origins.origin_of(ti_id))
        except ApprovalsError:
            actor = f"worker:{ti_id}"
        self.record_refusal(actor, None, f"change {kind} {name}", refusal, now=now)
        return refusal

    def record_seal(self, change: SealChange, *, actor: str, now: datetime) -> None:
        """Put on record what was done to a secret."""
        with self.store.begin() as tx:
            tx.append(
                EntryDraft(
                    kind=f"secret.{change.what}",
                    request_id=None,
                    actor=actor,
                    time=now,
                    data={
                        "kind": change.kind,
                        "name": change.name,
                        "digest": change.digest,
                        "keyid": change.keyid,
                    },
                )
            )

    def _loan_of(self, origin: Origin, kind: Kind, name: str) -> ApprovalRequest:
        wanted = RequestFilter(states=(State.REDEEMED,), redeemed_by=origin.ti_id, limit=_MAX_HELD)
        redeemed = self.store.list_requests(wanted).requests
        held = [request for request in redeemed if is_lent(request, kind, name, ti_id=origin.ti_id)]
        if not held:
            raise NotLentError(
                f"{kind} {name} is protected, and {actor_of(origin)} holds no approval that names it: gate "
                "the task, and let it read the secret after it was approved"
            )
        protection = self.find_protection(kind, name)
        allowed = protection.policies if protection else None
        for request in held:
            if allowed is None or request.policy in allowed:
                return request
        raise NotLentError(
            f"{kind} {name} is lent under policy {', '.join(allowed or ())} only; this task was approved "
            f"under {', '.join(sorted({request.policy for request in held}))}"
        )

    def _record_loan(
        self, request: ApprovalRequest, origin: Origin, kind: Kind, name: str, *, now: datetime
    ) -> None:
        facts = {"kind": kind, "name": name, "ti_id": origin.ti_id, "action_digest": request.action_digest}
        known = self.store.entries_of_request(request.id, limit=_MAX_ENTRIES)
        if any(data_of(entry) == facts for entry in known):
            return
        with self.store.begin() as tx:
            tx.append(
                EntryDraft(
                    kind="secret.lent", request_id=request.id, actor=actor_of(origin), time=now, data=facts
                )
            )


def last_seals(store: Store) -> dict[tuple[str, str], str | None]:
    """Return for each kind and name the digest that was recorded last; None for those unsealed since."""
    found: dict[tuple[str, str], tuple[int, str | None]] = {}
    for what in ("sealed", "resealed", "unsealed"):
        for entry in store.entries_of_kind(f"secret.{what}", limit=_MAX_ENTRIES):
            data = data_of(entry)
            key = (str(data.get("kind")), str(data.get("name")))
            if entry.index > found.get(key, (-1, None))[0]:
                found[key] = (entry.index, data.get("digest"))
    return {key: digest for key, (_, digest) in found.items()}
