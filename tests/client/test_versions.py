"""Two versions side by side: a newer server serves older workers, and an older one says that it is older."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airflow_approvals import __version__
from airflow_approvals.client.calls import API
from airflow_approvals.core.errors import RequestNotFoundError, VersionMismatchError
from airflow_approvals.core.model import ApprovalRequest, from_json, to_json
from tests.web.site import LOADED, Site, an_opening


@pytest.mark.parametrize(("method", "path"), [("GET", "/of-tomorrow"), ("POST", "/health")])
def test_a_call_that_the_server_is_too_old_for_says_who_has_to_be_upgraded(
    site: Site, method: str, path: str
) -> None:
    with site.worker(site.add_task()) as worker, pytest.raises(VersionMismatchError) as caught:
        worker._caller.call(method, path, body={} if method == "POST" else None, again=True)
    said = str(caught.value)
    assert f"asked for {method} {path} by airflow-approvals {__version__}" in said
    assert "upgrade airflow-approvals on the API server" in said


def test_what_is_not_there_is_not_taken_for_an_old_server(site: Site) -> None:
    with site.worker(site.add_task()) as worker, pytest.raises(RequestNotFoundError):
        worker.get_request("00000000-0000-4000-8000-000000000000")


@pytest.mark.parametrize("inside", [(), ("action",), ("evidence",)], ids=["body", "action", "evidence"])
def test_a_key_of_a_newer_worker_is_refused_with_the_version_of_the_server(
    site: Site, inside: tuple[str, ...]
) -> None:
    body = to_json(an_opening())
    place = body
    for name in inside:
        place = place[name]
    place["of_tomorrow"] = 1
    with site.worker(site.add_task()) as worker:
        token = worker._caller._token_source()
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{site.base_url}{API}/requests", json=body, headers=headers, timeout=LOADED)
    assert answer.status_code == 422
    assert f"this server is airflow-approvals {__version__}: a worker" in answer.json()["detail"]
    assert "request.opened" not in {entry["kind"] for entry in site.ledger()}


def test_an_older_worker_reads_what_a_newer_server_tells_besides(site: Site) -> None:
    with site.worker(site.add_task()) as worker:
        request, _ = worker.open_request(an_opening())
    assert from_json(ApprovalRequest, with_more(to_json(request))) == request


def with_more(told: Any) -> Any:
    """Return `told` with a key of tomorrow in every object but those whose keys are the caller's own."""
    if isinstance(told, list):
        return [with_more(each) for each in told]
    if not isinstance(told, dict):
        return told
    inner = {name: each if name == "parameters" else with_more(each) for name, each in told.items()}
    return {**inner, "of_tomorrow": 1}
