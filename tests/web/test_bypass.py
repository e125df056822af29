"""Attempts to get around the gate: each is refused, told by its own word, and in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from airflow_approvals.core.errors import (
    AlreadyDecidedError,
    ApprovalsError,
    DigestMismatchError,
    IdempotencyConflictError,
    InvalidRequestError,
    NotAllowedError,
    NotApprovedError,
    ReceiptGoneError,
    ReceiptUsedError,
    StaleRevisionError,
    TaskInstanceRefusedError,
    VoteRefusedError,
)
from airflow_approvals.core.model import ApprovalRequest, State
from tests.web.site import LOADED, POLICY, Site, an_opening, utc_now


class Attempt:
    """A request of a task, and everybody who tries something with it."""

    def __init__(self, site: Site, *, folder: str = "") -> None:
        self.site = site
        self.run_id = f"run_{uuid4()}"
        self.ti_id = site.add_task(run_id=self.run_id)
        with site.worker(self.ti_id) as worker:
            self.request: ApprovalRequest = worker.open_request(an_opening(folder=folder))[0]
        self.id, self.digest = self.request.id, self.request.action_digest

    def vote(self, name: str, verdict: str = "approve", *, revision: int = 1) -> ApprovalRequest:
        with self.site.person(name) as person:
            return person.vote(self.id, verdict, revision=revision, reason="seen")

    def redeem(self, ti_id: str | None = None, *, digest: str | None = None) -> dict[str, Any]:
        ti_id = ti_id or self.ti_id
        with self.site.worker(ti_id) as worker:
            return worker.redeem(self.id, ti_id=ti_id, digest=digest or self.digest)

    def approved(self) -> Attempt:
        self.vote("alice")
        return self


def _worker_votes(attempt: Attempt) -> object:
    with attempt.site.worker(attempt.ti_id) as worker:
        return worker.vote(attempt.id, "approve", revision=1)


def _triggerer_redeems(attempt: Attempt) -> object:
    attempt.approved()
    with attempt.site.reader() as reader:
        return reader.redeem(attempt.id, ti_id="triggerer", digest=attempt.digest)


def _person_redeems(attempt: Attempt) -> object:
    attempt.approved()
    with attempt.site.person("alice") as alice:
        return alice.redeem(attempt.id, ti_id=attempt.ti_id, digest=attempt.digest)


def _person_reports(attempt: Attempt) -> object:
    with attempt.site.person("engineer") as engineer:
        return engineer.report_outcome(attempt.id, ti_id=attempt.ti_id, published=True)


def _speaks_for_another(attempt: Attempt) -> object:
    attempt.approved()
    other = attempt.site.add_task(run_id=attempt.run_id, task_id="other")
    with attempt.site.worker(other) as worker:
        return worker.redeem(attempt.id, ti_id=attempt.ti_id, digest=attempt.digest)


def _another_run_redeems(attempt: Attempt) -> object:
    attempt.approved()
    return attempt.redeem(attempt.site.add_task(run_id=str(uuid4())))


def _finished_task_redeems(attempt: Attempt) -> object:
    attempt.approved()
    attempt.site.set_task_state(attempt.ti_id, "success")
    return attempt.redeem()


def _second_task_redeems(attempt: Attempt) -> object:
    attempt.approved().redeem()
    return attempt.redeem(attempt.site.add_task(run_id=attempt.run_id, task_id="second"))


def _redeem_after_outcome(attempt: Attempt) -> object:
    attempt.approved().redeem()
    with attempt.site.worker(attempt.ti_id) as worker:
        worker.report_outcome(attempt.id, ti_id=attempt.ti_id, published=True)
    return attempt.redeem()


def _redeem_revoked(attempt: Attempt) -> object:
    attempt.approved()
    with attempt.site.person("bob") as bob:
        bob.revoke(attempt.id, reason="wrong partner")
    return attempt.redeem()


def _redeem_lapsed(attempt: Attempt) -> object:
    attempt.approved()
    attempt.site.service.expire_due(now=utc_now() + timedelta(minutes=31))
    return attempt.redeem()


def _redeem_denied(attempt: Attempt) -> object:
    attempt.vote("alice", "deny")
    return attempt.redeem()


def _wide(name: str) -> str:
    return "".join(chr(ord(char) - 0x20 + 0xFEE0) for char in name)


def _two_votes_of_one_person(attempt: Attempt) -> object:
    attempt.vote("alice")
    return attempt.vote("ALICE")


ATTEMPTS: dict[str, tuple[Callable[[Attempt], object], type[ApprovalsError]]] = {
    "a worker votes": (_worker_votes, NotAllowedError),
    "the triggerer redeems": (_triggerer_redeems, NotAllowedError),
    "a person redeems": (_person_redeems, NotAllowedError),
    "a person reports the outcome": (_person_reports, NotAllowedError),
    "a task speaks for another": (_speaks_for_another, TaskInstanceRefusedError),
    "a task of another run redeems": (_another_run_redeems, TaskInstanceRefusedError),
    "a task marked success redeems": (_finished_task_redeems, TaskInstanceRefusedError),
    "a pending one is redeemed": (lambda attempt: attempt.redeem(), NotApprovedError),
    "a denied one is redeemed": (_redeem_denied, NotApprovedError),
    "a revoked one is redeemed": (_redeem_revoked, ReceiptGoneError),
    "a lapsed one is redeemed": (_redeem_lapsed, ReceiptGoneError),
    "a second task redeems": (_second_task_redeems, ReceiptUsedError),
    "it is redeemed after its outcome": (_redeem_after_outcome, ReceiptUsedError),
    "other bytes are redeemed": (
        lambda attempt: attempt.approved().redeem(digest="0" * 64),
        DigestMismatchError,
    ),
    "the requester votes": (lambda attempt: attempt.vote("Engineer"), VoteRefusedError),
    "the requester votes in wide letters": (
        lambda attempt: attempt.vote(_wide("engineer")),
        VoteRefusedError,
    ),
    "one votes on a stale revision": (lambda attempt: attempt.vote("alice", revision=2), StaleRevisionError),
    "one person votes twice": (_two_votes_of_one_person, AlreadyDecidedError),
}


@pytest.mark.parametrize(("attack", "refusal"), ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_every_way_around_is_refused_and_recorded(
    shared: Site, attack: Callable[[Attempt], object], refusal: type[ApprovalsError]
) -> None:
    attempt = Attempt(shared)
    with pytest.raises(refusal) as caught:
        attack(attempt)
    assert type(caught.value) is refusal
    last = shared.ledger()[-1]
    if attack is not _triggerer_redeems:
        assert (last["kind"], last["request_id"]) == ("attempt.refused", attempt.id)
        assert last["data"]["type"] == refusal.type


def test_a_policy_that_changed_after_the_approval_voids_it(site: Site) -> None:
    attempt = Attempt(site).approved()
    site.policy_file.write_text(POLICY.replace("receipt_valid_for: 30m", "receipt_valid_for: 31m"))
    with pytest.raises(ReceiptGoneError, match="policy changed"):
        attempt.redeem()
    assert site.store.get_request(attempt.id).state is State.REVOKED


def test_a_broken_policy_file_never_replaces_a_good_one(site: Site) -> None:
    attempt = Attempt(site)
    site.policy_file.write_text("version: 1\npolicies: {")
    assert attempt.vote("alice").state is State.APPROVED
    with site.person("alice") as alice:
        health = alice.health()
    assert health["status"] == "degraded"
    assert "policy.yaml" in health["policy"]["problem"]


def test_the_same_task_may_redeem_again_and_gets_the_same_receipt(site: Site) -> None:
    attempt = Attempt(site).approved()
    first, second = attempt.redeem(), attempt.redeem()
    assert first["envelope"] == second["envelope"]
    redeemed = [entry for entry in site.ledger() if entry["kind"] == "receipt.redeemed"]
    assert len(redeemed) == 1


def test_two_rules_are_met_by_two_people_only(site: Site) -> None:
    attempt = Attempt(site, folder="secret/")
    assert attempt.vote("alice").state is State.PENDING
    assert attempt.vote("bob").state is State.PENDING
    assert attempt.vote("carol").state is State.APPROVED


def test_of_many_simultaneous_votes_exactly_one_decides(site: Site) -> None:
    attempt = Attempt(site)

    def one_vote(name: str) -> str:
        try:
            return attempt.vote(name).state
        except AlreadyDecidedError as error:
            return error.type

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one_vote, ["alice", "bob"] * 8))
    assert answers.count("approved") == 1
    assert answers.count("already-decided") == 15
    decisions = [entry for entry in site.ledger() if entry["kind"] == "request.approved"]
    assert len(decisions) == 1


def test_a_key_that_is_used_again_for_something_else_is_a_conflict(site: Site) -> None:
    with site.person("engineer") as engineer:
        first, created = engineer.open_request(an_opening(), idempotency_key="monday")
        assert created
        again, created = engineer.open_request(an_opening(), idempotency_key="monday")
        assert (again, created) == (first, False)
        with pytest.raises(IdempotencyConflictError):
            engineer.open_request(an_opening("others"), idempotency_key="monday")
        with pytest.raises(InvalidRequestError, match="Idempotency-Key"):
            engineer.open_request(an_opening())


def test_changed_content_supersedes_and_the_old_approval_is_void(site: Site) -> None:
    attempt = Attempt(site).approved()
    with site.worker(attempt.ti_id) as worker:
        changed, created = worker.open_request(an_opening(rows=5001))
    assert created
    assert changed.id != attempt.id
    with pytest.raises(ReceiptGoneError):
        attempt.redeem()


def test_a_login_cookie_from_another_site_changes_nothing(site: Site) -> None:
    attempt = Attempt(site)
    url = f"{site.base_url}/approvals/api/v1/requests/{attempt.id}/votes"
    vote = {"verdict": "approve", "revision": 1}
    own = {"X-Requested-With": "approvals"}
    rows: list[dict[str, str]] = [
        {},
        {**own, "Origin": "https://evil.example"},
        {**own, "Origin": "null"},
        {**own, "Sec-Fetch-Site": "cross-site"},
        {**own, "Content-Type": "text/plain"},
        {**own, "Authorization": "Basic YWxpY2U6YWxpY2U="},
    ]
    with httpx.Client(cookies={"_token": "login-alice"}, timeout=LOADED) as browser:
        for headers in rows:
            answer = browser.post(url, json=vote, headers=headers)
            assert answer.status_code in (401, 403), headers
        answer = browser.post(url, json=vote, headers={**own, "Origin": site.base_url})
        assert answer.json()["state"] == "approved"


def test_what_the_worker_says_of_itself_is_not_believed(site: Site) -> None:
    ti_id = site.add_task(run_id="told", triggered_by="alice")
    opening = replace(an_opening(), policy="partner-export")
    with site.worker(ti_id) as worker:
        request, _ = worker.open_request(opening)
    assert request.requesters == ("alice",)
    with site.person("alice") as alice, pytest.raises(VoteRefusedError):
        alice.vote(request.id, "approve", revision=1)
