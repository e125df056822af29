"""The long-poll: held while nothing happens, answered at once when something does, and silent on contents."""

from __future__ import annotations

import threading
import time
from typing import NoReturn

import httpx
import pytest

from airflow_approvals.client.api import ApprovalsClient, EventPage
from airflow_approvals.core.errors import InvalidRequestError, NotAllowedError, ServiceUnavailableError
from airflow_approvals.web.events import POLL_SECONDS
from tests.web.site import LOADED, Site, an_opening

HELD = 50.0
"""Seconds that calls are held which are to be answered sooner."""


def opened(site: Site, name: str) -> str:
    with site.person("engineer") as engineer:
        return engineer.open_request(an_opening(name), idempotency_key=name)[0].id


def test_an_event_tells_which_request_moved_where_and_nothing_else(shared: Site) -> None:
    request_id = opened(shared, "telling")
    with shared.person("alice") as alice, shared.reader() as reader:
        alice.vote(request_id, "deny", revision=1, reason="not this month")
        told = [entry for entry in reader.events().entries if entry["request_id"] == request_id]
        assert [(entry["kind"], entry["state"]) for entry in told] == [
            ("request.opened", "pending"),
            ("vote.cast", None),
            ("request.denied", "denied"),
        ]
        assert all(set(entry) == {"index", "kind", "request_id", "state"} for entry in told)
        assert alice.events().entries == reader.events().entries


def test_people_are_told_of_what_they_may_see_only(site: Site) -> None:
    request_id = opened(site, "hidden")
    with site.person("mallory") as mallory, site.person("engineer") as engineer:
        end = engineer.events().next
        assert [entry["request_id"] for entry in engineer.events().entries if entry["request_id"]] == [
            request_id
        ]
        page = mallory.events()
        assert [entry for entry in page.entries if entry["request_id"]] == []
        assert page.next == end
        page = held_while_something_hidden_happens(site, mallory, after=end)
        assert page.entries == ()
        with site.worker(site.add_task(dag_id="open", run_id="seen")) as worker:
            seen = worker.open_request(an_opening("seen"))[0].id
        site.users.readers_of["open"] = {"mallory"}
        assert [entry["request_id"] for entry in mallory.events(after=page.next).entries] == [seen]


def held_while_something_hidden_happens(site: Site, mallory: ApprovalsClient, *, after: int) -> EventPage:
    """Return what a call is told whose end came after what is not theirs; longer calls until one's did."""
    for number, seconds in enumerate((1.5, 6.0, 24.0, HELD)):
        called = time.monotonic()
        waiting = threading.Timer(0.3, opened, (site, f"hidden too {number}"))
        waiting.start()
        page = mallory.events(after=after, wait=seconds)
        waiting.join()
        assert time.monotonic() - called > seconds - 0.1  # what is not theirs does not even wake them
        if page.next > after:
            return page
    raise AssertionError("nothing was opened in all that time")


def test_the_list_says_how_far_each_request_is(site: Site) -> None:
    with site.person("engineer") as engineer, site.person("alice") as alice:
        opening = an_opening("listed", folder="secret/")
        request = engineer.open_request(opening, idempotency_key="listed")[0]
        alice.vote(request.id, "approve", revision=1)
    answer = httpx.get(
        f"{site.base_url}/approvals/api/v1/requests",
        headers={"Authorization": "Bearer login-carol"},
        timeout=LOADED,
    )
    (listed,) = answer.json()["requests"]
    assert listed["progress"]["missing"] == "1 of 2: data-stewards done, security missing"
    assert "receipt" not in listed


def test_a_call_is_held_until_something_happens(shared: Site) -> None:
    with shared.reader() as reader:
        last = reader.events().next
        held = time.monotonic()
        assert reader.events(after=last, wait=0.4).entries == ()
        assert 0.35 < time.monotonic() - held < HELD - 5
        woken: list[float] = []

        def listen() -> None:
            with shared.reader() as other:
                assert other.events(after=last, wait=HELD).entries
                woken.append(time.monotonic())

        listener = threading.Thread(target=listen)
        listener.start()
        time.sleep(0.5)
        assert not woken
        opened(shared, "waking")
        answered = time.monotonic()
        listener.join(HELD)
        assert woken[0] - answered < HELD - 5


def test_many_held_calls_leave_the_service_free_to_answer(shared: Site) -> None:
    with shared.reader() as reader:
        last = reader.events().next

        def hold() -> None:
            with shared.reader() as other:
                other.events(after=last, wait=HELD)

        held = [threading.Thread(target=hold) for _ in range(40)]
        for thread in held:
            thread.start()
        time.sleep(1.5)
        asked = time.monotonic()
        reader.health()
        assert time.monotonic() - asked < HELD - 5  # the others are held for longer
        opened(shared, "freeing")
        for thread in held:
            thread.join(HELD - 5)
        assert not any(thread.is_alive() for thread in held)


def test_who_knows_more_than_the_ledger_is_told_its_end_at_once(shared: Site) -> None:
    with shared.reader() as reader:
        end = reader.events().next
        asked = time.monotonic()
        page = reader.events(after=end + 1000, wait=HELD)
        assert (page.entries, page.next) == ((), end)
        assert time.monotonic() - asked < HELD - 5


def test_workers_may_not_look_into_the_ledger_nor_anybody_hold_for_ever(shared: Site) -> None:
    with shared.reader() as reader:
        with pytest.raises(NotAllowedError):
            reader.checkpoint()
        with pytest.raises(NotAllowedError):
            b"".join(reader.export())
        with pytest.raises(InvalidRequestError):
            reader.events(wait=3600)


def test_proofs_hold_against_the_signed_heads(shared: Site) -> None:
    from airflow_approvals.core.merkle import leaf_hash, verify_consistency, verify_inclusion

    with shared.person("audrey") as audrey:
        old = audrey.checkpoint()["size"]
        opened(shared, "growing")
        new = audrey.checkpoint()["size"]
        assert new > old
        entry = shared.store.entries_after(old - 1, limit=1)[0]
        included = [bytes.fromhex(step) for step in audrey.inclusion_proof(old, new)["hashes"]]
        root = shared.store.ledger_root(new)
        verify_inclusion(index=old, size=new, leaf=leaf_hash(entry.body), proof=included, root=root)
        consistent = [bytes.fromhex(step) for step in audrey.consistency_proof(old, new)["hashes"]]
        verify_consistency(
            old_size=old,
            new_size=new,
            old_root=shared.store.ledger_root(old),
            new_root=root,
            proof=consistent,
        )
        with pytest.raises(InvalidRequestError):
            audrey.consistency_proof(new, new + 1000)


def test_a_call_that_failed_leaves_nobody_looking_for_what_is_new(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def away(*_: object, **__: object) -> NoReturn:
        raise ServiceUnavailableError("the metadata database did not answer in time; try again")

    def size() -> int:
        looks.append(time.monotonic())
        return 0

    monkeypatch.setattr(site.store, "entries_after", away)
    monkeypatch.setattr(site.store, "ledger_size", size)
    answer = httpx.get(
        f"{site.base_url}/approvals/api/v1/events",
        params={"after": -1, "wait": 5},
        headers={"Authorization": "Bearer login-alice"},
        timeout=LOADED,
    )
    assert answer.status_code == 503
    time.sleep(3 * POLL_SECONDS)
    looks.clear()
    time.sleep(5 * POLL_SECONDS)
    assert looks == []
