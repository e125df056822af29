"""Cases written beside a policy come out as the service would decide them, or say why not."""

from __future__ import annotations

import pytest

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.core.policy import PolicyFile, parse_policy_file
from airflow_approvals.core.policy_cases import CaseResult, parse_cases, run_cases

POLICY = """
version: 1
groups:
  stewards: {users: [alice, bob, engineer]}
  security: {users: [carol]}
  oncall: {users: [dana]}
policies:
  - name: partner-export
    match: {action: [export], destination: ["s3://partner-*/**"]}
    require: [{group: stewards}, {group: security, when: "dataset.rows > 1000"}]
    deny_if: ["!pii.verified"]
    break_glass: {group: oncall}
  - name: nightly
    match: {action: [export], dag_id: ["nightly_*"]}
    require: [{group: stewards, approvals: 2}]
"""
CLEAN = "{rows: 10, columns: [id], pii: {scanned: true, verified: true, residual: 0}}"
ACTION = "{kind: export, destination: s3://partner-acme/x.parquet}"


def a_case(**parts: str) -> str:
    given = {"name": "a case", "action": ACTION, "evidence": CLEAN, "expect": "approved", **parts}
    return "\n".join(
        f"{'  - ' if at == 0 else '    '}{key}: {value}" for at, (key, value) in enumerate(given.items())
    )


def policy_file() -> PolicyFile:
    return parse_policy_file(POLICY, name="policy.yaml")


def run(*cases: str) -> tuple[CaseResult, ...]:
    text = "version: 1\ncases:\n" + "\n".join(cases)
    return run_cases(policy_file(), parse_cases(text, name="policy.cases.yaml").cases)


PASSING = {
    "one steward is enough for few rows": a_case(answers="[alice]"),
    "more rows need security too": a_case(
        evidence=CLEAN.replace("10", "1001"), answers="[alice]", expect="pending", because="security missing"
    ),
    "and get it": a_case(evidence=CLEAN.replace("10", "1001"), answers="[alice, carol]"),
    "one no denies": a_case(answers="[{by: bob, verdict: deny, reason: no contract}]", expect="denied"),
    "a no without a reason does not count": a_case(
        answers="[{by: bob, verdict: deny}]", expect="pending", turned_away="[bob]"
    ),
    "a requester does not count": a_case(
        requesters="[Engineer]", answers="[engineer, alice]", turned_away="[engineer]"
    ),
    "a stranger does not count": a_case(answers="[mallory]", turned_away="[mallory]", expect="pending"),
    "nobody votes twice": a_case(
        evidence=CLEAN.replace("10", "1001"),
        answers="[alice, ALICE]",
        turned_away="[alice]",
        expect="pending",
    ),
    "what is not verified is refused": a_case(evidence="{rows: 10}", expect="refused", because="denies"),
    "what nothing covers is refused": a_case(action="{kind: delete}", expect="refused", because="no policy"),
    "the DAG decides which policy": a_case(
        action="{kind: export, destination: file:///x}", dag_id="nightly_1", policy="nightly",
        answers="[alice, bob]",
    ),
    "unknown requesters need a login": a_case(
        answers="[{by: alice, channel: slack}]", turned_away="[alice]", expect="pending"
    ),
    "a chat will do for a DAG's run that somebody known has started": a_case(
        action="{kind: export, destination: file:///x}", dag_id="nightly_1", requesters="[engineer]",
        answers="[{by: alice, channel: slack}, bob]",
    ),
    "the glass is for those on call": a_case(requesters="[engineer]", break_glass="dana"),
    "and for nobody else": a_case(
        requesters="[engineer]", break_glass="alice", turned_away="[alice]", expect="pending"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSING.values(), ids=PASSING.keys())
def test_a_case_comes_out_as_the_service_would_decide_it(case: str) -> None:
    (result,) = run(case)
    assert result.differences == ()


FAILING = {
    "another decision": (a_case(answers="[alice]", expect="denied"), "expected denied, found approved"),
    "another policy": (a_case(answers="[alice]", policy="nightly"), "expected policy nightly"),
    "somebody was turned away": (a_case(answers="[alice, mallory]"), "expected nobody to be turned away"),
    "nobody was turned away": (a_case(answers="[alice]", turned_away="[bob]"), "expected bob"),
    "for another reason": (a_case(answers="[]", expect="pending", because="the moon"), "'the moon'"),
}


@pytest.mark.parametrize(("case", "told"), FAILING.values(), ids=FAILING.keys())
def test_a_case_that_comes_out_otherwise_says_how(case: str, told: str) -> None:
    (result,) = run(case)
    assert len(result.differences) == 1
    assert told in result.differences[0]


BROKEN = {
    "no cases": "version: 1\ncases: []\n",
    "an unknown key": "version: 1\ncases:\n" + a_case(answer="[alice]"),
    "an unknown decision": "version: 1\ncases:\n" + a_case(expect="maybe"),
    "an unknown channel": "version: 1\ncases:\n" + a_case(answers="[{by: alice, channel: pigeon}]"),
    "no YAML": "version: [",
    "nothing": "",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_broken_cases_are_refused_with_their_line(text: str) -> None:
    with pytest.raises(PolicyError, match=r"cases\.yaml:\d+: "):
        parse_cases(text, name="cases.yaml")
