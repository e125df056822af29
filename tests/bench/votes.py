"""Votes on a real API server with PostgreSQL: many people at once on different requests, and all on one."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier, local

import uvicorn

from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.core.errors import AlreadyDecidedError
from airflow_approvals.core.model import Person, State
from tests.databases import empty_database
from tests.web.site import POLICY, Site, an_opening, mounted, utc_now

CLIENTS = 16
VOTES = 640
SIMULTANEOUS = 100


def figures(*, votes: int = VOTES) -> dict[str, float]:
    """Return votes a second and p99 of 16 clients, and how many decisions 100 votes at once make."""
    server = os.environ["APPROVALS_TEST_POSTGRES"]
    with (
        empty_database(server, "votes") as url,
        tempfile.TemporaryDirectory(prefix="airflow-approvals-bench-") as folder,
    ):
        site = Site(Path(folder), url, due_interval=5.0)
        people = ", ".join(f"voter{number}" for number in range(SIMULTANEOUS))
        site.policy_file.write_text(POLICY.replace("[alice, bob, engineer]", f"[alice, {people}]"))
        # A process of its own: the clients' work must not be taken for the server's.
        serving = get_context("spawn").Process(target=_serve, args=(Path(folder), url, site.port))
        serving.start()
        try:
            with site.person("alice") as alice:
                alice.health()  # waits until it is there
            return {**_different_requests(site, votes), **_one_request(site)}
        finally:
            serving.terminate()
            serving.join()
            site.store.close()


def _serve(folder: Path, url: str, port: int) -> None:
    site = Site(folder, url, due_interval=5.0, port=port)
    uvicorn.run(mounted(site.app), host="127.0.0.1", port=port, log_level="error", ws="none")


def _different_requests(site: Site, votes: int) -> dict[str, float]:
    requests = _opened(site, votes + CLIENTS)
    mine = local()

    def vote(request_id: str) -> float:
        if not hasattr(mine, "client"):
            mine.client = site.person("alice")
        client: ApprovalsClient = mine.client
        started = time.perf_counter()
        voted = client.vote(request_id, "approve", revision=1)
        taken = time.perf_counter() - started
        if voted.state is not State.APPROVED:
            raise RuntimeError(f"expected an approved request, found {voted.state}")
        return taken

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(vote, requests[:CLIENTS]))  # connections are made, code is warm
        started = time.perf_counter()
        taken = sorted(pool.map(vote, requests[CLIENTS:]))
        seconds = time.perf_counter() - started
    return {"votes_per_s": votes / seconds, "p99_ms": taken[int(len(taken) * 0.99)] * 1000}


def _one_request(site: Site) -> dict[str, float]:
    (request_id,) = _opened(site, 1)
    together = Barrier(SIMULTANEOUS)

    def vote(number: int) -> bool:
        with site.person(f"voter{number}") as voter:
            voter.health()  # the connection is made
            together.wait()
            try:
                return voter.vote(request_id, "approve", revision=1).state is State.APPROVED
            except AlreadyDecidedError:
                return False

    with ThreadPoolExecutor(SIMULTANEOUS) as pool:
        accepted = sum(pool.map(vote, range(SIMULTANEOUS)))
    kinds = [entry["kind"] for entry in site.ledger() if entry["request_id"] == request_id]
    decisions = kinds.count("request.approved")
    if decisions != accepted:
        raise RuntimeError(f"{accepted} votes were told that they decided, the ledger has {decisions}")
    return {"decisions_of_100_simultaneous": float(decisions)}


_names: Callable[[], int] = count().__next__


def _opened(site: Site, number: int) -> list[str]:
    """Return requests that a person asked for, opened past the API: opening is not what is measured."""
    opened = []
    for _ in range(number):
        key = f"bench-{_names()}"
        request_id = f"00000000-0000-4000-8000-{_names():012d}"
        site.service.open_for_person(
            Person("engineer"), an_opening(key), key=key, request_id=request_id, now=utc_now()
        )
        opened.append(request_id)
    return opened
