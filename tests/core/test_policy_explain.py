"""What the policy says about an action can be asked beforehand, in plain words."""

from __future__ import annotations

import pytest

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.model import Action, Evidence, FileDigest, Person, Snapshot
from airflow_approvals.core.policy import parse_policy_file
from airflow_approvals.core.policy_explain import Explanation, explain

FILE = parse_policy_file(
    """
version: 1
groups:
  stewards: {users: [alice, bob]}
  security: {users: [carol]}
  board: {users: [dave]}
policies:
  - name: deletes
    match: {action: [delete], dag_id: ["clean_*"]}
    require: [{group: security}]
    self_approval: allowed
    require_reason: never
    channels: [page]
  - name: exports
    match: {action: [export], destination: ["s3://partner-*/**"]}
    require:
      - {group: stewards, approvals: 2}
      - {group: security, when: "pii.residual > 10"}
      - {group: board, when: "false"}
    deny_if: ["pii.verified == false"]
    expires_after: 4h
""",
    name="policy.yaml",
)
SNAPSHOT = Snapshot(
    uri="file:///staged/a.csv",
    format="csv",
    sha256="0" * 64,
    size=120,
    rows=11,
    columns=(),
    schema_sha256="1" * 64,
    files=(FileDigest(name="a.csv", sha256="0" * 64, size=120),),
)


def explained(
    action: Action, *requesters: str, dag_id: str | None = None, evidence: Evidence | None = None
) -> Explanation:
    return explain(FILE, action, evidence or Evidence(), [Person(name) for name in requesters], dag_id=dag_id)


def test_an_explanation_says_who_must_answer_and_why() -> None:
    action = Action(kind="export", destination="s3://partner-x/a")
    report = {"dataset_sha256": SNAPSHOT.sha256, "scanned": True, "verified": True}
    found = explained(action, "alice", evidence=Evidence(datasets=(SNAPSHOT,), pii=report))
    assert found.policy == "exports"
    assert found.sentences == (
        "Policy deletes does not cover it: the action is export, it covers delete.",
        "Policy exports is the first that covers it: somebody must approve this action.",
        "2 approvals by stewards needed (always).",
        "1 approval by security needed ('pii.residual > 10' could not be evaluated: "
        "pii.residual is not known, so the rule applies).",
        "No approval by board needed ('false' does not hold).",
        "May approve: bob, carol, dave; each counts for one rule.",
        "May not approve, because they ask: alice.",
        "Who denies must say why.",
        "Without a decision it expires after 4h.",
        "An approval is good for 30m.",
    )


def test_an_explanation_says_what_is_denied() -> None:
    found = explained(Action(kind="export", destination="s3://partner-x/a"), "alice")
    assert found.denials == ("Refused: 'pii.verified == false' holds.",)
    assert "this action is refused" in found.sentences[1]


def test_an_explanation_says_who_may_approve_their_own_action() -> None:
    found = explained(Action(kind="delete"), "carol", dag_id="clean_up")
    assert found.barred == ("May approve their own action, which is recorded as such: carol.",)
    assert "May approve: carol; each counts for one rule." in found.approvals
    assert "Answers are taken from page only." in found.terms
    assert "No reason is asked for." in found.terms


def test_an_explanation_says_when_the_requester_is_not_known() -> None:
    found = explained(Action(kind="delete"), dag_id="clean_up")
    assert found.barred == ("The requester is not known: only answers with an Airflow login count.",)


def test_an_explanation_says_when_no_policy_covers_it() -> None:
    found = explained(Action(kind="delete"), "alice")
    assert found.policy is None
    assert found.sentences == (
        "Policy deletes does not cover it: the DAG is not known, it covers clean_*.",
        "Policy exports does not cover it: the action is delete, it covers export.",
        "No policy covers this action: it is refused.",
    )
    elsewhere = explained(Action(kind="export"), "alice")
    assert "the destination is not named, it covers s3://partner-*/**" in elsewhere.sentences[1]


def test_what_no_policy_could_be_asked_about_is_not_explained() -> None:
    with pytest.raises(InvalidRequestError):
        explained(Action(kind="export", destination="s3://partner-x/../y"))


def test_what_lets_a_run_through_without_a_vote_on_it_is_said() -> None:
    text = """
version: 1
groups: {stewards: {users: [alice]}, oncall: {users: [dana, engineer]}}
policies:
  - name: p
    match: {action: [export]}
    require: [{group: stewards}]
    standing: {max_days: 7, void_on: [schema, "rows > 2x"]}
    break_glass: {group: oncall}
"""
    policy_file = parse_policy_file(text, name="policy.yaml")
    told = explain(policy_file, Action(kind="export"), Evidence(), [Person("engineer")], dag_id=None)
    assert "An approval may stand for 7 days at most; it ends on drift in: schema, rows > 2x." in told.terms
    assert told.terms[-1].endswith("everybody is told: dana.")
