"""Rules are met by different people who are members now, and never by nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_approvals.core.assignment import assign
from airflow_approvals.core.errors import NoPolicyError
from airflow_approvals.core.model import Channel, Person, Verdict, Vote
from airflow_approvals.core.policy import Group, Match, Policy, PolicyFile, Rule, parse_policy_file
from airflow_approvals.core.progress import (
    Progress,
    VoteOnRecord,
    approver_groups,
    check_can_be_met,
    groups_of,
    possible_approvers,
    progress_of,
    progress_on_record,
)

PEOPLE = [Person(name) for name in ("alice", "bob", "carol", "dave", "erin")]
VARIABLES = {"pii": {"residual": 0}, "dataset": {"rows": 5}}


def approve(name: str) -> Vote:
    return Vote(
        voter=Person(name),
        verdict=Verdict.APPROVE,
        reason="",
        channel=Channel.PAGE,
        cast_at=datetime(2026, 1, 1, tzinfo=UTC),
        revision=1,
        shown_digest="0" * 64,
        groups=(),
    )


def deny(name: str) -> Vote:
    return replace(approve(name), verdict=Verdict.DENY)


def policy_of(*rules: Rule) -> Policy:
    return Policy(name="p", match=Match(action=("export",)), require=rules)


def file_of(policy: Policy, **groups: tuple[str, ...]) -> PolicyFile:
    sized = {name: Group(users=users, slack_usergroup="S1") for name, users in groups.items()}
    return PolicyFile(version=1, groups=sized, policies=(policy,))


TWO_RULES = policy_of(Rule(group="stewards"), Rule(group="security"))
TWO_GROUPS = file_of(TWO_RULES, stewards=("alice", "bob"), security=("bob", "carol"))


def standing(*votes: Vote, policy: Policy = TWO_RULES, policy_file: PolicyFile = TWO_GROUPS) -> Progress:
    return progress_of(policy, policy_file, votes, VARIABLES)


def test_no_votes_meet_nothing() -> None:
    assert not standing().is_met
    assert standing().missing == "0 of 2: stewards missing, security missing"


def test_no_rules_are_not_met() -> None:
    assert not Progress(rules=()).is_met


def test_two_people_meet_two_rules() -> None:
    met = standing(approve("alice"), approve("carol"))
    assert met.is_met
    assert met.missing == "2 of 2: stewards done, security done"
    assert [rule.met_by for rule in met.rules] == [("alice",), ("carol",)]


def test_a_person_in_both_groups_never_meets_two_rules_alone() -> None:
    assert not standing(approve("bob")).is_met
    assert not standing(approve("bob"), approve("bob")).is_met
    assert standing(approve("bob")).missing == "1 of 2: stewards done, security missing"


@pytest.mark.parametrize("other", ["alice", "carol"])
def test_the_best_use_of_a_person_in_both_groups_is_found(other: str) -> None:
    for votes in permutations((approve("bob"), approve(other))):
        assert standing(*votes).is_met


def test_more_than_one_approval_is_counted() -> None:
    policy = policy_of(Rule(group="stewards", approvals=2))
    policy_file = file_of(policy, stewards=("alice", "bob", "carol"))
    assert (
        standing(approve("alice"), policy=policy, policy_file=policy_file).missing
        == "1 of 2: stewards 1 of 2"
    )
    assert standing(approve("alice"), approve("carol"), policy=policy, policy_file=policy_file).is_met


NOT_COUNTED = {
    "a stranger": (approve("alice"), approve("mallory")),
    "who denied too": (approve("alice"), approve("carol"), deny("carol")),
    "who denied first": (approve("alice"), deny("carol"), approve("carol")),
    "who only denied": (approve("alice"), deny("carol")),
    "who was a member then": (approve("alice"), replace(approve("dave"), groups=("security",))),
}


@pytest.mark.parametrize("votes", NOT_COUNTED.values(), ids=NOT_COUNTED.keys())
def test_a_vote_that_does_not_count(votes: tuple[Vote, ...]) -> None:
    assert not standing(*votes).is_met


def test_the_barred_do_not_count() -> None:
    votes = [approve("alice"), approve("carol")]
    assert not progress_of(TWO_RULES, TWO_GROUPS, votes, VARIABLES, barred=[Person("carol")]).is_met


def test_a_rule_applies_only_when_its_expression_holds() -> None:
    policy = policy_of(Rule(group="stewards"), Rule(group="security", when="dataset.rows > 100"))
    one = standing(approve("alice"), policy=policy)
    assert one.is_met
    assert one.missing == "1 of 1: stewards done"
    assert not one.rules[1].applies
    many = progress_of(policy, TWO_GROUPS, [approve("alice")], {"dataset": {"rows": 101}})
    assert not many.is_met


@pytest.mark.parametrize("rows", [None, "many", [], {}])
def test_a_rule_whose_expression_fails_applies(rows: object) -> None:
    policy = policy_of(Rule(group="stewards"), Rule(group="security", when="dataset.rows > 100"))
    progress = progress_of(policy, TWO_GROUPS, [approve("alice")], {"dataset": {"rows": rows}})
    assert not progress.is_met
    assert "so the rule applies" in progress.rules[1].because


def test_when_no_rule_applies_somebody_must_still_approve() -> None:
    policy = policy_of(Rule(group="stewards", when="false"), Rule(group="security", when="dataset.rows > 9"))
    assert not standing(policy=policy).is_met
    assert standing(policy=policy).missing == "0 of 1: stewards or security missing"
    assert not standing(approve("mallory"), policy=policy).is_met
    assert standing(approve("carol"), policy=policy).is_met


def test_groups_of_a_person() -> None:
    assert groups_of(TWO_GROUPS, Person("bob")) == ("security", "stewards")
    assert groups_of(TWO_GROUPS, Person("mallory")) == ()
    assert approver_groups(TWO_GROUPS, policy_of(Rule(group="security")), Person("bob")) == ("security",)
    assert approver_groups(TWO_GROUPS, policy_of(Rule(group="security")), Person("alice")) == ()
    assert possible_approvers(TWO_GROUPS, TWO_RULES, barred=[Person("bob")]) == ("alice", "carol")


groups = st.sets(st.sampled_from(PEOPLE), min_size=1)
rules = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.sampled_from([None, "true", "false"])),
    min_size=1,
    max_size=4,
)
situations = st.tuples(st.fixed_dictionaries(dict.fromkeys("abc", groups)), rules)
Situation = tuple[dict[str, set[Person]], list[tuple[str, int, str | None]]]


def build(situation: Situation) -> tuple[Policy, PolicyFile]:
    members, drawn = situation
    policy = policy_of(*(Rule(group=group, approvals=count, when=when) for group, count, when in drawn))
    return policy, file_of(policy, **{name: tuple(sorted(people)) for name, people in members.items()})


@given(situations, st.sets(st.sampled_from(PEOPLE)), st.sampled_from(PEOPLE))
def test_one_more_approval_never_undoes_what_is_met(
    situation: Situation, voters: set[Person], one_more: Person
) -> None:
    policy, policy_file = build(situation)
    before = progress_of(policy, policy_file, [approve(voter) for voter in voters], VARIABLES)
    after = progress_of(policy, policy_file, [approve(voter) for voter in {*voters, one_more}], VARIABLES)
    assert after.is_met or not before.is_met
    assert sum(len(rule.met_by) for rule in after.rules) >= sum(len(rule.met_by) for rule in before.rules)


@given(situations, st.lists(st.sampled_from(PEOPLE), max_size=8))
def test_nobody_counts_twice_and_only_members_count(situation: Situation, voters: list[Person]) -> None:
    policy, policy_file = build(situation)
    progress = progress_of(policy, policy_file, [approve(voter) for voter in voters], VARIABLES)
    counted = [person for rule in progress.rules for person in rule.met_by]
    assert len(counted) == len(set(counted)) <= len(set(voters))
    assert set(counted) <= set(voters)
    for rule in progress.rules:
        for person in rule.met_by:
            assert any(person in situation[0][name] for name in rule.group.split(" or "))
    assert not progress.is_met or counted


@given(situations, st.lists(st.sampled_from(PEOPLE), max_size=6), st.randoms())
def test_the_order_of_votes_makes_no_difference(
    situation: Situation, voters: list[Person], random: Random
) -> None:
    policy, policy_file = build(situation)
    votes = [approve(voter) for voter in voters]
    shuffled = random.sample(votes, len(votes))
    assert progress_of(policy, policy_file, votes, VARIABLES) == progress_of(
        policy, policy_file, shuffled, VARIABLES
    )


@given(st.lists(st.sets(st.sampled_from("abcde")), max_size=5))
def test_as_many_places_are_filled_as_anybody_could_fill(places: list[set[str]]) -> None:
    filled = assign(places)
    best = _most_filled(places, frozenset())
    assert sum(person is not None for person in filled) == best
    assert all(person is None or person in place for person, place in zip(filled, places, strict=True))


def _most_filled(places: list[set[str]], used: frozenset[str]) -> int:
    if not places:
        return 0
    empty = _most_filled(places[1:], used)
    return max([empty, *(1 + _most_filled(places[1:], used | {person}) for person in places[0] - used)])


def test_a_request_that_only_its_requester_could_approve_is_refused_before_anybody_is_asked() -> None:
    policy_file = parse_policy_file(
        "version: 1\ngroups: {stewards: {users: [alice]}, security: {users: [alice, bob]}}\npolicies:\n"
        "- {name: p, match: {action: [export]}, require: [{group: stewards}, {group: security}]}\n",
        name="policy.yaml",
    )
    policy = policy_file.policies[0]
    check_can_be_met(policy, policy_file, {}, barred=[Person("carol")])
    with pytest.raises(NoPolicyError, match="needs 2 approvals, and only 1 can be had: alice asked"):
        check_can_be_met(policy, policy_file, {}, barred=[Person("alice")])


def in_groups(vote: Vote, *groups: str) -> VoteOnRecord:
    return VoteOnRecord(vote.voter, vote.verdict, groups)


ON_RECORD: dict[str, tuple[list[VoteOnRecord], list[str], bool]] = {
    "both rules, by two people": (
        [in_groups(approve("alice"), "stewards"), in_groups(approve("carol"), "security")],
        [],
        True,
    ),
    "who could meet either rule meets one": ([in_groups(approve("bob"), "stewards", "security")], [], False),
    "the better use of each is found": (
        [in_groups(approve("bob"), "stewards", "security"), in_groups(approve("alice"), "stewards")],
        [],
        True,
    ),
    "who voted twice counts once": (
        [in_groups(approve("bob"), "stewards"), in_groups(approve("bob"), "security")],
        [],
        False,
    ),
    "who was in no group then does not count, whatever is so today": (
        [in_groups(approve("alice"), "stewards"), in_groups(approve("carol"))],
        [],
        False,
    ),
    "who asked does not count": (
        [in_groups(approve("alice"), "stewards"), in_groups(approve("carol"), "security")],
        ["carol"],
        False,
    ),
    "a deny is no yes": (
        [in_groups(approve("alice"), "stewards"), in_groups(deny("carol"), "security")],
        [],
        False,
    ),
    "nobody": ([], [], False),
}


@pytest.mark.parametrize(("votes", "barred", "met"), ON_RECORD.values(), ids=ON_RECORD.keys())
def test_votes_of_the_past_count_for_the_groups_that_they_record(
    votes: list[VoteOnRecord], barred: list[str], met: bool
) -> None:
    found = progress_on_record(TWO_RULES, votes, VARIABLES, barred=list(map(Person, barred)))
    assert found.is_met is met


def test_votes_on_record_are_enough_by_any_group_where_no_rule_applies() -> None:
    policy = policy_of(Rule(group="stewards", when="dataset.rows > 10"))
    assert not progress_on_record(policy, [in_groups(approve("alice"))], VARIABLES).is_met
    assert progress_on_record(policy, [in_groups(approve("alice"), "stewards")], VARIABLES).is_met


@given(st.lists(st.tuples(st.sampled_from(PEOPLE), st.booleans()), unique_by=lambda vote: vote[0]))
def test_what_was_enough_then_is_enough_on_record(cast: list[tuple[Person, bool]]) -> None:
    """Each vote records the groups of that moment: the same rules come to the same answer."""
    votes = [approve(who) if yes else deny(who) for who, yes in cast]
    recorded = [in_groups(vote, *approver_groups(TWO_GROUPS, TWO_RULES, vote.voter)) for vote in votes]
    then = progress_of(TWO_RULES, TWO_GROUPS, votes, VARIABLES)
    assert progress_on_record(TWO_RULES, recorded, VARIABLES) == then
