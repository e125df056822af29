"""What a write does with an approval: redeem it once, and report."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from airflow_approvals.core import gate
from airflow_approvals.core.errors import (
    TaskInstanceRefusedError,
)
from airflow_approvals.core.model import (
    ApprovalRequest,
    Origin,
    Outcome,
    State,
    to_json,
)
from airflow_approvals.core.policy import digest_of_policy
from airflow_approvals.service.binding import PolicyBinding
from airflow_approvals.service.cases import LIVE_TASK_STATES, actor_of, check_same_run, draft_entry


class UsingCases(PolicyBinding):
    """Uses receipts up."""

    def redeem(self, ti_id: str, request_id: str, *, digest: str, now: datetime) -> ApprovalRequest:
        """Use the receipt up for one running task instance; the same one may come again and gets the same.

        (1) the task instance runs and belongs to the run that asked, (2) the policy is still the one that was
        applied, and the one that its DAG stands under, (3) the digest, (4) single use and (5) the life of the
        approval: `gate.redeem`.
        """
        with self._refusals_recorded(f"worker:{ti_id}", request_id, "redeem", now):
            origin = self._live_origin(ti_id)  # (1)
            self._check_policy_unchanged(request_id, actor=actor_of(origin), now=now)  # (2)
            with self.store.begin() as tx:
                request = tx.get_request(request_id, for_update=True)
                check_same_run(request, origin)
                self._check_policy_of_dag(request, origin)  # (2)
                redeemed = gate.redeem(request, ti_id=origin.ti_id, digest=digest, now=now)  # (3) (4) (5)
                if redeemed is not request:
                    redeemed = replace(redeemed, redeemed_in=actor_of(origin))
                    tx.append(
                        draft_entry(
                            "receipt.redeemed", redeemed, actor=actor_of(origin), now=now, ti_id=origin.ti_id
                        )
                    )
                    tx.update_request(redeemed)
            return redeemed

    def report_outcome(
        self, ti_id: str, request_id: str, *, published: bool, digest: str | None, detail: str, now: datetime
    ) -> ApprovalRequest:
        """Record what the write did; the task instance may be past running by then.

        A later try of the same task may say it in place of the one that redeemed, once that one is gone: a
        worker that was killed after its write appeared cannot.
        """
        with self._refusals_recorded(f"worker:{ti_id}", request_id, "outcome", now):
            gate.check_text("detail", detail)
            redeemer = self._redeemer_for(ti_id, self.store.get_request(request_id))
            outcome = Outcome(published=published, digest=digest, detail=detail, reported_at=now)
            with self.store.begin() as tx:
                request = tx.get_request(request_id, for_update=True)
                reported = gate.report_outcome(request, outcome, ti_id=redeemer)
                if reported is not request:
                    tx.append(
                        draft_entry(
                            "outcome.reported",
                            reported,
                            actor=f"worker:{ti_id}",
                            now=now,
                            outcome=to_json(outcome),
                        )
                    )
                    tx.update_request(reported)
            return reported

    def _check_policy_of_dag(self, request: ApprovalRequest, origin: Origin) -> None:
        """Raise where what a person opened, outside of any DAG, would get around the policy of this one."""
        if request.origin is not None or request.state is not State.APPROVED:
            return
        policy = self.policies.current().match(request.action, dag_id=origin.dag_id)
        if (policy.name, digest_of_policy(policy)) != (request.policy, request.policy_digest):
            raise TaskInstanceRefusedError(
                f"request {request.id} was opened by a person under policy {request.policy}; in DAG "
                f"{origin.dag_id} the same action stands under {policy.name}: have a task of the DAG ask"
            )

    def _redeemer_for(self, ti_id: str, request: ApprovalRequest) -> str:
        """Return whom `ti_id` may report for: itself, or an earlier try of its own task that is gone."""
        if request.redeemed_by is None or request.redeemed_by == ti_id:
            return ti_id
        if request.redeemed_in != actor_of(self._live_origin(ti_id)):
            return ti_id
        try:
            gone = self._origins.origin_of(request.redeemed_by).state not in LIVE_TASK_STATES
        except TaskInstanceRefusedError:
            gone = True  # Airflow gives every try a new id
        return request.redeemed_by if gone else ti_id
