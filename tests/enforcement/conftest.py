"""The one Airflow of these tests, after everything in it has run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.enforcement.site import Cluster, running_cluster
from tests.provider.runs import approve

ATTACKS = ("reads", "from_a_trigger", "calls_execute", "overwrites", "in_a_template")
TAMPERED = ("without_hooks", "without_file")
GATED = {"stock": 1, "deferring": 2, "plain": 2, "wrong_policy": 1}
"""How many requests the DAG opens."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An Airflow in which every DAG has run to its end, and whoever asked was approved."""
    with running_cluster(tmp_path_factory.mktemp("enforcement")) as cluster:
        for dag_id in (*GATED, *ATTACKS, *TAMPERED, "untouched", "marked"):
            cluster.trigger(dag_id)
        for dag_id, count in GATED.items():
            cluster.approve_all(dag_id, count)
        cluster.wait_for_requests("marked")
        cluster.api(
            "PATCH", "/dags/marked/dagRuns/marked/taskInstances/insert", json={"new_state": "success"}
        ).raise_for_status()
        for request in cluster.wait_for_requests("without_file"):
            approve(cluster.site, request)
        for dag_id in (*GATED, *ATTACKS, *TAMPERED, "untouched"):
            cluster.wait_for_end(dag_id)
        yield cluster
