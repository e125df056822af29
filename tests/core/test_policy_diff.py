"""What a change of the policy makes weaker is said; where nothing is said, nothing more can be approved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_approvals.core.errors import InvalidRequestError, PolicyError
from airflow_approvals.core.model import Channel
from airflow_approvals.core.policy import PolicyFile, parse_policy_file
from airflow_approvals.core.policy_cases import CaseAction, CaseAnswer, CaseEvidence, PolicyCase, play
from airflow_approvals.core.policy_diff import diff
from airflow_approvals.core.policy_match import check_glob, covers, is_within

POLICY = """
version: 1
groups:
  stewards: {users: [alice, bob]}
  security: {users: [carol]}
channels: {chat: {kind: slack, conn_id: slack, channel: C0123456}}
policies:
  - name: partner
    match: {action: [export], destination: ["s3://partner-*/**"]}
    require: [{group: stewards}, {group: security, when: "dataset.rows > 1000"}]
    deny_if: ["pii.scanned && !pii.verified"]
    require_reason: on_deny
    expires_after: 4h
    receipt_valid_for: 30m
    channels: [page]
    notify: [chat]
    standing: {max_days: 30, void_on: [schema, "rows > 1.2x"]}
    break_glass: {group: security}
  - name: rest
    match: {action: [export]}
    require: [{group: stewards, approvals: 2}]
protected_connections: ["prod_*"]
"""
WEAKER: dict[str, tuple[str, str, str]] = {
    "somebody joins": ("[alice, bob]", "[alice, bob, mallory]", "mallory joined"),
    "a rule goes": (', {group: security, when: "dataset.rows > 1000"}', "", "no longer surely asked: 1"),
    "a rule asks later": ("rows > 1000", "rows > 2000", "no longer surely asked"),
    "fewer approvals": ("approvals: 2", "approvals: 1", "no longer surely asked: 2 by stewards"),
    "an always becomes a sometimes": (
        "{group: stewards}, ",
        '{group: stewards, when: "dataset.rows > 5"}, ',
        "no longer surely asked: 1 by stewards",
    ),
    "a denial goes": ('deny_if: ["pii.scanned && !pii.verified"]', "deny_if: []", "no longer denied"),
    "self-approval": ("    channels: [page]", "    self_approval: allowed\n    channels: [page]", "self-app"),
    "no reason": ("on_deny", "never", "a reason is wanted never"),
    "known by e-mail": (
        "    channels: [page]",
        "    slack_identity: link_or_email\n    channels: [page]",
        "a Slack account is known by link_or_email",
    ),
    "a longer wait": ("4h", "5h", "a request waits 5h"),
    "a longer receipt": ("30m", "31m", "an approval is good for 31m"),
    "more channels": ("channels: [page]", "channels: [page, slack]", "answers are taken from page, slack"),
    "any channel": ("    channels: [page]\n", "", "answers are taken from anywhere"),
    "nobody is told": ("    notify: [chat]\n", "", "no longer told: chat"),
    "it stands longer": ("max_days: 30", "max_days: 31", "stand for 31 days"),
    "drift goes by": ('[schema, "rows > 1.2x"]', "[schema]", "no longer ends a standing approval"),
    "others break the glass": (
        "break_glass: {group: security}",
        "break_glass: {group: stewards}",
        "stewards may break",
    ),
    "a wider match": ("partner-*/**", "**", "it may cover more"),
    "less is protected": ('protected_connections: ["prod_*"]', "", "gone, or another"),
}  # fmt: skip


def parse(text: str) -> PolicyFile:
    return parse_policy_file(text, name="policy.yaml")


def weaker(old: str, new: str) -> list[str]:
    return [each.told for each in diff(parse(old), parse(new)) if each.effect == "weaker"]


@pytest.mark.parametrize(("old", "new", "told"), WEAKER.values(), ids=WEAKER.keys())
def test_what_gets_weaker_is_said(old: str, new: str, told: str) -> None:
    assert old in POLICY
    changed = POLICY.replace(old, new, 1)
    found = weaker(POLICY, changed)
    assert any(told in each for each in found), found


@pytest.mark.parametrize(("old", "new", "told"), WEAKER.values(), ids=WEAKER.keys())
def test_the_way_back_is_called_stricter_and_not_weaker(old: str, new: str, told: str) -> None:
    changed = POLICY.replace(old, new, 1)
    if old in ("rows > 1000", "break_glass: {group: security}", "partner-*/**"):
        return  # which of the two is weaker cannot be known: another rule, another group, another policy
    assert weaker(changed, POLICY) == []
    assert diff(parse(changed), parse(POLICY))


def test_the_same_file_in_another_layout_makes_no_difference() -> None:
    assert diff(parse(POLICY), parse(POLICY.replace("[alice, bob]", "[  alice,   bob ]"))) == ()


def test_a_new_policy_ahead_of_a_stricter_one_is_weaker() -> None:
    ahead = "policies:\n  - {name: easy, match: {action: [export]}, require: [{group: stewards}]}\n"
    found = weaker(POLICY, POLICY.replace("policies:\n", ahead, 1))
    assert "a new policy: what it covers may be approved" in found
    assert "actions of policy partner may come under easy" in found


def test_a_stricter_policy_that_goes_lets_its_actions_come_under_the_next() -> None:
    start, end = POLICY.index("  - name: partner"), POLICY.index("  - name: rest")
    assert "actions of policy partner may come under rest" in weaker(POLICY, POLICY[:start] + POLICY[end:])


# --- soundness ---------------------------------------------------------------------------------------------

PEOPLE = ("alice", "bob", "carol", "dana")
GROUPS = ("stewards", "security", "oncall")
GLOBS = ("s3://a/**", "s3://a/b/*", "s3://*/b/**", "**", "s3://a/b/c")
URIS = ("s3://a/b/c", "s3://a/x", "s3://z/b/c/d", "s3://z/y")
WHENS = (None, "dataset.rows > 10", "dataset.rows > 100", "pii.scanned")
DENIALS = ("pii.scanned && !pii.verified", "dataset.rows > 1000")

rules = st.fixed_dictionaries(
    {"group": st.sampled_from(GROUPS), "approvals": st.integers(1, 2), "when": st.sampled_from(WHENS)}
)
policies = st.fixed_dictionaries(
    {
        "match": st.fixed_dictionaries(
            {
                "action": st.sampled_from((["export"], ["export", "delete"], ["*"])),
                "destination": st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2, unique=True),
            }
        ),
        "require": st.lists(rules, min_size=1, max_size=2),
        "deny_if": st.lists(st.sampled_from(DENIALS), max_size=2, unique=True),
        "self_approval": st.sampled_from(("never", "allowed")),
        "require_reason": st.sampled_from(("never", "always")),
        "channels": st.sampled_from((None, ["page"], ["slack"], ["page", "slack"])),
        "break_glass": st.sampled_from((None, {"group": "oncall"})),
    }
)
groups = st.lists(st.sampled_from(PEOPLE), min_size=2, max_size=4, unique=True).map(
    lambda users: {"users": users}
)
files = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "groups": st.fixed_dictionaries(dict.fromkeys(GROUPS, groups)),
        "policies": st.lists(policies, min_size=1, max_size=2).map(
            lambda each: [{"name": f"p{at}", **policy} for at, policy in enumerate(each)]
        ),
    }
)
answers = st.builds(
    CaseAnswer,
    by=st.sampled_from(PEOPLE),
    channel=st.sampled_from((Channel.PAGE, Channel.SLACK)),
    reason=st.sampled_from(("", "fine")),
)
cases = st.builds(
    PolicyCase,
    name=st.just("drawn"),
    action=st.builds(
        CaseAction, kind=st.sampled_from(("export", "delete")), destination=st.sampled_from(URIS)
    ),
    evidence=st.builds(
        CaseEvidence,
        rows=st.sampled_from((5, 50, 500, 5000)),
        pii=st.sampled_from(
            (None, {"scanned": True, "verified": True}, {"scanned": True, "verified": False})
        ),
    ),
    requesters=st.lists(st.sampled_from(PEOPLE), max_size=1).map(tuple),
    answers=st.lists(answers, max_size=4).map(tuple),
    break_glass=st.sampled_from((None, None, *PEOPLE)),
    expect=st.just("approved"),
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[PolicyFile, PolicyFile]:
    """Draw a file, and one that differs in a few places: any two at random could not be compared."""
    old: dict[str, Any] = draw(files)
    other: dict[str, Any] = draw(files)
    new: dict[str, Any] = {
        **old,
        "groups": dict(old["groups"]),
        "policies": [dict(p) for p in old["policies"]],
    }
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.integers(0, 3)) == 0:
            name = draw(st.sampled_from(GROUPS))
            new["groups"][name] = draw(
                st.sampled_from((other["groups"][name], {"users": old["groups"][name]["users"][:1]}))
            )
            continue
        policy = draw(st.sampled_from(new["policies"]))
        key = draw(st.sampled_from(sorted(set(policy) - {"name"})))
        policy[key] = other["policies"][0][key]
    if draw(st.integers(0, 4)) == 0:
        new["policies"] = new["policies"][::-1]
    try:
        return PolicyFile.model_validate(old), PolicyFile.model_validate(new)
    except ValueError:  # rules that nobody can meet: drawn again
        from hypothesis import reject

        reject()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(change=changes(), played=st.lists(cases, min_size=8, max_size=8))
def test_where_nothing_is_called_weaker_nothing_more_can_be_approved(
    change: tuple[PolicyFile, PolicyFile], played: list[PolicyCase]
) -> None:
    old, new = change
    if any(each.effect == "weaker" for each in diff(old, new)):
        return
    for case in played:
        if play(new, case).decision == "approved":
            assert play(old, case).decision == "approved", case


segments = st.sampled_from(("a", "ab", "b", "*", "a*", "*b", "**"))
drawn_globs = st.builds(
    lambda host, path: "s3://" + "/".join([host, *path]),
    st.sampled_from(("a", "*", "a*", "ab")),
    st.lists(segments, max_size=3),
)
places = st.builds(
    lambda host, path: "s3://" + "/".join([host, *path]),
    st.sampled_from(("a", "ab", "b")),
    st.lists(st.sampled_from(("a", "ab", "b", "bb")), max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(inner=drawn_globs, outer=drawn_globs, uri=places)
@example(inner="s3://a/**", outer="s3://a/*", uri="s3://a/b/b")
@example(inner="s3://a/**", outer="s3://a/*", uri="s3://a")
def test_a_glob_within_another_covers_nothing_that_the_other_does_not(
    inner: str, outer: str, uri: str
) -> None:
    for glob in (inner, outer):
        check_glob(glob)
    if is_within(inner, outer) and covers((inner,), uri):
        assert covers((outer,), uri)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("s3://a/b/*", "s3://a/**", True),
        ("s3://a/b*/c", "s3://a/*/c", True),
        ("**", "s3://**", False),
        ("s3://a/**", "**", True),
        ("s3://a/**", "s3://a/b/**", False),
        ("s3://user@a/x", "s3://other@a/x", False),
    ],
)
def test_what_is_plainly_narrower_is_known(inner: str, outer: str, expected: bool) -> None:
    try:
        assert is_within(inner, outer) is expected
    except InvalidRequestError as error:
        raise PolicyError(str(error)) from error
