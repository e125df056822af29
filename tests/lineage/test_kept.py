"""What a worker tells while the service is away: it stays on that machine, and arrives, in order and once."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_approvals import wiring
from airflow_approvals.core.errors import InvalidRequestError, ServiceUnavailableError
from airflow_approvals.lineage import backend as backend_module
from airflow_approvals.lineage import kept as kept_module
from airflow_approvals.lineage.kept import FOLDER, KeptEvents
from airflow_approvals.lineage.transport import PATIENCE
from airflow_approvals.wiring import check_lineage
from tests.lineage.test_spool import a_task_event
from tests.lineage.test_transport import LOADED, a_site, a_transport, an_event, until
from tests.marquez.local import LocalHandler, LocalServer
from tests.marquez.server import StandIn
from tests.web.site import Site

pytestmark = pytest.mark.airflow


@pytest.fixture
def dead() -> Iterator[str]:
    """An address where nobody listens, and nobody else can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def kept_keys(kept: KeptEvents) -> list[tuple[str, str]]:
    """Return (run id, event type) of what is kept, in order, and leave it there."""
    events = [json.loads(path.read_bytes()) for path in sorted(kept.folder.glob("*.json"))]
    return [(event["run"]["runId"], event["eventType"]) for event in events]


def test_an_event_that_cannot_be_handed_over_is_kept_and_the_task_goes_on(
    dead: str, kept: KeptEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = str(uuid4())
    a_transport(monkeypatch, dead).emit(an_event(run={"runId": run_id}))
    assert kept_keys(kept) == [(run_id, "START")]


def test_the_next_event_of_that_machine_takes_along_what_was_kept(
    dead: str, kept: KeptEvents, tmp_path: Path, backend: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, run_id = str(uuid4()), str(uuid4())
    away = a_transport(monkeypatch, dead)
    away.emit(an_event(run={"runId": other}))
    away.emit(an_event(run={"runId": run_id}))
    with a_site(tmp_path, backend) as site:
        complete = an_event(eventType="COMPLETE", run={"runId": run_id})
        a_transport(monkeypatch, site.base_url, patience=LOADED).emit(complete)
        assert kept_keys(kept) == []
        # What the run told before comes before; the others do not hold it up.
        until(lambda: len(backend.keys()) == 3)
    assert backend.keys() == [(run_id, "START"), (run_id, "COMPLETE"), (other, "START")]


def test_a_service_on_the_same_machine_takes_in_what_was_kept_by_itself(
    dead: str, kept: KeptEvents, tmp_path: Path, backend: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = str(uuid4())
    away = a_transport(monkeypatch, dead)
    away.emit(an_event(run={"runId": run_id}))
    away.emit(an_event(eventType="COMPLETE", run={"runId": run_id}))
    with a_site(tmp_path, backend, kept=kept):
        until(lambda: len(backend.keys()) == 2)
    assert backend.keys() == [(run_id, "START"), (run_id, "COMPLETE")]
    assert kept_keys(kept) == []


def test_what_is_kept_shares_the_two_seconds_with_the_event_itself(
    kept: KeptEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(50):
        kept.keep(str(uuid4()), json.dumps(a_task_event()).encode(), now=_now())
    with _Service(seconds=0.2) as slow:
        transport = a_transport(monkeypatch, slow.url)
        began = time.monotonic()
        transport.emit(an_event())
        assert time.monotonic() - began < PATIENCE + LOADED
    assert kept.count() >= 40, "fifty of them would take ten seconds"


def test_two_processes_that_hand_over_the_same_do_no_harm(
    kept: KeptEvents, tmp_path: Path, backend: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ids = [str(uuid4()) for _ in range(5)]
    for run_id in run_ids:
        for kind in ("START", "COMPLETE"):
            kept.keep(run_id, json.dumps(a_task_event(kind, run_id)).encode(), now=_now())
    with a_site(tmp_path, backend, kept=kept) as site:
        transport = a_transport(monkeypatch, site.base_url, patience=LOADED)
        threads = [threading.Thread(target=transport.emit, args=(an_event(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: len(backend.keys()) >= 13 and not kept_keys(kept))
    told = backend.keys()
    for run_id in run_ids:
        assert [kind for told_of, kind in told if told_of == run_id] == ["START", "COMPLETE"]


def test_what_was_told_and_is_still_there_is_told_once(
    kept: KeptEvents, tmp_path: Path, backend: StandIn
) -> None:
    run_id = str(uuid4())
    with a_site(tmp_path, backend, kept=kept):
        for _ in range(2):  # a process died between the two
            kept.keep(run_id, json.dumps(a_task_event("START", run_id)).encode(), now=_now())
            until(lambda: not kept_keys(kept))
        until(lambda: backend.keys())
    assert backend.keys() == [(run_id, "START")]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_service_refuses_is_not_kept(
    status: int, kept: KeptEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = pytest.raises(InvalidRequestError, match=f"answers {status}")
    with _Service(status=status) as service, refused:
        a_transport(monkeypatch, service.url, patience=LOADED).emit(an_event())
    assert service.taken == 1
    assert kept_keys(kept) == []


@pytest.mark.parametrize("status", [302, 401, 404, 503])
def test_what_a_service_that_is_not_set_up_answers_costs_no_event(
    status: int, kept: KeptEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _Service(status=status) as service:
        a_transport(monkeypatch, service.url).emit(an_event())
    assert len(kept_keys(kept)) == 1


def test_doctor_says_what_is_kept(kept: KeptEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    monkeypatch.setattr(wiring, "_metadata_database", lambda: (f"sqlite:///{tmp_path / 'airflow.db'}", {}))
    monkeypatch.setattr(backend_module, "find_transport", object)
    kept.keep(str(uuid4()), b"{}", now=_now())
    assert check_lineage() == "on, 0 events on their way, 1 kept here until the service takes them"
    site.store.close()


JUNK = {
    "no JSON": b"{",
    "no event": b"{}",
    "too large": b"[" + b" " * kept_module.MAX_BODY + b"]",
    "an approval's": json.dumps(a_task_event(job="approval.export.publish")).encode(),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
def test_what_is_no_event_of_a_task_makes_way(
    junk: bytes, kept: KeptEvents, tmp_path: Path, backend: StandIn
) -> None:
    run_id = str(uuid4())
    kept.keep(str(uuid4()), junk, now=_now())
    kept.keep(run_id, json.dumps(a_task_event("START", run_id)).encode(), now=_now())
    with a_site(tmp_path, backend, kept=kept):
        until(lambda: backend.keys() == [(run_id, "START")])
        until(lambda: not list(kept.folder.iterdir()))


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    kept = KeptEvents(tmp_path / "kept")
    kept.folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    (kept.folder / "1.a.json").symlink_to(secret)
    os.mkfifo(kept.folder / "2.b.json")
    (kept.folder / "3.c.json").mkdir()
    taken: list[bytes] = []
    kept.hand_over(taken.append)
    assert taken == []
    assert len(list(kept.folder.iterdir())) == 3


def test_nobody_else_reads_what_is_kept(tmp_path: Path) -> None:
    kept = KeptEvents(tmp_path / "approvals" / "lineage")
    kept.keep(str(uuid4()), b"{}", now=_now())
    (path,) = kept.folder.iterdir()
    assert kept.folder.stat().st_mode & 0o077 == 0
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_kept_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "MOST_BYTES", 100)
    kept = KeptEvents(tmp_path / "kept")
    kept.keep(str(uuid4()), b"x" * 60, now=_now())
    with pytest.raises(ServiceUnavailableError, match=r"60 of 100 bytes.*this event is lost"):
        kept.keep(str(uuid4()), b"x" * 60, now=_now())
    kept.hand_over(lambda _: None)
    kept.keep(str(uuid4()), b"x" * 60, now=_now())


def test_what_others_take_away_meanwhile_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptEvents(tmp_path)
    kept.keep(str(uuid4()), b"{}", now=datetime.now(UTC))
    look = os.scandir

    def taken_away(folder: Path) -> list[os.DirEntry[str]]:
        entries = list(look(folder))
        for entry in entries:
            Path(entry.path).unlink()
        return entries

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", taken_away)
        kept.keep(str(uuid4()), b"{}", now=datetime.now(UTC))
    assert kept.count() == 1


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ServiceUnavailableError, match="No space left"):
        KeptEvents(tmp_path).keep(str(uuid4()), b"{}", now=datetime.now(UTC))
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_kept_the_event_is_lost_and_that_is_said(
    dead: str, airflow_home: Path, kept: KeptEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "FOLDER", FOLDER)  # put back at the end
    in_the_way = airflow_home / "in_the_way"
    in_the_way.write_text("")
    monkeypatch.setattr("airflow_approvals.lineage.transport.FOLDER", Path("in_the_way"))
    with pytest.raises(ServiceUnavailableError, match="this event is lost"):
        a_transport(monkeypatch, dead).emit(an_event())


def test_what_is_handed_over_ends_at_the_first_that_nobody_takes(tmp_path: Path) -> None:
    kept = KeptEvents(tmp_path / "kept")
    for number in range(3):
        kept.keep(str(uuid4()), str(number).encode(), now=_now())
    taken: list[bytes] = []

    def tell(body: bytes) -> None:
        if taken:
            raise ServiceUnavailableError("away")
        taken.append(body)

    with pytest.raises(ServiceUnavailableError):
        kept.hand_over(tell)
    assert taken == [b"0"]
    kept.hand_over(taken.append)
    assert taken == [b"0", b"1", b"2"]


class _Service(LocalServer):
    """A service that answers every event with `status`, after `seconds`."""

    def __init__(self, *, status: int = 202, seconds: float = 0.0) -> None:
        super().__init__(_Answering)
        self.status, self.seconds = status, seconds
        self.taken = 0


class _Answering(LocalHandler, BaseHTTPRequestHandler):
    site: _Service

    def do_POST(self) -> None:
        self.body()
        time.sleep(self.site.seconds)
        self.site.taken += 1
        self.say(self.site.status)


def _now() -> datetime:
    return datetime.now(UTC)
