"""What time drives, in one process and in several at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_approvals.core.checkpoint import verify_checkpoint
from airflow_approvals.core.model import Person, State
from airflow_approvals.core.signature import public_keys_from_json
from airflow_approvals.ports import Page, RequestFilter
from airflow_approvals.web import background
from airflow_approvals.web.backend import Backend
from airflow_approvals.web.background import Background
from tests.web.site import LOADED, POLICY, Site, an_opening, mounted, serving, utc_now


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Site]:
    """A site whose server does not run."""
    found = Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    yield found
    found.store.close()


def opened(site: Site, name: str) -> str:
    opening = an_opening(name)
    request_id = f"00000000-0000-4000-8000-{abs(hash(name)) % 10**12:012d}"
    site.service.open_for_person(Person("engineer"), opening, key=name, request_id=request_id, now=utc_now())
    return request_id


def run_once(site: Site, loop: Background | None = None) -> None:
    asyncio.run((loop or Background(Backend(lambda: site.service, site.settings))).run_once())


def test_keys_and_policies_are_recorded_once_and_the_head_is_signed(still: Site) -> None:
    run_once(still)
    run_once(still)
    kinds = [entry["kind"] for entry in still.ledger()]
    assert sorted(kinds) == ["key.added", "policy.loaded"]
    size, note = still.store.last_checkpoint() or (0, "")
    keys = public_keys_from_json([still.service.signer.public_key_json()])
    assert verify_checkpoint(note, keys, origin="test.example/approvals").size == size == 2


def test_several_processes_at_once_do_nothing_twice(still: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [opened(still, f"late-{number}") for number in range(5)]
    later = utc_now() + timedelta(hours=5)
    monkeypatch.setattr(background, "now", lambda: later)
    loops = [threading.Thread(target=run_once, args=(still,)) for _ in range(4)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    kinds = [entry["kind"] for entry in still.ledger()]
    assert kinds.count("request.expired") == len(ids)
    assert (kinds.count("key.added"), kinds.count("policy.loaded")) == (1, 1)


def test_what_takes_long_is_dated_when_it_happens(still: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        opened(still, f"slow-{number}")
    begin = utc_now() + timedelta(hours=5)
    minutes = count()
    monkeypatch.setattr(background, "_BATCH", 2)
    monkeypatch.setattr(background, "now", lambda: begin + timedelta(minutes=next(minutes)))
    run_once(still)
    times = [entry["time"] for entry in still.ledger() if entry["kind"] == "request.expired"]
    assert times == sorted(times)
    assert sorted(Counter(times).values()) == [1, 2, 2]


REMINDING = POLICY.replace(
    "    expires_after: 4h\n",
    "    expires_after: 4h\n    remind_every: 1h\n    escalate: {after: 2h, to: security}\n",
)


def at(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    moment = utc_now() + timedelta(hours=hours)
    monkeypatch.setattr(background, "now", lambda: moment)


def all_at_once(site: Site, number: int = 4) -> None:
    loops = [threading.Thread(target=run_once, args=(site,)) for _ in range(number)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()


def test_several_processes_remind_and_escalate_once(still: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    still.policy_file.write_text(REMINDING, encoding="utf-8")
    ids = [opened(still, f"waiting-{number}") for number in range(5)]
    for hours in (0.9, 1.01, 1.02, 2.01, 2.02, 3.01):
        at(monkeypatch, hours)
        all_at_once(still)
    told = [entry for entry in still.ledger() if entry["kind"] in ("request.reminded", "request.escalated")]
    for request_id in ids:
        kinds = [entry["kind"].partition(".")[2] for entry in told if entry["request_id"] == request_id]
        assert kinds == ["reminded", "escalated", "reminded"]
    escalated = next(entry for entry in told if entry["kind"] == "request.escalated")
    assert escalated["actor"] == "service"
    assert escalated["data"]["to"] == "security"
    assert 7200 <= escalated["data"]["waited_seconds"] < 3 * 3600


def test_what_was_answered_is_not_told_again(still: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    still.policy_file.write_text(REMINDING, encoding="utf-8")
    request_id = opened(still, "answered")
    still.service.cancel(Person("engineer"), request_id, reason="", now=utc_now())
    at(monkeypatch, 3)
    run_once(still)
    assert not [entry for entry in still.ledger() if entry["kind"] == "request.reminded"]


def test_a_changed_interval_holds_for_what_is_open(still: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    request_id = opened(still, "before")
    assert still.store.get_request(request_id).next_notice_at is None
    still.policy_file.write_text(REMINDING, encoding="utf-8")
    at(monkeypatch, 1.01)
    run_once(still)
    assert [e["kind"] for e in still.ledger() if e["request_id"] == request_id][-1] == "request.reminded"


def test_a_policy_that_changes_between_two_looks_postpones_the_reminder(still: Site) -> None:
    still.policy_file.write_text(REMINDING, encoding="utf-8")
    request_id = opened(still, "postponed")
    still.policy_file.write_text(REMINDING.replace("1h", "30m"), encoding="utf-8")
    late = utc_now() + timedelta(hours=1, minutes=1)
    assert still.service.remind_due(now=late) == 0
    assert still.store.get_request(request_id).next_notice_at == late + timedelta(minutes=1)


def test_a_changed_policy_file_reaches_every_pending_request(still: Site) -> None:
    ids = [opened(still, f"pending-{number}") for number in range(3)]
    loop = Background(Backend(lambda: still.service, still.settings))
    run_once(still, loop)
    still.policy_file.write_text(POLICY.replace("file:///outbox/**", "file:///elsewhere/**"))
    run_once(still, loop)
    assert {still.store.get_request(request_id).state for request_id in ids} == {State.DENIED}


def test_a_changed_policy_file_reaches_those_too_that_wait_behind_others_which_close(
    still: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = still.store.get_request(opened(still, "first"))
    with still.store.begin() as tx:
        for _ in range(500):
            tx.insert_request(replace(first, id=str(uuid4())))
    newest = opened(still, "newest")
    listed = still.store.list_requests

    def others_close_meanwhile(wanted: RequestFilter) -> Page:
        page = listed(wanted)
        if still.store.get_request(newest).state is State.PENDING:
            still.service.cancel(Person("engineer"), newest, reason="", now=utc_now())
        return page

    loop = Background(Backend(lambda: still.service, still.settings))
    still.policy_file.write_text(POLICY.replace("file:///outbox/**", "file:///elsewhere/**"))
    monkeypatch.setattr(still.store, "list_requests", others_close_meanwhile)
    run_once(still, loop)
    assert still.store.pending_ids() == []


def test_a_step_that_fails_does_not_keep_the_others_from_running(
    still: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> int:
        raise RuntimeError

    monkeypatch.setattr(still.service, "expire_due", broken)
    run_once(still)
    assert still.store.last_checkpoint() is not None


def test_the_loop_lives_in_the_lifespan_of_the_mounted_app(tmp_path: Path) -> None:
    site = Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}", due_interval=0.05)
    with serving(mounted(site.app), site.port):
        deadline = time.monotonic() + LOADED
        while site.store.last_checkpoint() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    site.store.close()
