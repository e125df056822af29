"""A DAG of Airflow's own examples that asks people, governed and unchanged."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from airflow_approvals.core.model import State
from tests.enforcement.conftest import HITL
from tests.enforcement.site import Cluster

pytestmark = pytest.mark.airflow

ASKED = {
    "wait_for_input": (["OK"], {"information": "the second quarter"}),
    "wait_for_option": (["option 2"], {}),
    "wait_for_multiple_options": (["option 4", "option 5"], {}),
}


def question(task_id: str) -> str:
    return f"/dags/{HITL}/dagRuns/{HITL}/taskInstances/{task_id}/-1/hitlDetails"


def answer(
    cluster: Cluster, user: str, task_id: str, chosen: list[str], inputs: Any = None
) -> httpx.Response:
    body = {"chosen_options": chosen, "params_input": inputs or {}}
    return cluster.api("PATCH", question(task_id), user=user, json=body)


def wait_until_asked(cluster: Cluster, task_id: str) -> None:
    """Wait until the question is there and the scheduler knows that its task's first process has ended.

    Airflow 3.1.0 hears of that up to 5 s late, and fails a task that was answered and queued again by then.
    """
    cluster.until(f"{task_id} asks", lambda: cluster.api("GET", question(task_id)).status_code == 200)
    ended = f"TaskInstance Finished: dag_id={HITL}, task_id={task_id},"
    scheduler_log = cluster.home / "scheduler.log"
    cluster.until(f"{task_id} has paused", lambda: ended in scheduler_log.read_text(errors="replace"))


def test_the_example_runs_to_its_end_with_every_answer_a_vote(cluster: Cluster) -> None:
    for task_id, (chosen, inputs) in ASKED.items():
        wait_until_asked(cluster, task_id)
        refused = answer(cluster, "engineer", task_id, chosen, inputs)  # who has started the run
        assert refused.status_code == 403
        assert "requesters cannot approve their own action" in refused.text
        assert answer(cluster, "bob", task_id, chosen, inputs).status_code == 403  # no reviewer
        assert answer(cluster, "alice", task_id, chosen, inputs).status_code == 200
    wait_until_asked(cluster, "valid_input_and_options")
    # Airflow's own rule holds as well: the example asks this of admin alone.
    assert answer(cluster, "alice", "valid_input_and_options", ["Approve"]).status_code == 403
    assert answer(cluster, "admin", "valid_input_and_options", ["Approve"]).status_code == 200
    wait_until_asked(cluster, "choose_a_branch_to_run")
    assert answer(cluster, "alice", "choose_a_branch_to_run", ["task_2"]).status_code == 200
    cluster.until("task_2 has run", lambda: cluster.states(HITL).get("task_2") == "success")
    states = [request.state for request in cluster.site.requests_of(HITL)]
    assert sorted(states) == [State.COMPLETED] * 5 + [State.FAILED]


def test_what_a_timeout_answered_is_shown_by_doctor(cluster: Cluster) -> None:
    cluster.until(
        "the timeout has answered", lambda: cluster.states(HITL)["wait_for_default_option"] == "success"
    )
    told = json.loads(cluster.command("doctor", "--url", cluster.site.base_url, "-o", "json").stdout)
    answers = [check["text"] for check in told["checks"] if check["subject"] == "answers"]
    assert any("wait_for_default_option: answered without a vote" in text for text in answers), answers
