"""The API's own description, fuzzed: whatever is sent, right or wrong, no call ends in a fault of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from airflow_approvals.client.tokens import worker_tokens
from airflow_approvals.core.errors import error_types
from airflow_approvals.web.app import create_app
from airflow_approvals.wiring import build_channels
from tests.web.site import SECRET, Site, an_opening, mounted, serving

pytestmark = [
    pytest.mark.services,  # for its length; it needs nothing but packages
    pytest.mark.skipif(find_spec("schemathesis") is None, reason="only where the newest Airflow is tested"),
]

EXAMPLES = int(os.environ.get("APPROVALS_FUZZ_EXAMPLES", "15"))
"""Calls of each kind (as described, and not as described) for each operation and caller."""

HELD = 0.02  # seconds that a fuzzed long-poll may be held


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("fuzzed")
    found = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    found.app = create_app(
        lambda: found.service,
        found.settings,
        found.users,
        lambda service: build_channels(service, found.settings),
    )
    with serving(mounted(found.app), found.port):
        yield found
    found.store.close()


@pytest.fixture(scope="module")
def requests(site: Site) -> list[str]:
    """Requests in several states, so that fuzzed calls find something."""
    with site.person("engineer") as engineer, site.person("alice") as alice:
        found = [
            engineer.open_request(an_opening(f"set-{number}"), idempotency_key=str(number))[0].id
            for number in range(4)
        ]
        alice.vote(found[0], "approve", revision=1)
        alice.vote(found[1], "deny", revision=1, reason="no")
        alice.ask(found[2], "why?")
    return found


def headers_of(site: Site, caller: str) -> dict[str, str]:
    if caller != "worker":
        return {"Authorization": f"Bearer login-{caller}"}
    token = worker_tokens(site.add_task(run_id=uuid4().hex), SECRET)()
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("caller", ["alice", "root", "worker"])
def test_no_call_ends_in_a_fault_of_ours(site: Site, requests: list[str], caller: str, mode: str) -> None:
    import schemathesis

    headers = headers_of(site, caller)
    schema = schemathesis.openapi.from_url(f"{site.base_url}/approvals/openapi.json", headers=headers)
    looked_at, wrongly = 0, 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # an operation that it cannot read has none
        looked_at += 1
        seen = fuzz(operation, headers, requests, schemathesis.GenerationMode(mode))
        wrongly += bool(seen & {400, 422})
        # What takes nothing has no wrong way to be called.
        assert seen or mode == "negative", operation.label
    assert looked_at >= 18
    assert mode == "positive" or wrongly >= 10


def fuzz(operation: Any, headers: dict[str, str], requests: list[str], mode: Any) -> set[int]:
    """Return the statuses that were answered; raise for any that no caller should see."""
    seen: set[int] = set()
    known = st.one_of(st.none(), st.sampled_from(requests))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), request_id=known)
    def call(case: Any, request_id: str | None) -> None:
        if request_id is not None and "request_id" in (case.path_parameters or {}):
            case.path_parameters["request_id"] = request_id
        if isinstance(case.query, dict) and "wait" in case.query:
            case.query["wait"] = HELD
        answer = case.call(headers=headers, timeout=60)
        seen.add(answer.status_code)
        told = f"{case.method} {case.path}: {answer.status_code}"
        assert answer.status_code < 500, told
        assert answer.status_code != 401 or "authorization" in {
            name.lower() for name in case.headers or {}
        }, told
        if answer.status_code >= 400:
            check_problem(answer, told)

    with suppress(Unsatisfiable):
        call()
    return seen


def check_problem(answer: Any, told: str) -> None:
    """Raise unless the refusal is a problem of RFC 9457 with one of our words."""
    if answer.status_code == 404 and answer.json() == {"detail": "Not Found"}:
        return  # `..` has led out of our app
    assert answer.headers["content-type"] == ["application/problem+json"], told
    problem = answer.json()
    assert problem["type"] in {*error_types(), "http"}, told
    assert problem["status"] == answer.status_code, told
