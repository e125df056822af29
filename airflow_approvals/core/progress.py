"""How far the rules of a policy are met, by different people who are members now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from airflow_approvals.core.assignment import assign
from airflow_approvals.core.errors import NoPolicyError
from airflow_approvals.core.expressions import ExpressionError, is_true
from airflow_approvals.core.model import Person, Verdict, Vote
from airflow_approvals.core.policy import Policy, PolicyFile, Rule

_Members = Callable[[str], frozenset[Person]]
"""Who is in a group."""


class VoteOnRecord(NamedTuple):
    """What counts of a vote of the past."""

    voter: Person
    verdict: Verdict
    groups: tuple[str, ...]  # membership at that moment


@dataclass(frozen=True, kw_only=True)
class RuleProgress:
    """How far one rule is met, and by whom; `met_by` is empty for a rule that does not apply."""

    group: str
    needed: int
    applies: bool
    because: str  # why it applies or not, in words
    met_by: tuple[Person, ...]

    @property
    def is_met(self) -> bool:
        return not self.applies or len(self.met_by) >= self.needed


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far all rules together are met; each person counts once, for one rule."""

    rules: tuple[RuleProgress, ...]

    @property
    def is_met(self) -> bool:
        applying = [rule for rule in self.rules if rule.applies]
        return bool(applying) and all(rule.is_met for rule in applying)

    @property
    def missing(self) -> str:
        """What there is and what is missing, like `1 of 2: data-stewards done, security missing`."""
        applying = [rule for rule in self.rules if rule.applies]
        needed = sum(rule.needed for rule in applying)
        got = sum(len(rule.met_by) for rule in applying)
        return f"{got} of {needed}: {', '.join(_standing_of(rule) for rule in applying)}"


def progress_of(
    policy: Policy,
    policy_file: PolicyFile,
    votes: Sequence[Vote],
    variables: Mapping[str, Any],
    *,
    barred: Collection[Person] = (),
) -> Progress:
    """Return how far `policy` is met by `votes`, with the best use of each approval.

    An approval counts while its voter is in the rule's group, has not also denied, and is not `barred`; one
    person counts once, for one rule. A rule whose `when` cannot be evaluated applies. When no rule applies,
    one approval by any group of the policy is needed: no votes are never enough.
    """
    return _progress(policy, partial(_members, policy_file), votes, variables, barred)


def progress_on_record(
    policy: Policy,
    votes: Sequence[VoteOnRecord],
    variables: Mapping[str, Any],
    *,
    barred: Collection[Person] = (),
) -> Progress:
    """Return the same for votes of the past: their voters are in the groups that each vote has on record."""

    def members(group: str) -> frozenset[Person]:
        return frozenset(vote.voter for vote in votes if group in vote.groups)

    return _progress(policy, members, votes, variables, barred)


def _progress(
    policy: Policy,
    members: _Members,
    votes: Sequence[Vote | VoteOnRecord],
    variables: Mapping[str, Any],
    barred: Collection[Person],
) -> Progress:
    denied = {vote.voter for vote in votes if vote.verdict is not Verdict.APPROVE}
    approved = {vote.voter for vote in votes} - denied - set(barred)
    rules = _rules_in_force(policy, members, variables)
    places = [rule.members & approved for rule in rules if rule.applies for _ in range(rule.needed)]
    filled = iter(assign(places))
    return Progress(
        rules=tuple(
            RuleProgress(
                group=rule.group,
                needed=rule.needed,
                applies=rule.applies,
                because=rule.because,
                met_by=_people([next(filled) for _ in range(rule.needed if rule.applies else 0)]),
            )
            for rule in rules
        )
    )


def groups_of(policy_file: PolicyFile, person: Person) -> tuple[str, ...]:
    """Return every group that `person` is a member of now, sorted."""
    return tuple(sorted(name for name, group in policy_file.groups.items() if person in group.people))


def regrouped(
    policy_file: PolicyFile, policy: Policy, votes: Sequence[Vote]
) -> dict[Person, tuple[str, ...]]:
    """Return the groups of each voter who is not in those by now that their vote has on record."""
    now = {vote.voter: approver_groups(policy_file, policy, vote.voter) for vote in votes}
    return {vote.voter: now[vote.voter] for vote in votes if now[vote.voter] != vote.groups}


def approver_groups(policy_file: PolicyFile, policy: Policy, person: Person) -> tuple[str, ...]:
    """Return the groups of `policy` that `person` is a member of now; empty means: may not vote."""
    mine = groups_of(policy_file, person)
    return tuple(group for group in policy.approver_groups if group in mine)


def possible_approvers(
    policy_file: PolicyFile, policy: Policy, *, barred: Collection[Person] = ()
) -> tuple[Person, ...]:
    """Return everybody who may approve under `policy`, sorted; those only Slack knows are not among them."""
    members = {person for group in policy.approver_groups for person in _members(policy_file, group)}
    return tuple(sorted(members - set(barred)))


def check_can_be_met(
    policy: Policy, policy_file: PolicyFile, variables: Mapping[str, Any], *, barred: Collection[Person]
) -> None:
    """Raise `NoPolicyError` when, without those who are `barred`, nobody could ever meet the rules.

    A group that Slack knows more members of is never too small.
    """
    groups = [policy_file.groups[name] for name in policy.approver_groups if name in policy_file.groups]
    if any(group.slack_usergroup for group in groups):
        return
    everybody = set(possible_approvers(policy_file, policy, barred=barred))
    rules = _rules_in_force(policy, partial(_members, policy_file), variables)
    places = [rule.members & everybody for rule in rules if rule.applies for _ in range(rule.needed)]
    can_be_filled = sum(person is not None for person in assign(places))
    if can_be_filled < len(places):
        raise NoPolicyError(
            f"policy {policy.name} needs {len(places)} approvals, and only {can_be_filled} can be had: "
            f"{', '.join(sorted(barred))} asked and may not approve; ask the platform owner to add somebody "
            f"to {', '.join(policy.approver_groups)}"
        )


@dataclass(frozen=True, kw_only=True)
class _RuleInForce:
    """A rule for one request: does it apply, and who may meet it."""

    group: str
    needed: int
    applies: bool
    because: str
    members: frozenset[Person]

    @classmethod
    def of(cls, rule: Rule, members: _Members, variables: Mapping[str, Any]) -> _RuleInForce:
        applies, because = _applies(rule, variables)
        return cls(
            group=rule.group,
            needed=rule.approvals,
            applies=applies,
            because=because,
            members=members(rule.group),
        )


def _rules_in_force(policy: Policy, members: _Members, variables: Mapping[str, Any]) -> list[_RuleInForce]:
    rules = [_RuleInForce.of(rule, members, variables) for rule in policy.require]
    if not any(rule.applies for rule in rules):
        rules.append(_any_group(policy, members))
    return rules


def _applies(rule: Rule, variables: Mapping[str, Any]) -> tuple[bool, str]:
    if rule.when is None:
        return True, "always"
    try:
        holds = is_true(rule.when, variables)
    except ExpressionError as error:
        return True, f"{error}, so the rule applies"
    return holds, f"{rule.when!r} {'holds' if holds else 'does not hold'}"


def _any_group(policy: Policy, members: _Members) -> _RuleInForce:
    return _RuleInForce(
        group=" or ".join(policy.approver_groups),
        needed=1,
        applies=True,
        because="no rule applies, and nobody's yes is never enough",
        members=frozenset().union(*map(members, policy.approver_groups)),
    )


def _members(policy_file: PolicyFile, group: str) -> frozenset[Person]:
    found = policy_file.groups.get(group)
    return frozenset(found.people) if found else frozenset()


def _people(filled: Sequence[Person | None]) -> tuple[Person, ...]:
    return tuple(sorted(person for person in filled if person is not None))


def _standing_of(rule: RuleProgress) -> str:
    if rule.is_met:
        return f"{rule.group} done"
    if rule.needed == 1:
        return f"{rule.group} missing"
    return f"{rule.group} {len(rule.met_by)} of {rule.needed}"
