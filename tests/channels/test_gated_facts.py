"""What a person is told a gated task would do: what its author shows, and never less than there is."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_approvals.channels.gated_facts import gated_changes, gated_facts, in_words

DIGEST = "5" * 64
TASK: dict[str, Any] = {
    "task_id": "delete_old",
    "operator": "airflow.providers.common.sql.operators.sql.SQLExecuteQueryOperator",
    "fields": {"sql": DIGEST, "parameters": DIGEST},
    "arguments": {"autocommit": DIGEST},
    "shown": {"sql": "DELETE FROM customers WHERE id > 5"},
    "connections": ["crm", "warehouse"],
}


def test_what_a_task_shows_comes_first_and_what_it_does_not_is_named() -> None:
    assert gated_facts(TASK) == (
        ("runs", "SQLExecuteQueryOperator delete_old"),
        ("its sql", "DELETE FROM customers WHERE id > 5"),
        ("may read", "connections crm, warehouse"),
        ("not shown", "parameters, autocommit: bound by digest, so that they cannot change"),
    )


@pytest.mark.parametrize(
    "told",
    [
        "a text",
        None,
        {},
        {**TASK, "more": "than a gated task writes"},
        {**TASK, "fields": {"sql": "no digest"}},
        {**TASK, "arguments": {"sql": ["no digest"]}},
        {**TASK, "shown": ["sql"]},
        {**TASK, "operator": 5},
    ],
)
def test_what_has_another_form_is_left_to_be_told_as_it_is(told: object) -> None:
    """Nothing that a worker wrote may be left out of what people see."""
    assert gated_facts(told) == ()


@pytest.mark.parametrize(
    ("value", "words"), [("a", "a"), (True, "true"), (["a", "b"], "a, b"), ([], "[]"), ({"é": 1}, '{"é": 1}')]
)
def test_a_parameter_is_told_in_words(value: object, words: str) -> None:
    assert in_words(value) == words


OTHER = "6" * 64


@pytest.mark.parametrize(
    ("other", "changes"),
    [
        ({}, []),
        (
            {"shown": {"sql": "DELETE FROM customers"}, "fields": {"sql": OTHER, "parameters": DIGEST}},
            [("its sql", "DELETE FROM customers WHERE id > 5", "DELETE FROM customers")],
        ),
        (
            {"fields": {"sql": DIGEST, "parameters": OTHER}},
            [("its parameters", "digest 5555555555555555", "digest 6666666666666666")],
        ),
        ({"arguments": {}}, [("its autocommit", "digest 5555555555555555", "none")]),
        ({"connections": ["crm"]}, [("may read connections", "crm, warehouse", "crm")]),
        ({"variables": ["key"]}, [("may read variables", "none", "key")]),
        (
            {"operator": "elsewhere.SQLExecuteQueryOperator"},
            [
                (
                    "runs",
                    "airflow.providers.common.sql.operators.sql.SQLExecuteQueryOperator, delete_old",
                    "elsewhere.SQLExecuteQueryOperator, delete_old",
                )
            ],
        ),
        ({"more": "than a gated task writes"}, []),
    ],
)
def test_what_a_task_would_do_differently_is_told(
    other: dict[str, Any], changes: list[tuple[str, str, str]]
) -> None:
    assert list(gated_changes(TASK, {**TASK, **other})) == changes
