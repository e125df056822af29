"""The app where it lives: mounted into a real Airflow API server, with Airflow's own logins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.provider.site import (
    LOADED,
    POLICY,
    airflow_settings,
    free_port,
    login,
    migrate,
    start,
    stop,
    wait_until_healthy,
)

pytestmark = pytest.mark.airflow

API = "/approvals/api/v1"
OPENING = {"action": {"kind": "export", "destination": "file:///data/outbox/a.csv", "justification": "feed"}}


@pytest.fixture(scope="module")
def server(airflow_home: Path) -> Iterator[str]:
    port = free_port()
    settings = airflow_settings(airflow_home, port=port)
    policy_file = airflow_home / "approvals" / "policy.yaml"
    policy_file.parent.mkdir(exist_ok=True)
    policy_file.write_text(POLICY)
    migrate(airflow_home, settings)
    started = start(airflow_home, settings, "api-server", "--host", "127.0.0.1", "--port", str(port))
    try:
        base_url = f"http://127.0.0.1:{port}"
        wait_until_healthy(base_url)
        yield base_url
    finally:
        stop(started)


def bearer(server: str, name: str) -> httpx.Client:
    return httpx.Client(
        base_url=server + API, headers={"Authorization": f"Bearer {login(server, name)}"}, timeout=LOADED
    )


def browser(server: str, name: str) -> httpx.Client:
    return httpx.Client(base_url=server + API, cookies={"_token": login(server, name)}, timeout=LOADED)


def opened(server: str, key: str) -> dict[str, Any]:
    with bearer(server, "engineer") as engineer:
        answer = engineer.post("/requests", json=OPENING, headers={"Idempotency-Key": key})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_airflow_users_ask_and_answer(server: str) -> None:
    request = opened(server, "first")
    assert request["requesters"] == ["engineer"]
    vote = {"verdict": "approve", "revision": 1}
    with bearer(server, "engineer") as engineer, bearer(server, "alice") as alice:
        refused = engineer.post(f"/requests/{request['id']}/votes", json=vote)
        assert (refused.status_code, refused.json()["type"]) == (403, "vote-refused")
        approved = alice.post(f"/requests/{request['id']}/votes", json=vote)
        assert approved.json()["state"] == "approved"


@pytest.mark.parametrize("path", ["/requests", "/health", "/keys", "/events", "/ledger/checkpoint"])
@pytest.mark.parametrize("token", [None, "nonsense"])
def test_nobody_gets_in_without_a_login(server: str, path: str, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = httpx.get(server + API + path, headers=headers, timeout=LOADED)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_login_cookie_alone_reads_but_changes_nothing(server: str) -> None:
    request = opened(server, "second")
    vote = {"verdict": "approve", "revision": 1}
    with browser(server, "alice") as alice:
        assert alice.get(f"/requests/{request['id']}").status_code == 200
        path = f"/requests/{request['id']}/votes"
        assert alice.post(path, json=vote).status_code == 403
        foreign = {"X-Requested-With": "approvals", "Origin": "https://evil.example"}
        assert alice.post(path, json=vote, headers=foreign).status_code == 403
        own = {"X-Requested-With": "approvals", "Origin": server}
        assert alice.post(path, json=vote, headers=own).json()["state"] == "approved"


def test_airflow_leads_to_the_inbox_and_from_a_task_instance_to_its_approval(server: str) -> None:
    headers = {"Authorization": f"Bearer {login(server, 'admin')}"}
    with httpx.Client(base_url=server, headers=headers, timeout=LOADED) as admin:
        plugins = admin.get("/api/v2/plugins").json()["plugins"]
    views = [view for plugin in plugins for view in plugin["external_views"]]
    hrefs = {view["destination"]: view["href"] for view in views if view["href"].startswith("/approvals/")}
    assert set(hrefs) == {"nav", "task_instance"}
    # Airflow fills in what it knows, and leaves the rest as it stands.
    task = hrefs["task_instance"]
    for name, value in {
        "DAG_ID": "export",
        "RUN_ID": "manual__2026-01-01T00:00:00+00:00",
        "TASK_ID": "a.b",
    }.items():
        assert f"{{{name}}}" in task
        task = task.replace(f"{{{name}}}", value)
    cookies = {"_token": login(server, "alice")}
    with httpx.Client(base_url=server, cookies=cookies, timeout=LOADED) as alice:
        inbox, tab = (alice.get(path, headers={"Accept": "text/html"}) for path in (hrefs["nav"], task))
    assert (inbox.status_code, "Nothing waits for your answer" in inbox.text or "row-link" in inbox.text) == (
        200,
        True,
    )
    assert (tab.status_code, "No approval was asked for" in tab.text) == (200, True)


def test_the_background_loop_runs_in_the_api_server(server: str) -> None:
    deadline = time.monotonic() + LOADED
    with bearer(server, "alice") as alice:
        while True:
            kinds = {entry["kind"] for entry in alice.get("/events").json()["entries"]}
            health = alice.get("/health").json()
            if {"key.added", "policy.loaded"} <= kinds and health["ledger"]["signed"] > 0:
                break
            assert time.monotonic() < deadline, kinds
            time.sleep(0.2)
    assert health["status"] == "ok"
