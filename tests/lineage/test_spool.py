"""Events on their way: nothing is lost, nothing is told twice, nothing overtakes, and no gate waits."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from openlineage.client.transport import get_default_factory
from sqlalchemy import text

from airflow_approvals import wiring
from airflow_approvals.core.errors import ConfigurationError, InvalidRequestError, NotAllowedError
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import ApprovalRequest, Channel, Verdict
from airflow_approvals.lineage.approval import Site as LineageSite
from airflow_approvals.lineage.backend import TransportBackend, patient
from airflow_approvals.lineage.spool import ASIDE_FOR, MAX_CHOKES, BackendAwayError, Lineage
from airflow_approvals.store.lineage import SqlLineageSpool
from airflow_approvals.wiring import check_lineage
from tests.lineage.spec import Spec
from tests.marquez.server import StandIn
from tests.store.conftest import database_url  # noqa: F401  # SQLite, and PostgreSQL where there is one
from tests.web.site import POLICY, Site, an_opening

ALICE, BOB = person_named("alice"), person_named("bob")


class Told:
    """A service whose lineage goes to the stand-in, with a clock that is turned by hand."""

    def __init__(self, folder: Path, url: str, backend: StandIn, **settings: Any) -> None:
        self.site = Site(folder, url)
        if self.site.store.engine.dialect.name == "postgresql":  # as Airflow has it there
            with self.site.store.engine.begin() as connection:
                connection.execute(text("ALTER TABLE task_instance ALTER id TYPE uuid USING id::uuid"))
        self.clock = datetime.now(UTC)
        self.spool = SqlLineageSpool(self.site.store.engine)
        self.backend = backend
        config = patient({"type": "http", "url": backend.url, "timeout": 60.0, **settings})
        self.lineage = Lineage(
            self.spool,
            TransportBackend(get_default_factory().create(config)),
            self.site.service,
            LineageSite(namespace="default", base_url=self.site.base_url),
        )

    def now(self) -> datetime:
        return self.clock

    def wait(self, seconds: float) -> None:
        self.clock += timedelta(seconds=seconds)

    def open(self, **given: Any) -> ApprovalRequest:
        ti_id = self.site.add_task(**given)
        opened = self.site.service.open_for_task(ti_id, an_opening(), request_id=str(uuid4()), now=self.clock)
        return opened.request

    def vote(self, request: ApprovalRequest, verdict: Verdict = Verdict.APPROVE) -> ApprovalRequest:
        return self.site.service.cast_vote(
            ALICE, request.id, verdict, reason="so", revision=1, channel=Channel.API, now=self.clock
        )

    def send(self) -> int:
        """Plan and send what is due, as the loop does; return how many went out."""
        while self.lineage.plan(now=self.clock):
            pass
        return self.lineage.send_due(lease=str(uuid4()), now=self.now)


@pytest.fixture
def told(tmp_path: Path, database_url: str, backend: StandIn) -> Iterator[Told]:  # noqa: F811
    found = Told(tmp_path, database_url, backend)
    yield found
    found.site.store.close()


def a_task_event(
    kind: str = "START", run_id: str | None = None, job: str = "export.publish"
) -> dict[str, Any]:
    return {
        "eventType": kind,
        "eventTime": "2026-03-01T12:00:00.000000Z",
        "producer": "https://example.test",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": run_id or str(uuid4())},
        "job": {"namespace": "default", "name": job},
    }


def test_an_approval_is_a_run_of_its_own(told: Told, spec: Spec) -> None:
    request = told.open()
    assert told.send() == 1
    told.vote(request)
    assert told.send() == 1
    assert told.backend.keys() == [(request.id, "START"), (request.id, "COMPLETE")]
    start, complete = told.backend.events
    assert start["outputs"] == []
    assert [each["name"] for each in complete["outputs"]] == [f"receipt/{request.id}"]
    assert complete["inputs"] == start["inputs"]
    facet = complete["run"]["facets"]["airflowApprovals_approval"]
    assert facet["votes"][0]["voter"] == "alice"
    approved = told.site.store.get_request(request.id)
    assert facet["ledgerIndex"] == approved.decision_index
    assert complete["job"]["name"] == "approval.export.publish"


def _deny(told: Told, request: ApprovalRequest) -> None:
    told.vote(request, Verdict.DENY)


def _expire(told: Told, request: ApprovalRequest) -> None:
    told.wait(5 * 3600)
    told.site.service.expire_due(now=told.clock)


def _cancel(told: Told, request: ApprovalRequest) -> None:
    told.site.service.cancel(person_named("engineer"), request.id, reason="", now=told.clock)


def _revoke(told: Told, request: ApprovalRequest) -> None:
    told.vote(request)
    told.site.service.revoke(ALICE, request.id, reason="", now=told.clock)


def _lapse(told: Told, request: ApprovalRequest) -> None:
    told.vote(request)
    told.wait(3600)
    told.site.service.expire_due(now=told.clock)


ENDS: dict[str, tuple[Callable[[Told, ApprovalRequest], None], list[str]]] = {
    "denied": (_deny, ["START", "FAIL"]),
    "expired": (_expire, ["START", "ABORT"]),
    "cancelled": (_cancel, ["START", "ABORT"]),
    "revoked": (_revoke, ["START", "COMPLETE", "ABORT"]),
    "lapsed": (_lapse, ["START", "COMPLETE", "ABORT"]),
}


@pytest.mark.parametrize(("state", "end", "kinds"), [(state, *way) for state, way in ENDS.items()], ids=ENDS)
def test_every_end_is_told_as_what_it_is(
    state: str, end: Callable[[Told, ApprovalRequest], None], kinds: list[str], told: Told
) -> None:
    request = told.open()
    end(told, request)
    told.send()
    assert told.backend.keys() == [(request.id, kind) for kind in kinds]
    last = told.backend.events[-1]
    assert last["run"]["facets"]["airflowApprovals_approval"]["state"] == state
    assert last["outputs"] == []
    assert last["inputs"]


def test_reasons_are_told_where_the_policy_says_so(told: Told) -> None:
    told.site.policy_file.write_text(
        POLICY.replace("expires_after: 4h", "expires_after: 4h\n    reasons_in_lineage: true")
    )
    request = told.open()
    told.vote(request)
    told.send()
    facet = told.backend.events[-1]["run"]["facets"]["airflowApprovals_approval"]
    assert facet["votes"][0]["reason"] == "so"


def test_a_backend_that_is_down_the_whole_time_gets_every_event_once_afterwards(told: Told) -> None:
    told.backend.trouble = "503"
    wanted = []
    for number in range(5):
        request = told.open(task_id=f"publish_{number}")
        run_id = str(uuid4())
        told.lineage.take_in(json.dumps(a_task_event("START", run_id)).encode(), now=told.clock)
        told.vote(request)
        told.lineage.take_in(json.dumps(a_task_event("COMPLETE", run_id)).encode(), now=told.clock)
        wanted += [(request.id, "START"), (run_id, "START"), (request.id, "COMPLETE"), (run_id, "COMPLETE")]
        assert told.send() == 0
        told.wait(60)
    told.backend.trouble = ""
    while told.send():
        pass
    assert told.backend.keys() == wanted
    assert told.spool.counts() == {"sent": len(wanted)}


def test_a_resumed_task_tells_its_start_again_and_it_is_told_once(told: Told) -> None:
    run_id = str(uuid4())
    start = json.dumps(a_task_event("START", run_id)).encode()
    assert told.lineage.take_in(start, now=told.clock)
    told.send()
    told.wait(30 * 24 * 3600)
    assert not told.lineage.take_in(start, now=told.clock)
    told.lineage.take_in(json.dumps(a_task_event("COMPLETE", run_id)).encode(), now=told.clock)
    told.send()
    assert told.backend.keys() == [(run_id, "START"), (run_id, "COMPLETE")]


def test_running_events_are_told_as_often_as_they_differ(told: Told) -> None:
    run_id = str(uuid4())
    one, other = a_task_event("RUNNING", run_id), a_task_event("RUNNING", run_id)
    other["eventTime"] = "2026-03-01T12:00:01.000000Z"
    taken = [told.lineage.take_in(json.dumps(each).encode(), now=told.clock) for each in (one, other, one)]
    assert taken == [True, True, False]


def test_what_was_decided_before_a_task_tells_of_it_comes_before_it(told: Told) -> None:
    request = told.open()
    told.vote(request)
    run_id = str(uuid4())
    told.lineage.take_in(json.dumps(a_task_event("COMPLETE", run_id)).encode(), now=told.clock)
    told.send()
    assert told.backend.keys() == [(request.id, "START"), (request.id, "COMPLETE"), (run_id, "COMPLETE")]


AWAY = ("503", "502", "504", "429", "408", "401", "403", "404", "garbage", "nothing")


@pytest.mark.parametrize("trouble", AWAY)
def test_a_backend_that_is_away_stops_the_queue_and_loses_nothing(trouble: str, told: Told) -> None:
    request = told.open()
    told.vote(request)
    told.backend.trouble = trouble
    assert told.send() == 0
    assert told.backend.calls == 1, "the second event must not overtake the first"
    assert told.send() == 0, "it rests before it is tried again"
    assert told.backend.calls == 1
    told.backend.trouble = ""
    told.wait(60)
    assert told.send() == 2
    assert told.backend.keys() == [(request.id, "START"), (request.id, "COMPLETE")]


@pytest.mark.parametrize("trouble", ["400", "422", "413"])
def test_an_event_that_is_refused_makes_way_and_is_kept(trouble: str, told: Told) -> None:
    first = told.open()
    told.backend.trouble = trouble
    assert told.send() == 1
    told.backend.trouble = ""
    told.vote(first)
    assert told.send() == 1
    assert told.backend.keys() == [(first.id, "COMPLETE")]
    assert told.spool.counts() == {"refused": 1, "sent": 1}
    ((run_id, key, problem),) = told.spool.problems()
    assert (run_id, key) == (first.id, "START")
    assert trouble in problem


def test_an_event_that_the_backend_chokes_on_is_set_aside_and_tried_again_later(told: Told) -> None:
    request = told.open()
    told.backend.trouble = "500"
    for _ in range(MAX_CHOKES):
        told.send()
        told.wait(60)
    assert told.spool.counts() == {"aside": 1}
    told.backend.trouble = ""
    told.vote(request)
    assert told.send() == 1, "others go on"
    told.wait(ASIDE_FOR.total_seconds())
    assert told.send() == 1
    assert sorted(told.backend.keys()) == sorted([(request.id, "START"), (request.id, "COMPLETE")])


def test_a_gate_calls_no_backend(told: Told) -> None:
    told.vote(told.open())
    assert told.backend.calls == 0


def test_a_backend_at_a_dead_port_leaves_the_events_in_the_queue(told: Told) -> None:
    nowhere = get_default_factory().create(patient({"type": "http", "url": "http://127.0.0.1:9"}))
    site = LineageSite(namespace="default", base_url="")
    dead = Lineage(told.spool, TransportBackend(nowhere), told.site.service, site)
    told.vote(told.open())
    while dead.plan(now=told.clock):
        pass
    assert dead.send_due(lease="x", now=told.now) == 0
    assert told.spool.counts() == {"queued": 2}


def test_a_backend_that_does_not_answer_is_not_waited_for_longer_than_was_said(told: Told) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        slow = TransportBackend(
            get_default_factory().create(patient({"type": "http", "url": url, "timeout": 0.3}))
        )
        with pytest.raises(BackendAwayError, match="does not answer"):
            slow.send(a_task_event())


def test_two_processes_send_each_event_once_and_in_order(told: Told) -> None:
    requests = [told.open(task_id=f"publish_{number}") for number in range(10)]
    for request in requests:
        told.vote(request)
    threads = [threading.Thread(target=told.send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while told.send():
        pass
    opened = [(request.id, "START") for request in requests]
    assert told.backend.keys() == opened + [(request.id, "COMPLETE") for request in requests]


def test_a_process_that_dies_while_sending_is_followed_by_another(told: Told) -> None:
    told.open()
    while told.lineage.plan(now=told.clock):
        pass
    assert told.spool.take_turn(lease="dead", now=told.clock)
    assert told.send() == 0
    told.wait(61)
    assert told.send() == 1


def test_what_happens_while_openlineage_is_off_is_not_told_later(told: Told) -> None:
    told.open(task_id="before")
    told.spool.skip_to_end()
    after = told.open(task_id="after")
    told.send()
    assert told.backend.keys() == [(after.id, "START")]


def test_what_was_sent_is_forgotten_after_its_time(told: Told) -> None:
    told.open()
    told.send()
    told.spool.forget_sent(before=told.clock)
    assert told.spool.counts() == {"sent": 1}
    told.spool.forget_sent(before=told.clock + timedelta(seconds=1))
    assert told.spool.counts() == {}


NOT_EVENTS = {
    "no JSON": b"{",
    "no UTF-8": b'{"a": "\xff"}',
    "a list": b"[]",
    "no run": json.dumps({**a_task_event(), "run": {}}).encode(),
    "no type": json.dumps({**a_task_event(), "eventType": None}).encode(),
    "a long run id": json.dumps(a_task_event(run_id="x" * 37)).encode(),
    "NUL": json.dumps(a_task_event(job="a\x00b")).encode(),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", NOT_EVENTS.values(), ids=NOT_EVENTS.keys())
def test_what_is_no_run_event_is_refused(body: bytes, told: Told) -> None:
    with pytest.raises(InvalidRequestError, match="a lineage event: expected"):
        told.lineage.take_in(body, now=told.clock)


def test_nobody_but_the_service_tells_of_an_approval(told: Told) -> None:
    forged = a_task_event("COMPLETE", job="approval.export.publish")
    with pytest.raises(NotAllowedError, match="only the service"):
        told.lineage.take_in(json.dumps(forged).encode(), now=told.clock)


def test_doctor_says_what_the_backend_did_not_take(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    url = told.site.store.engine.url.render_as_string(hide_password=False)
    monkeypatch.setattr(wiring, "_metadata_database", lambda: (url, {}))
    assert check_lineage() == "off: no [openlineage] transport"
    told.open()
    told.backend.trouble = "422"
    told.send()
    with pytest.raises(ConfigurationError, match=r"1 refused, 0 to be tried again.*START.*422"):
        check_lineage()
