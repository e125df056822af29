"""The one Airflow of these tests, after everything in it has run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.enforcement.site import Cluster, running_cluster

ATTACKS = ("reads", "from_a_trigger", "calls_execute", "overwrites", "in_a_template")
GATED = ("stock", "deferring", "plain", "wrong_policy", "without_file", "without_hooks", "approved_write")
DENIED = ("denied_write",)
HITL = "example_hitl_operator"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An Airflow in which every DAG has run to its end, and whoever asked was answered."""
    with running_cluster(tmp_path_factory.mktemp("enforcement")) as cluster:
        for dag_id in ("marked", HITL, *GATED, *DENIED, *ATTACKS, "untouched"):
            cluster.trigger(dag_id)
        cluster.wait_for_requests("marked")
        cluster.api(
            "PATCH", "/dags/marked/dagRuns/marked/taskInstances/insert", json={"new_state": "success"}
        ).raise_for_status()
        cluster.answer_as_they_come(
            approved=GATED, denied=DENIED, until_ended=(*GATED, *DENIED, *ATTACKS, "untouched")
        )
        yield cluster
