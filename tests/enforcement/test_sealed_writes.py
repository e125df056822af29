"""The SQL write through a sealed connection: lent for the approved write, and to nobody before."""

from __future__ import annotations

import pytest

from airflow_approvals.core.model import State
from tests.enforcement.site import Cluster

pytestmark = pytest.mark.airflow

ROWS = ["first approved row", "second approved row"]


def test_an_approved_write_is_lent_its_sealed_connection_and_writes_its_rows_once(cluster: Cluster) -> None:
    (request,) = cluster.site.requests_of("approved_write")
    assert cluster.states("approved_write") == {"write": "success"}
    assert (request.state, request.action.destination) == (State.COMPLETED, "sql://prod_db/written")
    assert [row for row in cluster.rows() if row in ROWS] == ROWS
    story = cluster.story(request)
    assert set(story) >= {"request.opened", "request.approved", "receipt.redeemed", "secret.lent"}
    assert story.index("request.approved") < story.index("receipt.redeemed") < story.index("secret.lent")
    loans = [entry for entry in cluster.entries("secret.lent") if entry["request_id"] == request.id]
    assert {loan["data"]["name"] for loan in loans} == {"prod_db"}


def test_a_denied_write_is_lent_nothing_and_writes_nothing(cluster: Cluster) -> None:
    (request,) = cluster.site.requests_of("denied_write")
    assert cluster.states("denied_write") == {"write": "failed"}
    assert request.state is State.DENIED
    assert "secret.lent" not in cluster.story(request)
    assert len([row for row in cluster.rows() if row in ROWS]) == len(ROWS)  # the approved ones alone


def test_a_write_that_asks_does_not_try_a_sealed_connection_before(cluster: Cluster) -> None:
    tried = [
        entry["data"]["because"]
        for entry in cluster.entries("attempt.refused")
        if entry["data"]["attempt"] == "read connection prod_db"
    ]
    assert tried  # by the attacks
    assert not [because for because in tried if "_write/" in because]
