"""Standing approvals at work: asked for by a person, decided by votes, and answering for later runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_approvals.core.expressions import expression_variables
from airflow_approvals.core.model import (
    ApprovalRequest,
    Person,
    StandingTerms,
    State,
    to_json,
)
from airflow_approvals.core.progress import regrouped
from airflow_approvals.core.standing import Covers, Void, answer_of, approve_by, check_may_stand, terms_for
from airflow_approvals.ports import Transaction
from airflow_approvals.service.binding import PolicyBinding, draft_under
from airflow_approvals.service.cases import draft_entry


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The request that answers an opening; `created` is False when it was there before."""

    request: ApprovalRequest
    created: bool


@dataclass(frozen=True, kw_only=True)
class Standings:
    """What the standing approvals of a gate say to one run."""

    run: ApprovalRequest  # approved, if one of them covers it
    regrouped: Mapping[Person, Sequence[str]]  # whose votes on that one it is, see `_record_decision`
    ended: tuple[tuple[ApprovalRequest, Void], ...]


class StandingCases(PolicyBinding):
    """Asks for standing approvals, and lets them answer."""

    def open_standing(
        self,
        person: Person,
        request_id: str,
        *,
        days: int,
        source: str | None,
        destination: str | None,
        new_id: str,
        now: datetime,
    ) -> Opened:
        """Ask that the approval of `request_id` shall stand for `days`; votes decide, as ever.

        Who asks for it is barred from voting on it, as are those who asked for the run. The same call again
        finds the request that is still open.
        """
        with self._refusals_recorded(person, request_id, "standing", now):
            prior = self.store.get_request(request_id)
            terms = terms_for(prior, days=days, source=source, destination=destination)
            draft = self._standing_draft(prior, terms, person=person, new_id=new_id, now=now)
            with self.store.begin() as tx:
                for asked in tx.find_standing(terms, state=State.PENDING):
                    same = (asked.action_digest, asked.policy_digest)
                    if same == (draft.action_digest, draft.policy_digest) and now < asked.expires_at:
                        return Opened(request=asked, created=False)
                self._insert(tx, draft, actor=person)
            return Opened(request=draft, created=True)

    def _standing_draft(
        self, prior: ApprovalRequest, terms: StandingTerms, *, person: Person, new_id: str, now: datetime
    ) -> ApprovalRequest:
        policy_file = self.policies.current()
        policy = policy_file.match(prior.action, dag_id=terms.dag_id)
        check_may_stand(policy, terms, prior.evidence)
        requesters = tuple(sorted({person, *prior.requesters}))
        return draft_under(
            policy,
            policy_file,
            request_id=new_id,
            action=prior.action,
            evidence=prior.evidence,
            gate=prior.gate,
            opened_by=person,
            requesters=requesters,
            origin=None,
            standing=terms,
            now=now,
        )

    def _ask_standings(self, tx: Transaction, draft: ApprovalRequest, *, now: datetime) -> Standings:
        """Return `draft` approved if a standing approval covers it, and those that it ends."""
        policy_file = self.policies.current()
        policy = self._match_if_any(draft, policy_file)
        if draft.origin is None or policy is None:
            return Standings(run=draft, regrouped={}, ended=())
        place = StandingTerms(
            approved_id="", days=1, dag_id=draft.origin.dag_id, task_id=draft.origin.task_id, gate=draft.gate
        )
        variables = expression_variables(draft.action, draft.evidence, draft.requesters)
        run, ended = draft, []
        moved: Mapping[Person, Sequence[str]] = {}
        for standing in tx.find_standing(place, state=State.APPROVED):
            answer = answer_of(standing, draft, policy, policy_file, variables, now=now)
            if isinstance(answer, Void):
                ended.append((standing, answer))
            elif isinstance(answer, Covers) and run.state is State.PENDING:
                run = self._with_receipt(approve_by(draft, answer.grant, policy, now=now), now=now)
                moved = regrouped(policy_file, policy, standing.votes)
        if ended and run.state is State.PENDING:
            first, void = ended[0]
            run = replace(run, voided=first.id, drift=void.drift)
        return Standings(run=run, regrouped=moved, ended=tuple(ended))

    def _insert_answered(
        self, tx: Transaction, standings: Standings, *, actor: str, now: datetime
    ) -> ApprovalRequest:
        """Insert the run, approved at once where a standing approval covers it; return it as it is then."""
        run = standings.run
        is_approved = run.state is State.APPROVED
        self._insert(tx, replace(run, state=State.PENDING) if is_approved else run, actor=actor)
        for ended, void in standings.ended:
            self._close(
                tx, ended, State.REVOKED, void.because, actor="service", now=now, voided_by=run.id,
                drift=[to_json(drift) for drift in void.drift],
            )  # fmt: skip
        if is_approved:
            run = self._record_decision(tx, run, actor="service", now=now, regrouped=standings.regrouped)
            tx.update_request(run)
        return run

    def _insert(self, tx: Transaction, draft: ApprovalRequest, *, actor: str) -> None:
        tx.insert_request(draft)
        facts = {
            "standing": to_json(draft.standing) if draft.standing else None,
            "voided": draft.voided,
            "drift": [to_json(drift) for drift in draft.drift] or None,
        }
        tx.append(
            draft_entry(
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
                **{name: fact for name, fact in facts.items() if fact is not None},
            )
        )
