"""Which policy a request stands under, and what happens when the policy file changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from airflow_approvals.core import policy as policies
from airflow_approvals.core import progress, reminders
from airflow_approvals.core.errors import (
    InvalidRequestError,
    NoPolicyError,
    NotAllowedError,
    NotApprovedError,
    PolicyDeniesError,
    ReceiptGoneError,
)
from airflow_approvals.core.expressions import check_not_denied, expression_variables
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Evidence,
    Origin,
    Person,
    StandingTerms,
    State,
    digest_of_action,
)
from airflow_approvals.core.policy import Policy, PolicyFile
from airflow_approvals.core.standing import check_may_stand
from airflow_approvals.service.cases import UseCases, draft_entry


class PolicyBinding(UseCases):
    """Keeps requests under the policy in force."""

    def follow_policy(self, request_id: str, *, now: datetime) -> ApprovalRequest:
        """Bind a pending request to the policy in force now, if it was opened under another one.

        Votes given under the old rule do not count under the new one, and the revision grows, so that nobody
        answers what they have not seen. A policy that no longer covers or now denies the action denies it.
        """
        request = self.store.get_request(request_id)
        if request.state is not State.PENDING or self._is_bound_to_current(request):
            return request
        with self.store.begin() as tx:
            request = tx.get_request(request_id, for_update=True)
            if request.state is not State.PENDING:
                return request
            try:
                policy = self._match(request, self.policies.current())
                check_not_denied(
                    policy, expression_variables(request.action, request.evidence, request.requesters)
                )
                if request.standing is not None:
                    check_may_stand(policy, request.standing, request.evidence)
            except (InvalidRequestError, NoPolicyError, NotAllowedError, PolicyDeniesError) as refusal:
                return self._close(
                    tx, request, State.DENIED, f"policy changed: {refusal}", actor="service", now=now
                )
            digest = policies.digest_of_policy(policy)
            if (policy.name, digest) == (request.policy, request.policy_digest):
                return request
            rebound = replace(
                request,
                revision=request.revision + 1,
                policy=policy.name,
                policy_digest=digest,
                votes=(),
                expires_at=request.opened_at + policy.expires_after,
            )
            rebound = reminders.scheduled(rebound, policy)
            tx.append(
                draft_entry(
                    "request.rebound",
                    rebound,
                    actor="service",
                    now=now,
                    previous_policy=request.policy,
                    previous_policy_digest=request.policy_digest,
                    votes_set_aside=len(request.votes),
                )
            )
            tx.update_request(rebound)
            return rebound

    def progress_of(self, request: ApprovalRequest) -> progress.Progress | None:
        """Return how far an open request is; None when it is not open or no policy covers it now."""
        if request.state is not State.PENDING:
            return None
        policy_file = self.policies.current()
        policy = self._match_if_any(request, policy_file)
        if policy is None:
            return None
        variables = expression_variables(request.action, request.evidence, request.requesters)
        return progress.progress_of(policy, policy_file, request.votes, variables)

    def _match(self, request: ApprovalRequest, policy_file: PolicyFile) -> Policy:
        asked_for = request.origin or request.standing
        return policy_file.match(request.action, dag_id=asked_for.dag_id if asked_for else None)

    def _match_if_any(self, request: ApprovalRequest, policy_file: PolicyFile) -> Policy | None:
        try:
            return self._match(request, policy_file)
        except NoPolicyError:
            return None

    def _policy_of(self, request: ApprovalRequest, policy_file: PolicyFile) -> Policy:
        policy = self._match(request, policy_file)
        if policies.digest_of_policy(policy) != request.policy_digest:
            # The file changed between `follow_policy` and the lock: the caller has not seen this rule.
            raise NotApprovedError(f"request {request.id}: its policy changed just now; look at it again")
        return policy

    def _is_bound_to_current(self, request: ApprovalRequest) -> bool:
        policy = self._match_if_any(request, self.policies.current())
        return policy is not None and (policy.name, policies.digest_of_policy(policy)) == (
            request.policy,
            request.policy_digest,
        )

    def _check_policy_unchanged(self, request_id: str, *, actor: str, now: datetime) -> None:
        """Revoke an approval that was given under a rule no longer in force, and raise."""
        request = self.store.get_request(request_id)
        if request.state is not State.APPROVED or self._is_bound_to_current(request):
            return
        with self.store.begin() as tx:
            request = tx.get_request(request_id, for_update=True)
            if request.state is State.APPROVED:
                because = "the policy changed after the approval"
                self._close(tx, request, State.REVOKED, because, actor=actor, now=now)
        raise ReceiptGoneError(
            f"request {request_id}: the policy changed after the approval; run the task again to ask anew"
        )


def draft_under(
    policy: Policy,
    policy_file: PolicyFile,
    *,
    request_id: str,
    action: Action,
    evidence: Evidence,
    gate: str,
    opened_by: str,
    requesters: tuple[Person, ...],
    origin: Origin | None,
    standing: StandingTerms | None = None,
    now: datetime,
) -> ApprovalRequest:
    """Return the pending request under `policy`; raise where it denies this, or where nobody could answer."""
    variables = expression_variables(action, evidence, requesters)
    check_not_denied(policy, variables)
    barred = () if policy.self_approval == "allowed" else requesters
    progress.check_can_be_met(policy, policy_file, variables, barred=barred)
    drafted = ApprovalRequest(
        id=request_id,
        revision=1,
        state=State.PENDING,
        action=action,
        evidence=evidence,
        action_digest=digest_of_action(action, evidence, standing),
        gate=gate,
        opened_by=opened_by,
        requesters=requesters,
        origin=origin,
        policy=policy.name,
        policy_digest=policies.digest_of_policy(policy),
        opened_at=now,
        expires_at=now + policy.expires_after,
        standing=standing,
    )
    return reminders.scheduled(drafted, policy)
