"""From a worker to the spool: two seconds at most, whatever is there; nobody else gets in."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from openlineage.client.event_v2 import RunEvent
from openlineage.client.transport import get_default_factory

from airflow_approvals.client.tokens import reader_tokens, worker_tokens
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.worker_token import LINEAGE, WorkerClaims, issue_worker_token, worker_key
from airflow_approvals.lineage import transport as transport_module
from airflow_approvals.lineage.approval import Site as LineageSite
from airflow_approvals.lineage.backend import SPOOL, TransportBackend, find_transport, patient, run_event
from airflow_approvals.lineage.kept import MAX_BODY, KeptEvents
from airflow_approvals.lineage.spool import Lineage
from airflow_approvals.lineage.transport import PATIENCE, SpoolTransport, fitting
from airflow_approvals.settings import read_settings
from airflow_approvals.store.lineage import SqlLineageSpool
from airflow_approvals.web.app import create_app
from airflow_approvals.web.lineage import LineageParts
from tests.lineage.test_spool import a_task_event
from tests.marquez.server import StandIn
from tests.web.site import SECRET, Site, mounted, serving, utc_now

pytestmark = pytest.mark.airflow

LOADED = 60.0
"""Seconds that a loaded machine may take for what takes none."""


@contextmanager
def a_site(folder: Path, backend: StandIn | None, *, kept: KeptEvents | None = None) -> Iterator[Site]:
    """A server whose lineage goes to `backend`; without one, OpenLineage is off in it.

    With `kept` it is on the machine where that is.
    """
    site = Site(folder, f"sqlite:///{folder / 'airflow.db'}")

    def build(_: Any) -> Lineage | None:
        if backend is None:
            return None
        transport = get_default_factory().create(patient({"type": "http", "url": backend.url}))
        told = LineageSite(namespace="default", base_url=site.base_url)
        spool = SqlLineageSpool(site.store.engine)
        return Lineage(spool, TransportBackend(transport), site.service, told, kept)

    parts = LineageParts(build=build, spool_of=lambda _: SqlLineageSpool(site.store.engine))
    app = create_app(lambda: site.service, site.settings, site.users, lineage=parts)
    with serving(mounted(app), site.port):
        yield site
    site.store.close()


@pytest.fixture
def site(tmp_path: Path, backend: StandIn) -> Iterator[Site]:
    with a_site(tmp_path, backend) as found:
        yield found


def a_transport(monkeypatch: pytest.MonkeyPatch, url: str, *, patience: float = PATIENCE) -> SpoolTransport:
    """Return the transport as OpenLineage's client makes it of Airflow's configuration."""
    monkeypatch.setattr(transport_module, "PATIENCE", patience)
    monkeypatch.setenv("AIRFLOW__APPROVALS__WORKER_SECRET", SECRET)
    monkeypatch.setenv("AIRFLOW__APPROVALS__SERVICE_URL", url)
    made = get_default_factory().create({"type": SPOOL, "backend": {"type": "http", "url": "http://marquez"}})  # type: ignore[dict-item]  # as Airflow hands it over
    assert isinstance(made, SpoolTransport)
    assert made.config.backend == {"type": "http", "url": "http://marquez"}
    read_settings()  # a worker that runs a task has read Airflow's configuration
    return made


def an_event(**changes: Any) -> RunEvent:
    return run_event({**a_task_event(), **changes})


def until(look: Any) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_event_of_a_worker_reaches_the_backend(
    site: Site, backend: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = str(uuid4())
    transport = a_transport(monkeypatch, site.base_url, patience=LOADED)
    transport.emit(an_event(run={"runId": run_id}))
    transport.emit(an_event(run={"runId": run_id}))
    until(lambda: backend.keys() == [(run_id, "START")])


def test_a_backend_that_is_away_costs_a_worker_nothing_and_loses_nothing(
    site: Site, backend: StandIn, kept: KeptEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.trouble = "nothing"
    transport = a_transport(monkeypatch, site.base_url, patience=LOADED)
    run_ids = [str(uuid4()) for _ in range(5)]
    for run_id in run_ids:
        transport.emit(an_event(run={"runId": run_id}))
        assert kept.count() == 0, "the service has it"
    assert backend.keys() == []
    backend.trouble = ""
    until(lambda: backend.keys() == [(run_id, "START") for run_id in run_ids])


class Clock:
    """Time for the transport alone: it goes on by what is slept, and by what a call may take at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, steps: tuple[str, ...]) -> None:
        self.time = 1000.0
        self.tries = 0
        self._steps = steps
        client = httpx.Client
        monkeypatch.setattr(transport_module, "time", SimpleNamespace(monotonic=self.now, sleep=self.wait))
        monkeypatch.setattr(httpx, "Client", lambda **_: client(transport=httpx.MockTransport(self._never)))

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += seconds

    def _never(self, request: httpx.Request) -> httpx.Response:
        self.tries += 1
        self.wait(sum(request.extensions["timeout"][step] for step in self._steps))
        raise httpx.ConnectTimeout("no answer", request=request)


SLOW: dict[str, tuple[str, ...]] = {
    "refuses at once": (),
    "does not let in": ("connect",),
    "does not take": ("connect", "write"),
    "does not answer": ("connect", "write", "read"),
}


@pytest.mark.parametrize("steps", SLOW.values(), ids=SLOW.keys())
def test_a_service_that_is_away_costs_two_seconds(
    steps: tuple[str, ...], kept: KeptEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = a_transport(monkeypatch, "http://service")
    for _ in range(20):  # what is kept already shares these seconds
        kept.keep(str(uuid4()), json.dumps(a_task_event()).encode(), now=utc_now())
    clock = Clock(monkeypatch, steps=steps)
    began = clock.time
    transport.emit(an_event())
    assert 1.0 < clock.time - began <= PATIENCE
    assert clock.tries > (1 if len(steps) < 3 else 0)
    assert kept.count() == 21


def test_a_service_that_says_nothing_is_left_after_two_seconds(
    kept: KeptEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = a_transport(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        transport.emit(an_event())
        assert 1.0 < time.monotonic() - began < PATIENCE + LOADED
    assert kept.count() == 1


def test_without_a_backend_the_service_says_so_and_takes_nothing(
    tmp_path: Path, kept: KeptEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport_module, "_PAUSE", LOADED)  # asked once, and for as long as it takes
    with a_site(tmp_path, None) as site:
        a_transport(monkeypatch, site.base_url, patience=LOADED).emit(an_event())
        assert kept.count() == 1
        log = caplog.text
    assert "the service answers 503: it is kept in" in log


def test_a_lineage_token_opens_nothing_else(site: Site) -> None:
    key = worker_key(SECRET)
    token = issue_worker_token(
        key, WorkerClaims(subject=LINEAGE, scope="lineage"), now=utc_now(), token_id="1"
    )
    for method, path in (("GET", "/requests"), ("GET", "/keys"), ("POST", "/requests"), ("GET", "/events")):
        answer = httpx.request(
            method,
            f"{site.base_url}/approvals/api/v1{path}",
            headers={"Authorization": f"Bearer {token}"},
            json={} if method == "POST" else None,
            timeout=LOADED,
        )
        assert answer.status_code == 403, path
        assert answer.json()["type"] == "not-allowed"


OTHERS = {
    "a task": worker_tokens(str(uuid4()), SECRET),
    "the triggerer": reader_tokens(SECRET),
    "a person": lambda: "login-alice",
}


@pytest.mark.parametrize("token", OTHERS.values(), ids=OTHERS.keys())
def test_nobody_else_tells_lineage(token: Any, site: Site) -> None:
    answer = httpx.post(
        f"{site.base_url}/approvals/api/v1/lineage/events",
        headers={"Authorization": f"Bearer {token()}"},
        json=a_task_event(),
        timeout=LOADED,
    )
    assert answer.status_code == 403


FORGED = (("worker", LINEAGE), ("lineage", "somebody"), ("read", LINEAGE))


@pytest.mark.parametrize(("scope", "subject"), FORGED)
def test_a_token_of_one_scope_is_none_of_another(scope: Any, subject: str, site: Site) -> None:
    claims = WorkerClaims(subject=subject, scope=scope)
    token = issue_worker_token(worker_key(SECRET), claims, now=utc_now(), token_id="1")
    answer = httpx.post(
        f"{site.base_url}/approvals/api/v1/lineage/events",
        headers={"Authorization": f"Bearer {token}"},
        json=a_task_event(),
        timeout=LOADED,
    )
    assert answer.status_code in (401, 403)


def test_an_event_too_large_goes_without_its_widest_facets() -> None:
    fields = [{"name": f"column_{number:05}" * 4, "type": "string"} for number in range(20_000)]
    dataset = {
        "namespace": "file",
        "name": "/a",
        "facets": {"schema": {"fields": fields}, "version": {"datasetVersion": "1"}},
    }
    event = {**a_task_event(), "inputs": [dataset], "outputs": []}
    body = fitting(event)
    assert len(body) <= MAX_BODY
    assert json.loads(body)["inputs"][0]["facets"] == {"version": {"datasetVersion": "1"}}


def test_2000_columns_fit_whole() -> None:
    from airflow_approvals.lineage import facets
    from airflow_approvals.lineage.names import dataset_of
    from tests.lineage.samples import a_snapshot

    names = tuple(f"a_rather_long_name_of_a_column_{number:04}" for number in range(2_000))
    data = a_snapshot(columns=names)
    about = {
        "schema": facets.schema(data.columns),
        "columnLineage": facets.column_lineage(dataset_of(data.uri), {name: name for name in names}),
    }
    dataset = {"namespace": "file", "name": "/a", "facets": about}
    event = {
        **a_task_event(),
        "inputs": [{**dataset, "facets": {"schema": about["schema"]}}],
        "outputs": [dataset],
    }
    assert json.loads(fitting(event))["outputs"][0]["facets"] == about


def test_texts_that_postgresql_cannot_hold_are_replaced() -> None:
    event = a_task_event(job="a\x00b\ud800")
    assert json.loads(fitting(event))["job"]["name"] == "a\ufffdb\ufffd"


def test_a_spool_before_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.openlineage import conf

    # Some versions of the provider read their options once.
    monkeypatch.setattr(conf, "is_disabled", lambda: False)
    monkeypatch.setattr(conf, "transport", lambda: {"type": SPOOL})
    with pytest.raises(ConfigurationError, match='needs a "backend"'):
        find_transport()


def test_what_stands_inside_of_the_spool_is_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.openlineage import conf

    inner = {"type": "http", "url": "http://marquez:5000"}
    monkeypatch.setattr(conf, "is_disabled", lambda: False)
    monkeypatch.setattr(conf, "transport", lambda: {"type": SPOOL, "backend": inner})
    found = find_transport()
    assert found is not None
    assert (found.kind, found.url) == ("http", "http://marquez:5000")  # type: ignore[attr-defined]  # of HTTP
    monkeypatch.setattr(conf, "is_disabled", lambda: True)
    assert find_transport() is None
