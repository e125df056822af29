"""What the policy file says about one action, in plain words, without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_approvals.core.expressions import expression_variables, find_denials
from airflow_approvals.core.model import Action, Evidence, Person
from airflow_approvals.core.policy import Policy, PolicyFile
from airflow_approvals.core.policy_words import duration_text
from airflow_approvals.core.progress import possible_approvers, progress_of

_REASON_RULES = {
    "never": "No reason is asked for.",
    "on_deny": "Who denies must say why.",
    "always": "Everybody who answers must say why.",
}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What would happen to an action; `policy` is None when no policy covers it, and it is refused."""

    policy: str | None
    mismatches: tuple[str, ...]  # one sentence for each policy that was passed over
    denials: tuple[str, ...]  # one for each `deny_if` that refuses the action
    approvals: tuple[str, ...]  # who must answer, and which rules do not apply
    barred: tuple[str, ...]  # who may not answer
    terms: tuple[str, ...]  # reasons and durations

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything above in reading order, the verdict first after the policies that were passed over."""
        if self.policy is None:
            return (*self.mismatches, "No policy covers this action: it is refused.")
        verdict = "this action is refused" if self.denials else "somebody must approve this action"
        return (
            *self.mismatches,
            f"Policy {self.policy} is the first that covers it: {verdict}.",
            *self.denials,
            *self.approvals,
            *self.barred,
            *self.terms,
        )


def explain(
    policy_file: PolicyFile,
    action: Action,
    evidence: Evidence,
    requesters: Sequence[Person],
    *,
    dag_id: str | None,
) -> Explanation:
    """Return in plain words what `policy_file` says about `action`.

    Raises `InvalidRequestError` for an action that no policy could be asked about.
    """
    mismatches: list[str] = []
    policy = None
    for candidate, mismatch in policy_file.mismatches(action, dag_id=dag_id):
        if mismatch is None:
            policy = candidate
        else:
            mismatches.append(f"Policy {candidate.name} does not cover it: {mismatch}.")
    if policy is None:
        return Explanation(
            policy=None, mismatches=tuple(mismatches), denials=(), approvals=(), barred=(), terms=()
        )
    variables = expression_variables(action, evidence, requesters)
    return Explanation(
        policy=policy.name,
        mismatches=tuple(mismatches),
        denials=tuple(f"Refused: {denial}." for denial in find_denials(policy, variables)),
        approvals=_approvals(policy_file, policy, variables, _barred(policy, requesters)),
        barred=_barring(policy, requesters),
        terms=(*_terms(policy), *_ways_past(policy, policy_file, requesters)),
    )


def _barred(policy: Policy, requesters: Sequence[Person]) -> tuple[Person, ...]:
    return () if policy.self_approval == "allowed" else tuple(requesters)


def _approvals(
    policy_file: PolicyFile, policy: Policy, variables: Mapping[str, Any], barred: Sequence[Person]
) -> tuple[str, ...]:
    sentences = []
    for rule in progress_of(policy, policy_file, (), variables).rules:
        noun = "approval" if rule.needed == 1 else "approvals"
        if rule.applies:
            sentences.append(f"{rule.needed} {noun} by {rule.group} needed ({rule.because}).")
        else:
            sentences.append(f"No approval by {rule.group} needed ({rule.because}).")
    approvers = possible_approvers(policy_file, policy, barred=barred)
    sentences.append(f"May approve: {', '.join(approvers) or 'nobody known here'}; each counts for one rule.")
    return tuple(sentences)


def _barring(policy: Policy, requesters: Sequence[Person]) -> tuple[str, ...]:
    if not requesters:
        return ("The requester is not known: only answers with an Airflow login count.",)
    if policy.self_approval == "allowed":
        return (f"May approve their own action, which is recorded as such: {', '.join(requesters)}.",)
    return (f"May not approve, because they ask: {', '.join(requesters)}.",)


def _terms(policy: Policy) -> tuple[str, ...]:
    channels = f"Answers are taken from {', '.join(policy.channels)} only." if policy.channels else ""
    terms = (
        _REASON_RULES[policy.require_reason],
        channels,
        f"Without a decision it expires after {duration_text(policy.expires_after)}.",
        f"An approval is good for {duration_text(policy.receipt_valid_for)}.",
    )
    return tuple(term for term in terms if term)


def _ways_past(policy: Policy, policy_file: PolicyFile, requesters: Sequence[Person]) -> tuple[str, ...]:
    """Return what lets a run through without a vote on it."""
    sentences = []
    if policy.standing is not None:
        drift = ", ".join(policy.standing.void_on)
        days = policy.standing.max_days
        sentences.append(f"An approval may stand for {days} days at most; it ends on drift in: {drift}.")
    if policy.break_glass is not None:
        group = policy_file.groups[policy.break_glass.group]
        barred = set(_barred(policy, requesters))
        people = ", ".join(user for user in group.users if user not in barred) or "nobody known here"
        sentences.append(
            f"In an emergency one member of {policy.break_glass.group} may grant it alone, with a reason, "
            f"and everybody is told: {people}."
        )
    return tuple(sentences)
