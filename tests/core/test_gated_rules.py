from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_approvals.core.errors import InvalidRequestError, PolicyError
from airflow_approvals.core.gated_rules import (
    TaskFacts,
    find_mismatch,
    is_for_destination,
    reason_of,
    rules_for,
    rules_from,
)

TASK = TaskFacts(
    dag_id="partner_feed",
    dag_tags=("prod", "daily"),
    task_id="publish.copy",
    classes=("Copy", "vendor.s3.Copy", "BaseOperator"),
    conn_ids=("prod_s3",),
)
FITS: dict[str, dict[str, Any]] = {
    "class by name": {"operator": "Copy"},
    "class by path": {"operator": "vendor.s3.Copy"},
    "base class": {"operator": "BaseOperator"},
    "tag": {"dag_tags": ["prod", "other"]},
    "DAG": {"dag_id": ["partner_*"]},
    "task id": {"task_id": ["publish.*"]},
    "connection": {"conn_id": ["prod_*"]},
    "all of them": {"operator": "Copy", "dag_tags": ["prod"], "conn_id": ["prod_s3"], "dag_id": ["*"]},
}
MISSES: dict[str, dict[str, Any]] = {
    "another class": {"operator": "copy"},
    "half a path": {"operator": "s3.Copy"},
    "tag": {"dag_tags": ["pro"]},
    "DAG": {"dag_id": ["partner"]},
    "task id": {"task_id": ["publish"]},
    "connection": {"conn_id": ["dev_*"]},
    "one of two": {"operator": "Copy", "dag_tags": ["test"]},
}
BROKEN: dict[str, Any] = {
    "no list": {"operator": "Copy"},
    "no map": ["Copy"],
    "unknown key": [{"operator": "Copy", "policy": "p", "operators": []}],
    "no policy": [{"operator": "Copy"}],
    "names no task": [{"policy": "p"}],
    "a word for a list": [{"policy": "p", "task_id": "publish"}],
    "a list for a word": [{"policy": "p", "operator": ["Copy"]}],
    "empty glob": [{"policy": "p", "task_id": [""]}],
    "to without a destination": [{"policy": "p", "to": ["s3://a/**"]}],
}


@pytest.mark.parametrize("rule", FITS.values(), ids=FITS.keys())
def test_a_rule_gates_what_fits_all_that_it_says(rule: dict[str, Any]) -> None:
    (found,) = rules_from([{"policy": "p", **rule}])
    assert find_mismatch(found, TASK) is None


@pytest.mark.parametrize("rule", MISSES.values(), ids=MISSES.keys())
def test_a_rule_passes_over_what_it_does_not_name_and_says_why(rule: dict[str, Any]) -> None:
    (found,) = rules_from([{"policy": "p", **rule}])
    assert find_mismatch(found, TASK)


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_list_is_refused(value: Any) -> None:
    with pytest.raises(PolicyError):
        rules_from(value)


def test_a_connection_that_only_the_run_tells_counts_as_named() -> None:
    (rule,) = rules_from([{"policy": "p", "conn_id": ["dev_*"]}])
    assert find_mismatch(rule, replace(TASK, conn_ids=(), has_unknown_conn=True)) is None


def test_the_first_rule_that_gates_everywhere_ends_the_search() -> None:
    rules = rules_from(
        [
            {"policy": "a", "operator": "Copy", "destination": "{{ task.to }}", "to": ["s3://a/**"]},
            {"policy": "b", "operator": "Copy"},
            {"policy": "c", "operator": "Copy"},
        ]
    )
    assert [rule.policy for rule in rules_for(rules, TASK)] == ["a", "b"]


def test_a_destination_that_can_be_read_in_two_ways_is_refused() -> None:
    (rule,) = rules_from([{"policy": "p", "destination": "{{ x }}", "to": ["s3://a/**"]}])
    assert is_for_destination(rule, "s3://a/b")
    assert not is_for_destination(rule, "s3://c/b")
    for place in ("", "s3://a/../c", "no place"):
        with pytest.raises(InvalidRequestError):
            is_for_destination(rule, place)


def test_the_reason_names_the_rule_and_what_it_asks_for() -> None:
    (rule,) = rules_from([{"policy": "p", "operator": "Copy", "dag_tags": ["prod"]}])
    assert reason_of(rule) == "gated_operators 1: operator Copy, tag prod (policy p)"
