"""common.ai's approval of tool calls and of texts, governed: its own examples unchanged, with a stub model.

The provider is not in the environment of the other tests: its plugins cost every Airflow process seconds. So
there these are skipped, and `make test-ai`, a part of `make test-services`, runs them in one of their own.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from airflow_approvals.core.model import State
from tests.enforcement.site import Cluster

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(
        not find_spec("airflow.providers.common.ai"),
        reason="run by `make test-ai`: apache-airflow-providers-common-ai is not in this environment",
    ),
]

TOOL, TEXT = "example_agent_tool_approval", "example_llm_approval"
ASKED = {TOOL: "handle_ticket", TEXT: "draft_release_note"}

# pydantic-ai's own stub: it calls every tool once, and then tells what they returned.
STUB = """
import json
from airflow.models import Connection
from airflow.utils.session import create_session
with create_session() as session:
    extra = json.dumps({"model": "test"})
    session.add(Connection(conn_id="pydanticai_default", conn_type="pydanticai", extra=extra))
"""


@pytest.fixture(scope="module")
def asking(cluster: Cluster) -> Cluster:
    """Both examples, waiting for people."""
    cluster.python(STUB)
    for dag_id in ASKED:
        cluster.trigger(dag_id)
    for dag_id in ASKED:
        wait_for(cluster, dag_id, "awaiting_input")
    return cluster


def wait_for(cluster: Cluster, dag_id: str, state: str) -> None:
    cluster.until(f"{dag_id}: {state}", lambda: cluster.states(dag_id).get(ASKED[dag_id]) == state)


def answer(cluster: Cluster, user: str, dag_id: str, chosen: str = "Approve") -> Any:
    """Answer as Airflow's form does: with what it was shown, unchanged."""
    path = f"/dags/{dag_id}/dagRuns/{dag_id}/taskInstances/{ASKED[dag_id]}/-1/hitlDetails"
    asked = cluster.api("GET", path, user=user).json()
    inputs = {
        name: each["value"] if isinstance(each, dict) and "value" in each else each
        for name, each in asked["params"].items()
    }
    return cluster.api("PATCH", path, user=user, json={"chosen_options": [chosen], "params_input": inputs})


@pytest.mark.parametrize("dag_id", [TOOL, TEXT], ids=["a tool call", "a text"])
def test_an_example_of_common_ai_goes_on_by_votes_alone(asking: Cluster, dag_id: str) -> None:
    refused = answer(asking, "engineer", dag_id)  # who has started the run
    assert refused.status_code == 403
    assert "requesters cannot approve their own action" in refused.text
    assert answer(asking, "bob", dag_id).status_code == 403  # no reviewer
    assert asking.states(dag_id)[ASKED[dag_id]] == "awaiting_input"
    taken = answer(asking, "alice", dag_id)
    assert taken.status_code == 200, taken.text
    wait_for(asking, dag_id, "success")
    (request,) = asking.site.requests_of(dag_id)
    assert request.state is State.COMPLETED
    assert [vote.voter for vote in request.votes] == ["alice"]


def test_the_tool_ran_after_the_vote_alone(asking: Cluster) -> None:
    path = f"/dags/{TOOL}/dagRuns/{TOOL}/taskInstances/{ASKED[TOOL]}/xcomEntries/return_value"
    assert "refunded order" in asking.api("GET", path).text
