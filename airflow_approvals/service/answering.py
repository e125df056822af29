"""What people do with a request: vote, ask, answer, cancel, revoke."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from airflow_approvals.core import gate, progress
from airflow_approvals.core.errors import (
    NotAllowedError,
)
from airflow_approvals.core.expressions import expression_variables
from airflow_approvals.core.model import (
    ApprovalRequest,
    Channel,
    Person,
    Question,
    State,
    Verdict,
    Vote,
    to_json,
)
from airflow_approvals.ports import (
    Transaction,
)
from airflow_approvals.service.binding import PolicyBinding
from airflow_approvals.service.cases import actor_of, check_same_run, draft_entry


class AnsweringCases(PolicyBinding):
    """Counts votes and keeps what was said."""

    def cast_vote(
        self,
        person: Person,
        request_id: str,
        verdict: Verdict,
        *,
        reason: str,
        revision: int,
        channel: Channel,
        now: datetime,
        account: Mapping[str, str] | None = None,
    ) -> ApprovalRequest:
        """Count one person's vote; the vote that meets the last rule approves, one deny denies.

        `account` goes on record beside the vote: the account elsewhere that it came from, if it did.
        """
        with self._refusals_recorded(person, request_id, verdict.value, now):
            self.follow_policy(request_id, now=now)
            with self.store.begin() as tx:
                request = tx.get_request(request_id, for_update=True)
                policy_file = self.policies.current()
                policy = self._policy_of(request, policy_file)
                groups = gate.check_may_vote(
                    request,
                    person,
                    policy,
                    policy_file,
                    verdict=verdict,
                    channel=channel,
                    revision=revision,
                    reason=reason,
                    now=now,
                )
                vote = Vote(
                    voter=person,
                    verdict=verdict,
                    reason=reason.strip(),
                    channel=channel,
                    cast_at=now,
                    revision=revision,
                    shown_digest=request.action_digest,
                    groups=groups,
                )
                variables = expression_variables(request.action, request.evidence, request.requesters)
                voted = gate.add_vote(request, vote, policy, policy_file, variables)
                # A signer may be far away (a KMS): it signs before the first entry locks the ledger's head.
                voted = self._with_receipt(voted, now=now)
                facts = {"vote": to_json(vote), **({"account": dict(account)} if account else {})}
                tx.append(draft_entry("vote.cast", voted, actor=person, now=now, **facts))
                if voted.state is not State.PENDING:
                    regrouped = progress.regrouped(policy_file, policy, voted.votes)
                    voted = self._record_decision(tx, voted, actor=person, now=now, regrouped=regrouped)
                tx.update_request(voted)
            return voted

    def ask(
        self, person: Person, request_id: str, text: str, *, channel: Channel, now: datetime
    ) -> ApprovalRequest:
        """Put an approver's question on the record; the request stays open and its clock goes on."""
        with self._refusals_recorded(person, request_id, "ask", now), self.store.begin() as tx:
            request = tx.get_request(request_id, for_update=True)
            policy_file = self.policies.current()
            policy = self._policy_of(request, policy_file)
            if not progress.approver_groups(policy_file, policy, person):
                raise NotAllowedError(
                    f"{person} may not ask about request {request_id}: not an approver of it"
                )
            question = Question(
                id=len(request.questions) + 1, asked_by=person, asked_at=now, text=text, channel=channel
            )
            asked = gate.add_question(request, question, now=now)
            tx.append(draft_entry("question.asked", asked, actor=person, now=now, question=to_json(question)))
            tx.update_request(asked)
            return asked

    def answer(
        self, person: Person, request_id: str, question_id: int, text: str, *, now: datetime
    ) -> ApprovalRequest:
        """Put the requester's answer on the record."""
        with self._refusals_recorded(person, request_id, "answer", now), self.store.begin() as tx:
            request = tx.get_request(request_id, for_update=True)
            if person not in request.requesters:
                raise NotAllowedError(f"{person} may not answer for request {request_id}: not its requester")
            return self._answer(tx, request, question_id, text, answered_by=person, now=now)

    def answer_for_task(
        self, ti_id: str, request_id: str, question_id: int, text: str, *, now: datetime
    ) -> ApprovalRequest:
        """Put the answer of the task that asked on the record."""
        with self._refusals_recorded(f"worker:{ti_id}", request_id, "answer", now):
            origin = self._live_origin(ti_id)
            with self.store.begin() as tx:
                request = tx.get_request(request_id, for_update=True)
                check_same_run(request, origin)
                return self._answer(tx, request, question_id, text, answered_by=actor_of(origin), now=now)

    def _answer(
        self,
        tx: Transaction,
        request: ApprovalRequest,
        question_id: int,
        text: str,
        *,
        answered_by: str,
        now: datetime,
    ) -> ApprovalRequest:
        answered = gate.add_answer(request, question_id, answer=text, answered_by=answered_by, now=now)
        question = next(question for question in answered.questions if question.id == question_id)
        tx.append(
            draft_entry("answer.given", answered, actor=answered_by, now=now, question=to_json(question))
        )
        tx.update_request(answered)
        return answered

    def cancel(self, person: Person, request_id: str, *, reason: str, now: datetime) -> ApprovalRequest:
        """Withdraw a pending request."""
        with self._refusals_recorded(person, request_id, "cancel", now), self.store.begin() as tx:
            request = tx.get_request(request_id, for_update=True)
            gate.check_may_cancel(request, person, self.policies.current())
            gate.check_text("reason", reason)
            because = f"cancelled by {person}" + (f": {reason.strip()}" if reason.strip() else "")
            return self._close(tx, request, State.CANCELLED, because, actor=person, now=now)

    def revoke(self, person: Person, request_id: str, *, reason: str, now: datetime) -> ApprovalRequest:
        """Take an approval back before it is redeemed."""
        with self._refusals_recorded(person, request_id, "revoke", now), self.store.begin() as tx:
            request = tx.get_request(request_id, for_update=True)
            policy_file = self.policies.current()
            gate.check_may_revoke(request, person, policy_file.find_policy(request.policy), policy_file)
            gate.check_text("reason", reason)
            because = f"revoked by {person}" + (f": {reason.strip()}" if reason.strip() else "")
            return self._close(tx, request, State.REVOKED, because, actor=person, now=now)
