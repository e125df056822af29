"""The use cases: open, vote, ask, answer, cancel, revoke, redeem, report, expire.

Every change is one transaction with its ledger entry, and every refused attempt is an entry of its own. The
service has no clock and makes no ids: callers pass `now` and `request_id`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from airflow_approvals.core import gate, progress, receipt
from airflow_approvals.core import policy as policies
from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import (
    ApprovalsError,
    IdempotencyConflictError,
    NoPolicyError,
    NotAllowedError,
    NotApprovedError,
    PolicyDeniesError,
    ReceiptGoneError,
    ServiceUnavailableError,
    TaskInstanceRefusedError,
)
from airflow_approvals.core.expressions import check_not_denied, expression_variables
from airflow_approvals.core.identity import requesters_of
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    Entry,
    EntryDraft,
    Evidence,
    Origin,
    Outcome,
    Person,
    Question,
    State,
    Verdict,
    Vote,
    digest_of_action,
    to_json,
)
from airflow_approvals.core.policy import Policy, PolicyFile
from airflow_approvals.ports import (
    Origins,
    PolicySource,
    Signer,
    Store,
    StoredIdempotencyKey,
    TaskSlot,
    Transaction,
)

MAX_KEYS = 1000
"""Public keys that are told; more rotations than that have other troubles."""

LIVE_TASK_STATES = frozenset({"running", "deferred"})
"""A task instance in any other state does not run, so nobody can speak for it."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a caller wants approved."""

    action: Action
    evidence: Evidence
    gate: str = ""
    policy: str | None = None  # an assertion: the server's match must be this one


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The request that answers an opening; `created` is False when it was there before."""

    request: ApprovalRequest
    created: bool


class Service:
    """Joins rules, store, signer and policy; everything that changes a request goes through here."""

    def __init__(self, *, store: Store, origins: Origins, policies: PolicySource, signer: Signer) -> None:
        self.store = store
        self.policies = policies
        self.signer = signer
        self._origins = origins

    # --- open ---------------------------------------------------------------------------------------------

    def open_for_task(self, ti_id: str, opening: Opening, *, request_id: str, now: datetime) -> Opened:
        """Open a request for a running task instance, or return the one that it already has.

        The same content of the same gate in the same task reuses a pending or approved request, whichever try
        asks; changed content supersedes a pending one and revokes an approved one. So repeating the call is
        harmless without an Idempotency-Key.
        """
        actor = f"worker:{ti_id}"
        with self._refusals_recorded(actor, None, "open", now):
            origin = self._live_origin(ti_id)
            actor = actor_of(origin)
            draft = self._draft(
                opening,
                origin=origin,
                requesters=requesters_of(origin),
                opened_by="worker",
                request_id=request_id,
                now=now,
            )
            slot = slot_of(origin, opening.gate)
            with self.store.begin() as tx:
                prior = tx.find_latest_request(slot, for_update=True)
                if prior is not None:
                    kept = self._settle_prior(tx, prior, draft, actor=actor, now=now)
                    if kept is not None:
                        return Opened(request=kept, created=False)
                self._insert(tx, draft, actor=actor)
            return Opened(request=draft, created=True)

    def open_for_person(
        self, person: Person, opening: Opening, *, key: str, request_id: str, now: datetime
    ) -> Opened:
        """Open a request that a logged-in person asks for; that person is its requester."""
        with self._refusals_recorded(person, None, "open", now):
            draft = self._draft(
                opening, origin=None, requesters=(person,), opened_by=person, request_id=request_id, now=now
            )
            with self.store.begin() as tx:
                stored = tx.find_idempotency_key(person, key)
                if stored is not None:
                    if stored.body_sha256 != digest_of_opening(opening):
                        raise IdempotencyConflictError(
                            "Idempotency-Key: it was used for another request; send a new key for new content"
                        )
                    return Opened(request=tx.get_request(stored.request_id), created=False)
                tx.insert_idempotency_key(
                    person,
                    key,
                    StoredIdempotencyKey(request_id=draft.id, body_sha256=digest_of_opening(opening)),
                )
                self._insert(tx, draft, actor=person)
            return Opened(request=draft, created=True)

    def _draft(
        self,
        opening: Opening,
        *,
        origin: Origin | None,
        requesters: tuple[Person, ...],
        opened_by: str,
        request_id: str,
        now: datetime,
    ) -> ApprovalRequest:
        policy_file = self.policies.current()
        policy = policy_file.match(opening.action, dag_id=origin.dag_id if origin else None)
        policies.check_asserted(policy, opening.policy)
        variables = expression_variables(opening.action, opening.evidence, requesters)
        check_not_denied(policy, variables)
        barred = () if policy.self_approval == "allowed" else requesters
        progress.check_can_be_met(policy, policy_file, variables, barred=barred)
        gate.check_text("justification", opening.action.justification)
        return ApprovalRequest(
            id=request_id,
            revision=1,
            state=State.PENDING,
            action=opening.action,
            evidence=opening.evidence,
            action_digest=digest_of_action(opening.action, opening.evidence),
            gate=opening.gate,
            opened_by=opened_by,
            requesters=requesters,
            origin=origin,
            policy=policy.name,
            policy_digest=policies.digest_of_policy(policy),
            opened_at=now,
            expires_at=now + policy.expires_after,
        )

    def _settle_prior(
        self, tx: Transaction, prior: ApprovalRequest, draft: ApprovalRequest, *, actor: str, now: datetime
    ) -> ApprovalRequest | None:
        """Return the prior request of this slot if it answers the opening, else close it and return None."""
        same = (prior.action_digest, prior.policy_digest) == (draft.action_digest, draft.policy_digest)
        same_try = bool(prior.origin and draft.origin and prior.origin.ti_id == draft.origin.ti_id)
        match prior.state:
            case State.PENDING:
                if same and now < prior.expires_at:
                    return prior
                self._close(tx, prior, State.SUPERSEDED, f"superseded by {draft.id}", actor=actor, now=now)
            case State.APPROVED:
                if same and prior.receipt_expires_at and now < prior.receipt_expires_at:
                    return prior
                self._close(tx, prior, State.REVOKED, f"superseded by {draft.id}", actor=actor, now=now)
            case State.REDEEMED if draft.origin and prior.redeemed_by == draft.origin.ti_id:
                # Whichever try opened it: this one is at it (a rescheduled task runs anew within its try).
                return prior
            case State.REDEEMED:
                self._close_unreported(tx, prior, actor=actor, now=now)
            case State.DENIED | State.EXPIRED | State.CANCELLED if same and same_try:
                # The same try asks again after its answer: the answer stands. A new try may ask anew.
                return prior
            case _:
                pass
        return None

    def _close(
        self, tx: Transaction, request: ApprovalRequest, to: State, because: str, *, actor: str, now: datetime
    ) -> ApprovalRequest:
        moved = gate.move(request, to, now=now, because=because)
        entry = tx.append(_draft_entry(f"request.{to}", moved, actor=actor, now=now, because=because))
        if request.state is State.PENDING:
            # What ends an approval is no decision: the receipt keeps its place in the ledger.
            moved = replace(moved, decision_index=entry.index)
        tx.update_request(moved)
        return moved

    def _close_unreported(
        self, tx: Transaction, prior: ApprovalRequest, *, actor: str, now: datetime
    ) -> None:
        """Fail what an earlier try redeemed and never reported: its worker is gone."""
        outcome = Outcome(
            published=False, detail="no outcome was reported by the try that redeemed it", reported_at=now
        )
        closed = replace(
            gate.move(prior, State.FAILED, now=now, because=prior.decided_because), outcome=outcome
        )
        tx.append(_draft_entry("outcome.reported", closed, actor=actor, now=now, outcome=to_json(outcome)))
        tx.update_request(closed)

    def _insert(self, tx: Transaction, draft: ApprovalRequest, *, actor: str) -> None:
        tx.insert_request(draft)
        tx.append(
            _draft_entry(
                "request.opened",
                draft,
                actor=actor,
                now=draft.opened_at,
                action=to_json(draft.action),
                evidence=to_json(draft.evidence),
                origin=to_json(draft.origin) if draft.origin else None,
                requesters=list(draft.requesters),
                gate=draft.gate,
                expires_at=to_json(draft)["expires_at"],
            )
        )

    # --- answer -------------------------------------------------------------------------------------------

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
    ) -> ApprovalRequest:
        """Count one person's vote; the vote that meets the last rule approves, one deny denies."""
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
                tx.append(_draft_entry("vote.cast", voted, actor=person, now=now, vote=to_json(vote)))
                if voted.state is not State.PENDING:
                    voted = self._record_decision(tx, voted, actor=person, now=now)
                tx.update_request(voted)
            return voted

    def _with_receipt(self, decided: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
        if decided.state is not State.APPROVED or decided.receipt_expires_at is None:
            return decided
        statement = receipt.statement_of(decided, decided_at=now, not_after=decided.receipt_expires_at)
        return replace(decided, receipt=receipt.sign_receipt(statement, self.signer))

    def _record_decision(
        self, tx: Transaction, decided: ApprovalRequest, *, actor: str, now: datetime
    ) -> ApprovalRequest:
        facts: dict[str, Any] = {"because": decided.decided_because}
        if decided.receipt is not None:
            facts["receipt_sha256"] = receipt.payload_sha256(decided.receipt)
        entry = tx.append(_draft_entry(f"request.{decided.state}", decided, actor=actor, now=now, **facts))
        return replace(decided, decision_index=entry.index)

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
            tx.append(
                _draft_entry("question.asked", asked, actor=person, now=now, question=to_json(question))
            )
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
                _check_same_run(request, origin)
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
            _draft_entry("answer.given", answered, actor=answered_by, now=now, question=to_json(question))
        )
        tx.update_request(answered)
        return answered

    # --- take back ----------------------------------------------------------------------------------------

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

    # --- use ----------------------------------------------------------------------------------------------

    def redeem(self, ti_id: str, request_id: str, *, digest: str, now: datetime) -> ApprovalRequest:
        """Use the receipt up for one running task instance; the same one may come again and gets the same.

        (1) the task instance runs and belongs to the run that asked, (2) the policy is still the one that was
        applied, (3) the digest, (4) single use and (5) the life of the approval: `gate.redeem`.
        """
        with self._refusals_recorded(f"worker:{ti_id}", request_id, "redeem", now):
            origin = self._live_origin(ti_id)  # (1)
            self._check_policy_unchanged(request_id, actor=actor_of(origin), now=now)  # (2)
            with self.store.begin() as tx:
                request = tx.get_request(request_id, for_update=True)
                _check_same_run(request, origin)
                redeemed = gate.redeem(request, ti_id=origin.ti_id, digest=digest, now=now)  # (3) (4) (5)
                if redeemed is not request:
                    redeemed = replace(redeemed, redeemed_in=actor_of(origin))
                    tx.append(
                        _draft_entry(
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
                        _draft_entry(
                            "outcome.reported",
                            reported,
                            actor=f"worker:{ti_id}",
                            now=now,
                            outcome=to_json(outcome),
                        )
                    )
                    tx.update_request(reported)
            return reported

    # --- time and policy ----------------------------------------------------------------------------------

    def expire_due(self, *, now: datetime, limit: int = 100) -> int:
        """Close what ran out of time: pending ones expire, unredeemed approvals lapse. Returns how many."""
        with self.store.begin() as tx:
            due = tx.find_due(now, limit=limit)
            for request in due:
                to = State.EXPIRED if request.state is State.PENDING else State.LAPSED
                because = "nobody answered in time" if to is State.EXPIRED else "not redeemed in time"
                self._close(tx, request, to, because, actor="service", now=now)
        return len(due)

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
            except (NoPolicyError, PolicyDeniesError) as refusal:
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
            tx.append(
                _draft_entry(
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

    def record_policy(self, *, now: datetime) -> None:
        """Put the policy file in force into the ledger, unless it is what was put there last."""
        current = self.policies.current()
        with self.store.begin() as tx:
            last = tx.find_last_entry("policy.loaded")
            if last is not None and _data_of(last).get("digest") == current.digest:
                return
            tx.append(
                EntryDraft(
                    kind="policy.loaded",
                    request_id=None,
                    actor="service",
                    time=now,
                    data={"digest": current.digest, "policies": [policy.name for policy in current.policies]},
                )
            )

    def record_key(self, *, now: datetime) -> None:
        """Put the public key that signs here into the ledger, unless it is there.

        Processes with different keys (each host made its own) must not take turns in adding them.
        """
        known = self.store.entries_of_kind("key.added", limit=MAX_KEYS)
        if any(_data_of(entry).get("keyid") == self.signer.keyid for entry in known):
            return
        with self.store.begin() as tx:
            last = tx.find_last_entry("key.added")
            if last is not None and _data_of(last).get("keyid") == self.signer.keyid:
                return
            tx.append(
                EntryDraft(
                    kind="key.added",
                    request_id=None,
                    actor="service",
                    time=now,
                    data={"keyid": self.signer.keyid, "public_key": self.signer.public_key_json()},
                )
            )

    def progress_of(self, request: ApprovalRequest) -> progress.Progress | None:
        """Return how far an open request is; None when it is not open or no policy covers it now."""
        if request.state is not State.PENDING:
            return None
        policy_file = self.policies.current()
        try:
            policy = self._match(request, policy_file)
        except NoPolicyError:
            return None
        variables = expression_variables(request.action, request.evidence, request.requesters)
        return progress.progress_of(policy, policy_file, request.votes, variables)

    def record_refusal(
        self, actor: str, request_id: str | None, attempt: str, refusal: ApprovalsError, *, now: datetime
    ) -> None:
        """Put an attempt into the ledger that was refused, here or before it came here."""
        with self.store.begin() as tx:
            tx.append(
                EntryDraft(
                    kind="attempt.refused",
                    request_id=request_id,
                    actor=actor,
                    time=now,
                    data={"attempt": attempt, "type": refusal.type, "because": str(refusal)},
                )
            )

    # --- shared -------------------------------------------------------------------------------------------

    def _live_origin(self, ti_id: str) -> Origin:
        origin = self._origins.origin_of(ti_id)
        if origin.state not in LIVE_TASK_STATES:
            raise TaskInstanceRefusedError(
                f"task instance {ti_id} is {origin.state}: only a running or deferred one may speak"
            )
        return origin

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

    def _match(self, request: ApprovalRequest, policy_file: PolicyFile) -> Policy:
        return policy_file.match(request.action, dag_id=request.origin.dag_id if request.origin else None)

    def _policy_of(self, request: ApprovalRequest, policy_file: PolicyFile) -> Policy:
        policy = self._match(request, policy_file)
        if policies.digest_of_policy(policy) != request.policy_digest:
            # The file changed between `follow_policy` and the lock: the caller has not seen this rule.
            raise NotApprovedError(f"request {request.id}: its policy changed just now; look at it again")
        return policy

    def _is_bound_to_current(self, request: ApprovalRequest) -> bool:
        try:
            policy = self._match(request, self.policies.current())
        except NoPolicyError:
            return False
        return (policy.name, policies.digest_of_policy(policy)) == (request.policy, request.policy_digest)

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

    @contextmanager
    def _refusals_recorded(
        self, actor: str, request_id: str | None, attempt: str, now: datetime
    ) -> Iterator[None]:
        """Put an attempt that the rules refused into the ledger, in its own transaction, and let it go on."""
        try:
            yield
        except ServiceUnavailableError:
            raise  # nothing was refused: the database or the signing key did not answer
        except ApprovalsError as refusal:
            self.record_refusal(actor, request_id, attempt, refusal, now=now)
            raise


def slot_of(origin: Origin, gate_name: str) -> TaskSlot:
    """Return the place in the DAG run that `origin` occupies, whichever its try."""
    return TaskSlot(
        dag_id=origin.dag_id,
        run_id=origin.run_id,
        task_id=origin.task_id,
        map_index=origin.map_index,
        gate=gate_name,
    )


def actor_of(origin: Origin) -> str:
    """Return how a task instance is named in the ledger."""
    mapped = f"[{origin.map_index}]" if origin.map_index >= 0 else ""
    return f"worker:{origin.dag_id}/{origin.run_id}/{origin.task_id}{mapped}"


def digest_of_opening(opening: Opening) -> str:
    """Return the digest by which a repeated Idempotency-Key is held against its first use."""
    return digest_of(to_json(opening))


def _data_of(entry: Entry) -> dict[str, Any]:
    body = json.loads(entry.body)
    return body["data"] if isinstance(body, dict) and isinstance(body.get("data"), dict) else {}


def _check_same_run(request: ApprovalRequest, origin: Origin) -> None:
    """Raise unless the task instance is of the DAG run that asked; what a person opened is open to any."""
    asked_by = request.origin
    if asked_by is None or (asked_by.dag_id, asked_by.run_id) == (origin.dag_id, origin.run_id):
        return
    raise TaskInstanceRefusedError(
        f"request {request.id} belongs to run {asked_by.run_id} of {asked_by.dag_id}; "
        f"{origin.dag_id} run {origin.run_id} cannot use it"
    )


def _draft_entry(
    kind: str, request: ApprovalRequest, *, actor: str, now: datetime, **facts: Any
) -> EntryDraft:
    return EntryDraft(
        kind=kind,
        request_id=request.id,
        actor=actor,
        time=now,
        data={
            "revision": request.revision,
            "action_digest": request.action_digest,
            "policy": request.policy,
            "policy_digest": request.policy_digest,
            **facts,
        },
    )
