"""PII classes as Marquez's own tags: where there is a connection, and never at the cost of an event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_approvals.lineage import facets
from airflow_approvals.lineage.tags import MarquezTags, find_marquez
from tests.lineage.samples import a_snapshot
from tests.lineage.test_spool import a_task_event
from tests.marquez.server import StandIn


def a_tagged_event(columns: tuple[str, ...] = ("id", "email"), tagged: str = "email") -> dict[str, Any]:
    about = {
        "schema": facets.schema(a_snapshot(columns=columns).columns),
        "tags": facets.pii_tags({tagged: ["EMAIL_ADDRESS"]}),
    }
    dataset = {"namespace": "file", "name": "/staged/größe/a b.csv", "facets": about}
    return {**a_task_event("COMPLETE"), "inputs": [dataset], "outputs": []}


def test_columns_are_tagged_once(backend: StandIn) -> None:
    event = a_tagged_event()
    backend.take(event)
    tags = MarquezTags(backend.url)
    tags.mark(event)
    tags.mark(event)
    assert backend.tags == {("file", "/staged/größe/a b.csv", "email", "EMAIL_ADDRESS")}
    assert backend.calls == 1


def test_a_tag_of_a_column_that_is_not_there_is_not_asked_for(backend: StandIn) -> None:
    MarquezTags(backend.url).mark(a_tagged_event(tagged="gone"))
    assert backend.calls == 0


@pytest.mark.parametrize("trouble", ["404", "500", "garbage"])
def test_a_tag_that_cannot_be_set_is_logged_and_tried_with_the_next_event(
    trouble: str, backend: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    event = a_tagged_event()
    backend.take(event)
    backend.trouble = trouble
    tags = MarquezTags(backend.url)
    tags.mark(event)
    assert "could not be tagged" in caplog.text
    backend.trouble = ""
    tags.mark(event)
    assert len(backend.tags) == 1


def test_the_connection_says_where_marquez_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_marquez() is None, "tags are optional"
    told = {"conn_type": "http", "host": "marquez.example", "port": 5000, "schema": "https"}
    monkeypatch.setenv("AIRFLOW_CONN_MARQUEZ_DEFAULT", json.dumps(told))
    found = find_marquez()
    assert found is not None
    assert found._base_url == "https://marquez.example:5000"
