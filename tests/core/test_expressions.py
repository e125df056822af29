"""What a policy's expressions may say, what they see, and that every doubt counts against the request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_approvals.core.errors import ApprovalsError, PolicyDeniesError, ReportMismatchError
from airflow_approvals.core.expressions import (
    ExpressionError,
    check_expression,
    check_not_denied,
    expression_variables,
    is_true,
)
from airflow_approvals.core.model import Action, Column, Evidence, FileDigest, Person, Snapshot
from airflow_approvals.core.policy import Match, Policy, Rule

ACTION = Action(kind="export", source="s3://in/a", destination="s3://out/ü", parameters={"rate": 1.5, "n": 3})
SNAPSHOT = Snapshot(
    uri="s3://in/a",
    format="csv",
    sha256="0" * 64,
    size=120,
    rows=10,
    columns=(Column(name="name", type="string"), Column(name="straße", type="string")),
    schema_sha256="1" * 64,
    files=(FileDigest(name="a", sha256="0" * 64, size=120),),
)
REPORT: dict[str, Any] = {
    "dataset_sha256": "0" * 64,
    "scanned": True,
    "verified": True,
    "residual": 2,
    "entities": {"PERSON": 7},
    "columns": ["name"],
}
EVIDENCE = Evidence(datasets=(SNAPSHOT, replace(SNAPSHOT, rows=5)), pii=REPORT)
KNOWN = expression_variables(ACTION, EVIDENCE, [Person("alice")])
UNKNOWN = expression_variables(Action(kind="grant"), Evidence(), [])

TRUE_OF_THE_KNOWN = [
    "action.kind == 'export'",
    "action.destination.endsWith('ü')",
    "action.parameters.rate > 1 && action.parameters.rate < 1.6",
    "action.parameters.n == 3 && action.parameters['n'] == 3.0",
    "dataset.rows == 15 && dataset.bytes == 240 && dataset.files == 2 && dataset.count == 2",
    "'straße' in dataset.columns",
    "dataset.columns.exists(column, column.startsWith('na'))",
    "size(dataset.columns) == 2",
    "pii.scanned && pii.verified && pii.residual > 1",
    "pii.entities.PERSON == 7 && !has(pii.entities.EMAIL)",
    "pii.entities.exists(kind, kind == 'PERSON') && pii.columns == ['name']",
    "requesters.all(person, person == 'alice')",
    "action.justification == '' // nobody said why",
]
FALSE_OR_NULL_OF_THE_UNKNOWN = [
    "pii.verified == false",
    "!pii.scanned",
    "pii.residual == null",
    "pii.residual != 0",
    "pii.entities == null && pii.columns == null",
    "dataset.rows == null && dataset.columns == null && dataset.count == 0",
    "action.source == null && action.destination == null",
    "size(requesters) == 0",
]
UNDECIDED = {
    "null compared": ("pii.residual > 0", UNKNOWN),
    "null counted": ("dataset.rows > 100000", UNKNOWN),
    "missing key": ("pii.entities.EMAIL > 0", KNOWN),
    "text of null": ("action.destination.startsWith('s3://')", UNKNOWN),
    "not a boolean": ("dataset.rows", KNOWN),
    "text, not a boolean": ("action.kind", KNOWN),
    "null, not a boolean": ("action.source", UNKNOWN),
    "overflow": ("dataset.rows + 9223372036854775807 > 0", KNOWN),
    "division by zero": ("dataset.rows / (dataset.count - 2) > 0", KNOWN),
    "bad pattern": ("action.kind.matches('(')", KNOWN),
    "mixed types": ("action.kind > 1", KNOWN),
}
REFUSED_AT_LOAD = {
    "not CEL": ("a +", "not a CEL expression"),
    "unfinished string": ("'a", "not a CEL expression"),
    "unknown variable": ("rows > 1", "unknown variable 'rows'"),
    "unknown field": ("pii.verifed == false", "no field 'verifed'"),
    "unknown field by index": ('dataset["row"] > 1', "no field 'row'"),
    "unknown function": ("now() > 1", "unknown function 'now'"),
    "unknown method": ("action.kind.lower() == 'a'", "unknown function 'lower'"),
    "unknown inside": ("dataset.columns.exists(x, x == secret)", "unknown variable 'secret'"),
    "bound name outside": ("dataset.columns.exists(x, x == 'a') && x == 'a'", "unknown variable 'x'"),
    "root scope": (".dataset.rows > 1", "unknown variable"),
    "too deep": (
        "[1].all(a, [1].all(b, [1].all(c, [1].all(d, a == b && c == d))))",
        "inside each other",
    ),
    "too long": ("1+" * 500 + "1 > 0", "1005 characters"),
    "a million": ("1+" * 500_000 + "1", "at most 1000"),
    "brackets all the way": ("(" * 450 + "1" + ")" * 450, "not a CEL expression"),
    "lists all the way": ("[" * 450 + "]" * 450, "not a CEL expression"),
}


def policy(*deny_if: str) -> Policy:
    return Policy(name="p", match=Match(action=("export",)), require=(Rule(group="g"),), deny_if=deny_if)


@pytest.mark.parametrize("source", TRUE_OF_THE_KNOWN)
def test_expressions_see_what_is_known(source: str) -> None:
    check_expression(source)
    assert is_true(source, KNOWN)


@pytest.mark.parametrize("source", FALSE_OR_NULL_OF_THE_UNKNOWN)
def test_what_is_not_known_is_null_and_never_zero(source: str) -> None:
    check_expression(source)
    assert is_true(source, UNKNOWN)


@pytest.mark.parametrize(("source", "variables"), UNDECIDED.values(), ids=UNDECIDED.keys())
def test_what_is_neither_true_nor_false_denies(source: str, variables: dict[str, Any]) -> None:
    check_expression(source)
    with pytest.raises(ExpressionError):
        is_true(source, variables)
    with pytest.raises(PolicyDeniesError) as caught:
        check_not_denied(policy(source), variables)
    assert source in str(caught.value)
    assert "counts as a denial" in str(caught.value)


def test_a_denial_because_nobody_has_looked_for_personal_data_says_what_to_give() -> None:
    unseen: dict[str, Any] = {"pii": {"scanned": False, "verified": False}}
    seen: dict[str, Any] = {"pii": {"scanned": True, "verified": False}}
    with pytest.raises(PolicyDeniesError, match="no PII report about this data came along"):
        check_not_denied(policy("pii.verified == false"), unseen)
    for source, variables in (("pii.verified == false", seen), ("'pii' != ''", unseen)):
        with pytest.raises(PolicyDeniesError) as caught:
            check_not_denied(policy(source), variables)
        assert "pii_report" not in str(caught.value)


@pytest.mark.parametrize(("source", "reason"), REFUSED_AT_LOAD.values(), ids=REFUSED_AT_LOAD.keys())
def test_a_bad_expression_is_refused_at_load(source: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason):
        check_expression(source)


def test_a_denial_names_every_expression_that_holds() -> None:
    with pytest.raises(PolicyDeniesError) as caught:
        check_not_denied(policy("dataset.rows > 1", "dataset.rows > 100", "pii.residual > 0"), KNOWN)
    assert "dataset.rows > 1'" in str(caught.value)
    assert "pii.residual > 0" in str(caught.value)
    assert "100" not in str(caught.value)


def test_no_denial_holds() -> None:
    check_not_denied(policy("pii.verified == false", "dataset.rows > 100"), KNOWN)


MALFORMED_REPORTS = {
    "nothing": None,
    "empty": {},
    "not scanned": {**REPORT, "scanned": False},
    "scanned is a word": {**REPORT, "scanned": "true"},
    "residual is negative": {**REPORT, "residual": -1, "verified": 1},
    "residual is a truth": {**REPORT, "residual": False, "verified": "yes"},
    "residual is text": {**REPORT, "residual": "0", "verified": None},
}
OTHER_BYTES = {
    "another digest": {**REPORT, "dataset_sha256": "f" * 64},
    "no digest": {name: value for name, value in REPORT.items() if name != "dataset_sha256"},
    "the digest is a word": {**REPORT, "dataset_sha256": "confidential"},
    "the digests of two": {**REPORT, "dataset_sha256": ["0" * 64, "f" * 64]},
    "nothing": {},
}


@pytest.mark.parametrize("report", OTHER_BYTES.values(), ids=OTHER_BYTES.keys())
def test_a_report_about_other_bytes_is_refused(report: dict[str, Any]) -> None:
    with pytest.raises(ReportMismatchError, match="0" * 64) as caught:
        expression_variables(ACTION, replace(EVIDENCE, pii=report), [])
    assert "confidential" not in str(caught.value)


def test_a_report_is_about_all_the_data_or_refused() -> None:
    two = (SNAPSHOT, replace(SNAPSHOT, sha256="f" * 64))
    with pytest.raises(ReportMismatchError):
        expression_variables(ACTION, Evidence(datasets=two, pii=REPORT), [])


def test_a_report_without_data_is_no_proof() -> None:
    assert expression_variables(ACTION, Evidence(pii=REPORT), [])["pii"] == UNKNOWN["pii"]


@pytest.mark.parametrize("report", MALFORMED_REPORTS.values(), ids=MALFORMED_REPORTS.keys())
def test_a_report_that_does_not_say_so_is_no_proof(report: dict[str, Any] | None) -> None:
    about = None if report is None else {"dataset_sha256": "0" * 64, **report}
    variables = expression_variables(ACTION, replace(EVIDENCE, pii=about), [])
    assert variables["pii"]["verified"] is False
    assert variables["pii"]["residual"] is None


@pytest.mark.parametrize("entities", [["PERSON"], {"PERSON": "7"}, {"PERSON": -1}, {1: 1}, 3])
def test_entity_counts_that_are_none_are_not_known(entities: object) -> None:
    variables = expression_variables(
        ACTION, replace(EVIDENCE, pii={**REPORT, "entities": entities, "columns": 1}), []
    )
    assert variables["pii"]["entities"] is None
    assert variables["pii"]["columns"] is None


def test_no_message_repeats_a_value_of_the_request() -> None:
    action = replace(ACTION, justification="confidential words")
    with pytest.raises(ExpressionError) as caught:
        is_true("action.justification > 1", expression_variables(action, EVIDENCE, []))
    assert "confidential" not in str(caught.value)


@given(st.text(alphabet="()[]{}.,:?!&|<>=+-*/%'\"\\ \n01axé" + "pii.rows", max_size=80))
def test_no_text_does_worse_than_being_refused(source: str) -> None:
    try:
        check_expression(source)
        is_true(source, KNOWN)
    except ApprovalsError:
        pass
