"""Standing approvals: one decision that answers later runs of the same gate, until its days are over.

A standing approval is a request of its own, decided by votes like any other, on the action and evidence of a
run that was approved before. It is never redeemed. A later run is approved by it while the action is the
same, the policy is the same, nothing that the policy's `void_on` names has drifted from the evidence that the
votes were for, and those votes would be enough for this very run: its requesters are barred, its evidence
decides which rules apply, and who has left a group does not count. Drift is always measured from the approved
evidence, never from the last run, so that small steps cannot add up unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from airflow_approvals.core import gate, progress
from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.drift import check_can_be_watched, drifts_of
from airflow_approvals.core.errors import InvalidRequestError, NotAllowedError, VoteRefusedError
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Drift,
    Evidence,
    Grant,
    GrantKind,
    Person,
    StandingTerms,
    State,
    Vote,
)
from airflow_approvals.core.policy import Policy, PolicyFile, digest_of_policy
from airflow_approvals.core.policy_match import check_glob, covers
from airflow_approvals.core.receipt import payload_sha256

APPROVED_BEFORE = frozenset({State.APPROVED, State.REDEEMED, State.COMPLETED})
"""What a standing approval may be asked for: somebody has looked at such a run and said yes."""


@dataclass(frozen=True, kw_only=True)
class Covers:
    """The standing approval answers this run."""

    grant: Grant


@dataclass(frozen=True, kw_only=True)
class CoversNot:
    """It stays as it is, and this run has to ask."""

    because: str


@dataclass(frozen=True, kw_only=True)
class Void:
    """It ends here, and this run has to ask."""

    because: str
    drift: tuple[Drift, ...]


def terms_for(
    prior: ApprovalRequest, *, days: int, source: str | None = None, destination: str | None = None
) -> StandingTerms:
    """Return the terms of a standing approval for runs like `prior`; raise where there can be none."""
    if prior.origin is None or prior.standing is not None or prior.state not in APPROVED_BEFORE:
        raise InvalidRequestError(
            f"request {prior.id}: a standing approval is asked for after a run of a DAG was approved once, "
            "and for that run's request; give the id of such a request"
        )
    if prior.granted is not None:
        raise InvalidRequestError(
            f"request {prior.id} was approved by no vote of its own ({prior.granted.kind}); "
            "give the id of a request that people have looked at"
        )
    for what, glob, uri in (
        ("source", source, prior.action.source),
        ("destination", destination, prior.action.destination),
    ):
        _check_fits(what, glob, uri)
    return StandingTerms(
        approved_id=prior.id,
        days=days,
        dag_id=prior.origin.dag_id,
        task_id=prior.origin.task_id,
        gate=prior.gate,
        source=source,
        destination=destination,
    )


def check_may_stand(policy: Policy, terms: StandingTerms, evidence: Evidence) -> None:
    """Raise unless `policy` lets an approval with this evidence stand for so long."""
    if policy.standing is None:
        raise NotAllowedError(
            f"policy {policy.name} knows no standing approvals: each run must be approved; "
            "the platform owner may add `standing` to it"
        )
    if not 1 <= terms.days <= policy.standing.max_days:
        raise InvalidRequestError(
            f"policy {policy.name} lets an approval stand for 1 to {policy.standing.max_days} days, "
            f"found {terms.days}"
        )
    check_can_be_watched(policy.standing.void_on, evidence)


def answer_of(
    standing: ApprovalRequest,
    run: ApprovalRequest,
    policy: Policy,
    policy_file: PolicyFile,
    variables: Mapping[str, Any],
    *,
    now: datetime,
) -> Covers | CoversNot | Void:
    """Return what `standing` says to `run`, a draft that `policy` covers and `variables` describe.

    (1) it is in force, (2) it is for this gate and this action, (3) the policy is the one it was given under,
    (4) nothing has drifted, (5) its votes are enough for this run.
    """
    terms = standing.standing
    if terms is None or not _is_in_force(standing, now):  # (1)
        return CoversNot(because="it is not in force")
    difference = _difference(terms, standing.action, run)  # (2)
    if difference is not None:
        return CoversNot(because=difference)
    digest = digest_of_policy(policy)
    if policy.standing is None or (standing.policy, standing.policy_digest) != (policy.name, digest):  # (3)
        moved = Drift(
            watched="policy",
            was=f"{standing.policy} {standing.policy_digest[:12]}",
            now=f"{policy.name} {digest[:12]}",
        )
        return Void(because="voided: the policy changed after the approval", drift=(moved,))
    drift = drifts_of(policy.standing.void_on, standing.evidence, run.evidence)  # (4)
    if drift:
        told = "; ".join(f"{each.watched}: {each.was}, now {each.now}" for each in drift)
        return Void(because=f"voided by drift: {told}", drift=drift)
    return _answer_of_votes(standing, run, policy, policy_file, variables)  # (5)


def approve_by(run: ApprovalRequest, grant: Grant, policy: Policy, *, now: datetime) -> ApprovalRequest:
    """Return `run` approved by `grant` at `now`."""
    because = {
        GrantKind.STANDING: f"standing approval {grant.standing_id} by {', '.join(grant.by)}",
        GrantKind.BREAK_GLASS: f"break glass by {', '.join(grant.by)}: {grant.reason}",
    }[grant.kind]
    approved = gate.move(run, State.APPROVED, now=now, because=because)
    return replace(approved, granted=grant, receipt_expires_at=now + policy.receipt_valid_for)


def _check_fits(what: str, glob: str | None, uri: str | None) -> None:
    if glob is None:
        return
    try:
        check_glob(glob)
    except ValueError as error:
        raise InvalidRequestError(f"{what}: {error}") from None
    if uri is None or not covers((glob,), uri):
        raise InvalidRequestError(
            f"{what}: the glob {glob} does not cover what was approved, {uri or 'none'}"
        )


def _is_in_force(standing: ApprovalRequest, now: datetime) -> bool:
    until = standing.receipt_expires_at
    return standing.state is State.APPROVED and until is not None and now < until


def _difference(terms: StandingTerms, approved: Action, run: ApprovalRequest) -> str | None:
    """Return in words how the action of `run` is another one; None when it is the same."""
    origin, action = run.origin, run.action
    if origin is None or (origin.dag_id, origin.task_id, run.gate) != (
        terms.dag_id,
        terms.task_id,
        terms.gate,
    ):
        return "it is for another gate"
    # Not the justification: it is words about the run, such as its date, and decides nothing.
    # By digest: Python takes 1, 1.0 and true for the same.
    if action.kind != approved.kind or digest_of(action.parameters) != digest_of(approved.parameters):
        return "the action or its parameters differ"
    for what, glob, was, now in (
        ("source", terms.source, approved.source, action.source),
        ("destination", terms.destination, approved.destination, action.destination),
    ):
        fits = was == now if glob is None else now is not None and covers((glob,), now)
        if not fits:
            return f"the {what} differs"
    return None


def _answer_of_votes(
    standing: ApprovalRequest,
    run: ApprovalRequest,
    policy: Policy,
    policy_file: PolicyFile,
    variables: Mapping[str, Any],
) -> Covers | CoversNot:
    # Whoever started this run must not be one of those whose yes lets it out.
    barred = () if policy.self_approval == "allowed" else run.requesters
    votes = [vote for vote in standing.votes if _is_good_for(vote, run, policy)]
    reached = progress.progress_of(policy, policy_file, votes, variables, barred=barred)
    if not reached.is_met:
        return CoversNot(because=f"its votes are not enough for this run ({reached.missing})")
    met_by = {person for rule in reached.rules for person in rule.met_by}
    return Covers(
        grant=Grant(
            kind=GrantKind.STANDING,
            by=tuple(Person(name) for name in sorted(met_by)),
            reason="",
            standing_id=standing.id,
            standing_receipt_sha256=payload_sha256(standing.receipt) if standing.receipt else None,
        )
    )


def _is_good_for(vote: Vote, run: ApprovalRequest, policy: Policy) -> bool:
    try:
        gate.check_channel(run, policy, vote.channel)
    except VoteRefusedError:
        return False
    return True
