"""Gated operators in a real Airflow: DAGs that know nothing of approvals ask all the same."""

from __future__ import annotations

import json

import pytest

from airflow_approvals.core.model import State
from tests.enforcement.site import TOKEN, Cluster
from tests.provider.runs import approve

pytestmark = pytest.mark.airflow


def test_a_stock_operator_asks_and_then_works_unchanged(cluster: Cluster) -> None:
    (request,) = cluster.site.requests_of("stock")
    assert cluster.states("stock") == {"insert": "success"}
    assert (request.state, request.policy) == (State.COMPLETED, "any-task")
    assert request.action.parameters is not None
    assert request.action.parameters["task"]["connections"] == ["prod_db"]
    assert "stock" in cluster.rows()


def test_a_deferrable_operator_goes_on_by_itself_after_its_approval(cluster: Cluster) -> None:
    assert set(cluster.states("deferring").values()) == {"success"}
    requests = cluster.site.requests_of("deferring")
    assert {request.state for request in requests} == {State.COMPLETED}
    assert {request.action.destination for request in requests} == {
        "s3://partner-a/deferring.csv",
        "s3://partner-b/more.csv",
    }
    assert cluster.left("finished_to_partner") == "deferring.csv"


def test_a_class_made_from_a_gated_one_is_gated_too(cluster: Cluster) -> None:
    assert [r for r in cluster.site.requests_of("deferring") if r.origin and r.origin.task_id == "more"]


def test_a_destination_that_no_rule_names_is_not_gated(cluster: Cluster) -> None:
    assert cluster.left("finished_to_us") == "ours.csv"


def test_mapped_taskflow_tasks_are_gated_one_by_one_and_lent_what_their_rule_names(cluster: Cluster) -> None:
    requests = cluster.site.requests_of("plain")
    assert sorted(request.origin.map_index for request in requests if request.origin) == [0, 1]
    assert set(cluster.states("plain").values()) == {"success"}
    assert cluster.left("number_1") == cluster.left("number_2") == TOKEN


def test_a_dag_without_the_tag_is_left_alone(cluster: Cluster) -> None:
    assert cluster.states("untouched") == {"gated_by_nobody": "success"}
    assert not cluster.site.requests_of("untouched")


def test_policy_explain_tells_for_every_task_what_gates_it_and_why(cluster: Cluster) -> None:
    told = cluster.command("policy", "explain", "deferring", "-o", "json")
    assert told.returncode == 0, told.stderr
    tasks = {task["task_id"]: task for task in json.loads(told.stdout)["tasks"]}
    assert {task["standing"] for task in tasks.values()} == {"by rule"}
    assert "operator Send" in tasks["more"]["because"]
    assert "gated_operators 2" in tasks["to_us"]["because"]
    shown = cluster.command("policy", "explain", "untouched")
    assert "not gated" in shown.stdout


def test_the_runs_of_a_backfill_ask_one_by_one_and_bar_the_owner(cluster: Cluster) -> None:
    body = {"dag_id": "backfilled", "from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-02T00:00:00Z"}
    # 409: an earlier call, though it was answered with an error, had started it.
    assert cluster.api("POST", "/backfills", json=body).status_code in (200, 409)
    days = ("2026-01-01", "2026-01-02")
    runs = {day: f"backfill__{day}T00:00:00+00:00" for day in days}
    cluster.until("both have asked", lambda: all(map(cluster.site.requests_of, runs.values())))
    assert not set(days) & set(cluster.rows())
    (asked,) = cluster.site.requests_of(runs["2026-01-01"])
    assert asked.origin is not None
    assert (asked.state, asked.policy, asked.origin.dag_id) == (State.PENDING, "any-task", "backfilled")
    assert "airflow" in asked.requesters  # the DAG's owner, beside whoever started the backfill
    approve(cluster.site, asked)
    cluster.until("what was approved is written", lambda: "2026-01-01" in cluster.rows())
    (other,) = cluster.site.requests_of(runs["2026-01-02"])
    assert other.state is State.PENDING
    assert "2026-01-02" not in cluster.rows()


def test_a_cleared_task_asks_anew_and_bars_who_cleared_it(cluster: Cluster) -> None:
    cluster.api(
        "POST",
        "/dags/stock/clearTaskInstances",
        json={
            "dry_run": False,
            "only_failed": False,
            "dag_run_id": "stock",
            "task_ids": ["insert"],
            "reset_dag_runs": True,
        },
    ).raise_for_status()
    cluster.until("stock has asked anew", lambda: len(cluster.site.requests_of("stock")) == 2)
    assert cluster.rows().count("stock") == 1
    (again,) = [each for each in cluster.site.requests_of("stock") if each.state is State.PENDING]
    assert again.requesters == ("admin", "engineer")  # who cleared it, and who started the run
