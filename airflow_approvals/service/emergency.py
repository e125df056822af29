"""Break glass at work: a grant that stands out in the ledger, and that every channel is told of."""

from __future__ import annotations

from datetime import datetime

from airflow_approvals.core.break_glass import break_glass, review
from airflow_approvals.core.model import ApprovalRequest, Channel, Person
from airflow_approvals.service.binding import PolicyBinding
from airflow_approvals.service.cases import draft_entry

GLASS_BROKEN = "glass.broken"
"""The kind of the entry that stands before the approval of an emergency."""

GLASS_REVIEWED = "glass.reviewed"
"""The kind of the entry that somebody else has looked at it afterwards."""


class EmergencyCases(PolicyBinding):
    """Opens the gate for one person of the policy's `break_glass` group."""

    def break_glass(
        self,
        person: Person,
        request_id: str,
        *,
        reason: str,
        revision: int,
        channel: Channel,
        now: datetime,
    ) -> ApprovalRequest:
        """Approve an open request at once, by `person` alone and with a reason."""
        with self._refusals_recorded(person, request_id, "break-glass", now):
            self.follow_policy(request_id, now=now)
            with self.store.begin() as tx:
                request = tx.get_request(request_id, for_update=True)
                policy_file = self.policies.current()
                policy = self._policy_of(request, policy_file)
                granted = break_glass(
                    request,
                    person,
                    policy,
                    policy_file,
                    reason=reason,
                    revision=revision,
                    channel=channel,
                    now=now,
                )
                granted = self._with_receipt(granted, now=now)
                facts = {"reason": reason.strip(), "channel": channel.value}
                group = policy.break_glass.group if policy.break_glass else None
                tx.append(draft_entry(GLASS_BROKEN, granted, actor=person, now=now, group=group, **facts))
                granted = self._record_decision(tx, granted, actor=person, now=now)
                tx.update_request(granted)
            return granted

    def review_glass(self, person: Person, request_id: str, *, remark: str, now: datetime) -> ApprovalRequest:
        """Put on record that `person` has looked at an emergency grant, whatever came of it since."""
        with self._refusals_recorded(person, request_id, "review", now), self.store.begin() as tx:
            request = tx.get_request(request_id, for_update=True)
            policy_file = self.policies.current()
            policy = policy_file.find_policy(request.policy)
            reviewed = review(request, person, policy, policy_file, remark=remark, now=now)
            facts = {"by": person, "remark": remark.strip()}
            tx.append(draft_entry(GLASS_REVIEWED, reviewed, actor=person, now=now, **facts))
            tx.update_request(reviewed)
            return reviewed
