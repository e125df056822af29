from __future__ import annotations

from typing import Any

import pytest

from airflow_approvals.core.lending import names_in
from airflow_approvals.core.model import Action

NAMED: dict[str, tuple[Action, set[str]]] = {
    "by a gated task": (
        Action(kind="write", parameters={"task": {"connections": ["a", "b"]}, "connections": ["c"]}),
        {"a", "b", "c"},
    ),
    "by a parameter": (Action(kind="export", parameters={"destination_conn_id": "a", "mode": "x"}), {"a"}),
    "by an SQL place": (Action(kind="write", destination="sql://Crm/customers"), {"Crm"}),
    "before a bucket": (Action(kind="export", destination="s3://aws@bucket/key", source="s3://b/c"), {"aws"}),
    "not by a bucket": (Action(kind="export", destination="s3://bucket/key"), set()),
    "not by a file": (Action(kind="export", destination="/data/a@b.csv"), set()),
    "not by what is no text": (
        Action(kind="write", parameters={"conn_id": 1, "connections": "abc", "task": "x"}),
        set(),
    ),
}


@pytest.mark.parametrize(("action", "names"), NAMED.values(), ids=NAMED.keys())
def test_an_action_names_its_connections_where_approvers_see_them(action: Action, names: set[str]) -> None:
    assert names_in(action, "connection") == names


def test_variables_are_only_lent_by_name() -> None:
    parameters: dict[str, Any] = {"task": {"variables": ["v"], "connections": ["a"]}, "variables": ["w"]}
    assert names_in(Action(kind="write", parameters=parameters), "variable") == {"v", "w"}
