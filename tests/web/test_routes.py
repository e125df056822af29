"""What every route has in common: who gets in, what is too large, and how errors are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from airflow_approvals.core.errors import InvalidRequestError, NotAllowedError, error_types
from airflow_approvals.core.worker_token import LINEAGE, WorkerClaims, issue_worker_token, worker_key
from airflow_approvals.web.app import create_app
from airflow_approvals.web.problems import STATUS, status_of
from tests.web.site import SECRET, LoginsByName, Site, an_opening, utc_now

API = "/approvals/api/v1"
NOBODY = "00000000-0000-4000-8000-000000000000"
SECRET_VALUE = "jane.doe@example.com"


def all_routes() -> Iterator[Any]:
    """Every method of every route, as the app itself lists them; included routers are walked too."""
    app = create_app(_never, _never, LoginsByName())  # type: ignore[arg-type]  # only the table of routes is used
    pending: list[tuple[str, Any]] = [("", route) for route in app.routes]
    seen = 0
    while pending:
        prefix, route = pending.pop()
        if isinstance(route, APIRoute):
            seen += 1
            for method in sorted({*(route.methods or ()), "HEAD", "OPTIONS"}):
                yield pytest.param(method, prefix + route.path, id=f"{method} {prefix}{route.path}")
            continue
        inner = getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", None
        )
        assert inner, f"a route that this test cannot look into: {route!r}"
        context = getattr(route, "include_context", None)
        pending.extend(
            (prefix + (context.prefix if context else getattr(route, "path", "")), one) for one in inner
        )
    assert seen >= 18


http = httpx.Client(timeout=60)


@pytest.fixture(scope="module", autouse=True)
def _hang_up() -> Iterator[None]:
    yield
    http.close()


def _never() -> Any:
    raise AssertionError


@pytest.mark.parametrize(("method", "path"), list(all_routes()))
def test_every_route_refuses_without_a_login(shared: Site, method: str, path: str) -> None:
    url = shared.base_url + "/approvals" + path.replace("{request_id}", NOBODY)
    for content in (None, b"{", b'{"unknown": 1}'):
        answer = http.request(method, url, content=content, headers={"Content-Type": "application/json"})
        # A method that a route does not have tells nothing: 405 comes before anybody is asked.
        assert answer.status_code in ((401, 405) if method in ("HEAD", "OPTIONS") else (401,))
        if (
            answer.status_code == 401
            and method == "POST"
            and path.endswith(("/slack/interactive", "/slack/events"))
        ):
            assert answer.content == b""  # Slack's signature stands for a login, and a forger learns nothing
        elif answer.status_code == 401 and method != "HEAD":
            assert answer.json()["type"] == "not-authenticated"
            assert answer.headers["content-type"] == "application/problem+json"


def test_the_api_describes_itself_to_those_who_are_logged_in(shared: Site) -> None:
    headers = {"Authorization": "Bearer login-alice"}
    answer = http.get(f"{shared.base_url}/approvals/openapi.json", headers=headers)
    assert answer.status_code == 200
    assert "/api/v1/requests/{request_id}/votes" in answer.json()["paths"]
    assert answer.json()["servers"] == [{"url": "/approvals"}]
    assert http.get(f"{shared.base_url}/approvals/docs", headers=headers).status_code == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_whether_its_length_is_stated_or_not(
    shared: Site, chunked: bool
) -> None:
    body = json.dumps({"action": {"kind": "export", "justification": "x" * (1 << 20)}}).encode()
    content: Any = iter([body[:1000], body[1000:]]) if chunked else body
    answer = http.post(
        f"{shared.base_url}{API}/requests",
        content=content,
        headers={"Authorization": "Bearer login-alice", "Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert answer.json()["type"] == "too-large"


def test_a_body_over_the_limit_is_no_fault_where_a_route_reads_it_itself(shared: Site) -> None:
    claims = WorkerClaims(subject=LINEAGE, scope="lineage")
    token = issue_worker_token(worker_key(SECRET), claims, now=utc_now(), token_id="one")
    answer = http.post(
        f"{shared.base_url}{API}/lineage/events",
        content=iter([b"x" * 1000, b"x" * (1 << 20)]),
        headers={"Authorization": f"Bearer {token}"},
    )
    assert (answer.status_code, answer.json()["type"]) == (413, "too-large")


PRIVATE = ["/requests", "/events", "/keys", "/health", f"/requests/{NOBODY}", "/ledger/export"]


@pytest.mark.parametrize("path", PRIVATE)
def test_no_cache_keeps_what_the_api_answers(shared: Site, path: str) -> None:
    answer = http.get(f"{shared.base_url}{API}{path}", headers={"Authorization": "Bearer login-audrey"})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


WRONG_ADDRESSES = {
    "no such call": ("GET", "/nothing", 404),
    "another method": ("DELETE", "/requests", 405),
    "a wrong value": ("GET", "/requests?limit=0", 422),
}


@pytest.mark.parametrize(("method", "path", "status"), WRONG_ADDRESSES.values(), ids=WRONG_ADDRESSES.keys())
def test_a_call_that_is_none_is_told_where_the_calls_are_described(
    shared: Site, method: str, path: str, status: int
) -> None:
    headers = {"Authorization": "Bearer login-alice"}
    answer = http.request(method, f"{shared.base_url}{API}{path}", headers=headers)
    assert answer.status_code == status
    assert "openapi.json" in answer.json()["detail"]


def a_dataset(*, sha256: str, file_sha256: str, size: int) -> bytes:
    """Return the opening of an export of one file of one byte, as the dataset says it is."""
    files = [{"name": "a.csv", "sha256": file_sha256 * 64, "size": 1}]
    evidence = {"datasets": [_dataset(sha256, files, size=size)]}
    return json.dumps({"action": {"kind": "export"}, "evidence": evidence}).encode()


def _dataset(sha256: str, files: list[dict[str, object]], *, size: int) -> dict[str, object]:
    facts = {"uri": "file:///a.csv", "format": "csv", "rows": 1, "columns": [], "schema_sha256": "c" * 64}
    return {**facts, "sha256": sha256 * 64, "size": size, "files": files}


MALFORMED = {
    "no JSON": b"{",
    "a list": b"[]",
    "nothing": b"",
    "an unknown key": b'{"action": {"kind": "export"}, "approved": true}',
    "an unknown key inside": b'{"action": {"kind": "export", "approved": true}}',
    "a wrong type": b'{"action": {"kind": ["%s"]}}' % SECRET_VALUE.encode(),
    "not a number": b'{"action": {"kind": "export", "parameters": {"x": NaN}}}',
    "half a character": b'{"action": {"kind": "export", "justification": "\\ud800"}}',
    "a NUL": b'{"action": {"kind": "export", "justification": "a\\u0000"}}',
    "a huge number": b'{"action": {"kind": "export", "parameters": {"x": 9007199254740993}}}',
    "nested too deep": b'{"action": {"kind": "export", "parameters": {"x": '
    + b"[" * 5000
    + b"]" * 5000
    + b"}}}",
    "not a digest": b'{"action": {"kind": "export"}, "evidence": {"datasets": [{"uri": "file:///a", '
    b'"format": "csv", "sha256": "zz", "size": 1, "rows": 1, "columns": [], '
    b'"schema_sha256": "zz", "files": []}]}}',
    "the digest of another file": a_dataset(sha256="a", file_sha256="b", size=1),
    "the size of another file": a_dataset(sha256="a", file_sha256="a", size=2),
    "no file at all": json.dumps(
        {"action": {"kind": "export"}, "evidence": {"datasets": [_dataset("a", [], size=0)]}}
    ).encode(),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_input_is_refused_and_never_repeated(shared: Site, body: bytes) -> None:
    headers = {
        "Authorization": "Bearer login-alice",
        "Content-Type": "application/json",
        "Idempotency-Key": "k",
    }
    answer = http.post(f"{shared.base_url}{API}/requests", content=body, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    problem = answer.json()
    assert problem["type"] == "invalid-request"
    assert problem["instance"] == f"{API}/requests"
    assert SECRET_VALUE not in answer.text


@pytest.mark.parametrize("account", ["\\ud800", "a\\u0000"], ids=["half a character", "a NUL"])
def test_an_account_that_no_database_can_look_for_is_refused(shared: Site, account: str) -> None:
    body = f'{{"provider": "slack", "team_id": "{account}", "user_id": "U0"}}'
    headers = {"Authorization": "Bearer login-alice", "Content-Type": "application/json"}
    answer = http.post(f"{shared.base_url}{API}/identities/unlink", content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")


def test_an_id_that_is_none_is_not_found_or_not_understood(shared: Site) -> None:
    headers = {"Authorization": "Bearer login-alice"}
    for path, status in ((NOBODY, 404), ("x" * 300, 422), ("..%2f..%2fetc", 404)):
        answer = http.get(f"{shared.base_url}{API}/requests/{path}", headers=headers)
        assert answer.status_code == status, path


def test_a_task_is_told_what_is_protected_and_nobody_else(site: Site) -> None:
    with site.policy_file.open("a") as file:
        file.write('\nprotected_connections: ["prod_*"]\n')
    with site.worker(site.add_task()) as worker:
        assert worker.is_protected("prod_db")
        assert not worker.is_protected("dev_db")
        for name in ("", "x" * 251):
            with pytest.raises(InvalidRequestError):
                worker.is_protected(name)
    for caller in (site.reader(), site.person("root")):
        with caller, pytest.raises(NotAllowedError):
            caller.is_protected("prod_db")
    assert "attempt.refused" not in {entry["kind"] for entry in site.ledger()}


def test_a_fault_tells_nothing_of_the_inside(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(SECRET_VALUE)

    monkeypatch.setattr(site.service.store, "list_requests", broken)
    answer = http.get(f"{site.base_url}{API}/requests", headers={"Authorization": "Bearer login-alice"})
    assert answer.status_code == 500
    assert answer.json()["type"] == "internal-error"
    assert SECRET_VALUE not in answer.text


def test_every_error_class_has_a_status_of_its_own_or_of_its_ancestor() -> None:
    for cls in error_types().values():
        assert 400 <= status_of(cls) < 600
    assert {status_of(cls) for cls in STATUS} >= {401, 403, 404, 409, 410, 412, 413, 422, 503}


def test_what_one_may_not_see_does_not_exist(shared: Site) -> None:
    ti_id = shared.add_task(dag_id="private", run_id="r1")
    with shared.worker(ti_id) as worker:
        request, _ = worker.open_request(an_opening("private"))
    visible = {"engineer": 200, "alice": 200, "root": 200, "audrey": 200, "reader": 200, "mallory": 404}
    shared.users.readers_of["private"] = {"reader"}
    for name, status in visible.items():
        headers = {"Authorization": f"Bearer login-{name}"}
        answer = http.get(f"{shared.base_url}{API}/requests/{request.id}", headers=headers)
        assert answer.status_code == status, name
        listed = http.get(f"{shared.base_url}{API}/requests?dag_id=private", headers=headers).json()
        assert listed["total"] == (1 if status == 200 else 0), name
