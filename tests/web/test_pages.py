"""The pages do what the API does, under the same rules, and say in plain words what they refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event

from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import ApprovalRequest, Channel, Evidence, State
from airflow_approvals.core.receipt import verify_bundle
from airflow_approvals.core.signature import public_keys_from_json
from airflow_approvals.web.ledger import public_keys
from airflow_approvals.wiring import FilePolicySource
from tests.browser.gallery import approve
from tests.web.pages import Browser
from tests.web.site import Site, an_opening


def opened(site: Site, name: str, *, folder: str = "") -> ApprovalRequest:
    ti_id = site.add_task(run_id=f"run_{name}")
    with site.worker(ti_id) as worker:
        request, _ = worker.open_request(an_opening(name, folder=folder))
    return request


def path_of(request: ApprovalRequest) -> str:
    return f"/requests/{request.id}"


def test_an_approver_goes_from_the_inbox_to_a_decision(shared: Site) -> None:
    request = opened(shared, "walk")
    with Browser(shared, "alice") as alice:
        inbox = alice.open("/")
        assert any(attrs.get("href") == f"/approvals/requests/{request.id}" for _, attrs in inbox.tags)
        page = alice.open(path_of(request))
        assert page.buttons == ["approve", "deny", "ask"]
        assert "0 of 1: data-stewards missing" in page.text
        done = alice.send(page.form("/vote"), verdict="approve", reason="as agreed")
    assert "Your approval is on the record." in done.text
    assert "Verified" in done.text
    after = shared.store.get_request(request.id)
    assert (after.state, after.votes[0].channel, after.votes[0].reason) == (
        State.APPROVED,
        Channel.PAGE,
        "as agreed",
    )


def test_a_gated_task_is_told_by_what_it_shows_and_by_no_digest_before_it(shared: Site) -> None:
    task = {
        "task_id": "delete_old",
        "operator": "sql.SQLExecuteQueryOperator",
        "fields": {"sql": "5" * 64, "database": "6" * 64},
        "arguments": {},
        "shown": {"sql": "DELETE FROM customers WHERE id > 5"},
    }
    opening = an_opening("gated")
    action = replace(opening.action, parameters={"task": task})
    ti_id = shared.add_task(run_id="run_gated")
    with shared.worker(ti_id) as worker:
        request, _ = worker.open_request(replace(opening, action=action, evidence=Evidence()))
    approve(shared, request, "alice")
    with shared.worker(ti_id) as worker:
        worker.redeem(request.id, ti_id=ti_id, digest=request.action_digest)
        worker.report_outcome(request.id, ti_id=ti_id, published=True)
    with Browser(shared, "alice") as alice:
        page = alice.open(path_of(request))
    assert "SQLExecuteQueryOperator delete_old" in page.text
    assert page.text.index("DELETE FROM customers WHERE id > 5") < page.text.index("5" * 64)
    assert "database: bound by digest" in page.text
    assert "SHA-256 None" not in page.text


@pytest.mark.parametrize("done", ["approve", "deny", "ask", "answer", "cancel", "revoke", "x"])
def test_a_link_cannot_claim_an_answer_that_was_not_given(shared: Site, done: str) -> None:
    request = opened(shared, f"claimed-{done}")
    with Browser(shared, "alice") as alice:
        assert "notice" not in alice.open(f"{path_of(request)}?done={done}").answer.text


def test_a_requester_sees_no_buttons_and_is_told_why(shared: Site) -> None:
    request = opened(shared, "own")
    with Browser(shared, "engineer") as engineer:
        page = engineer.open(path_of(request))
        assert page.buttons == ["cancel"]
        assert "You asked for this, so somebody else must approve it." in page.text


def test_a_form_that_a_requester_makes_up_is_refused_in_place_and_recorded(shared: Site) -> None:
    request = opened(shared, "forged-vote")
    with Browser(shared, "engineer") as engineer:
        form = engineer.open(path_of(request)).form("/cancel")
        form.action = form.action.replace("/cancel", "/vote")
        page = engineer.send(form, verdict="approve", revision="1")
    assert page.answer.status_code == 403
    assert "requesters cannot approve their own action" in page.text
    assert request.id not in page.text
    assert shared.store.get_request(request.id).state is State.PENDING
    refused = [entry for entry in shared.ledger() if entry["kind"] == "attempt.refused"]
    assert (refused[-1]["actor"], refused[-1]["request_id"]) == ("engineer", request.id)
    with Browser(shared, "alice") as alice:
        assert "tried to approve, and was refused" in alice.open(path_of(request)).text


def test_a_denial_needs_a_reason_and_what_was_typed_is_kept(shared: Site) -> None:
    request = opened(shared, "denied")
    with Browser(shared, "alice") as alice:
        form = alice.open(path_of(request)).form("/vote")
        page = alice.send(form, verdict="deny", reason="")
        assert (page.answer.status_code, "wants a reason" in page.text) == (422, True)
        long = "no " * 1000
        page = alice.send(page.form("/vote"), verdict="deny", reason=long)
        assert "at most 2000 characters" in page.text
        assert long in page.answer.text
        page = alice.send(page.form("/vote"), verdict="deny", reason="not under\r\nthis contract")
    assert "denied by alice" in page.text
    assert shared.store.get_request(request.id).votes[0].reason == "not under\nthis contract"


def test_a_vote_on_a_stale_page_is_refused_in_place(shared: Site) -> None:
    request = opened(shared, "stale")
    with Browser(shared, "alice") as alice, Browser(shared, "bob") as bob:
        form = alice.open(path_of(request)).form("/vote")
        page = alice.send(form, verdict="approve", revision="7")
        assert page.answer.status_code == 409
        assert "you saw revision 7" in page.text
        bob.send(bob.open(path_of(request)).form("/vote"), verdict="deny", reason="no")
        page = alice.send(form, verdict="approve")
        assert page.answer.status_code == 409
        assert "this request is already denied" in page.text
        assert "nothing was recorded for you" in page.text


def test_questions_are_asked_and_answered_on_the_page(shared: Site) -> None:
    request = opened(shared, "asked")
    with Browser(shared, "alice") as alice, Browser(shared, "engineer") as engineer:
        alice.send(alice.open(path_of(request)).form("/ask"), question="Which contract?")
        page = engineer.open(path_of(request))
        assert "Which contract?" in page.text
        engineer.send(page.form("/answer"), answer="Number 2024-117")
        assert "Number 2024-117" in alice.open(path_of(request)).text
        page = alice.send(alice.open(path_of(request)).form("/ask"), question="  ")
        assert "expected some text" in page.text


def test_a_request_is_withdrawn_and_an_approval_taken_back_on_the_page(shared: Site) -> None:
    first, second = opened(shared, "withdrawn"), opened(shared, "revoked")
    with Browser(shared, "engineer") as engineer, Browser(shared, "alice") as alice:
        engineer.send(engineer.open(path_of(first)).form("/cancel"), because="wrong file")
        alice.send(alice.open(path_of(second)).form("/vote"), verdict="approve")
        page = alice.open(path_of(second))
        assert page.buttons == ["revoke"]
        alice.send(page.form("/revoke"), because="wrong partner")
        assert engineer.open(path_of(second)).buttons == []
    assert shared.store.get_request(first.id).decided_because == "cancelled by engineer: wrong file"
    assert shared.store.get_request(second.id).decided_because == "revoked by alice: wrong partner"


def test_two_groups_are_shown_with_who_is_missing(shared: Site) -> None:
    request = opened(shared, "two", folder="secret/")
    with Browser(shared, "alice") as alice, Browser(shared, "carol") as carol:
        page = alice.send(alice.open(path_of(request)).form("/vote"), verdict="approve")
        assert "1 of 2: data-stewards done, security missing" in page.text
        assert "You have answered; your vote stands." in page.text
        assert page.buttons == ["ask"]
        assert request.id not in alice.open("/").answer.text
        assert "1 of 2: data-stewards done, security missing" in carol.open("/").text
        assert carol.open(path_of(request)).buttons == ["approve", "deny", "ask"]


def test_what_somebody_may_not_see_does_not_exist(shared: Site) -> None:
    request = opened(shared, "hidden")
    with Browser(shared, "mallory") as mallory:
        for path in (path_of(request), f"{path_of(request)}/receipt"):
            page = mallory.open(path)
            assert page.answer.status_code == 404
            assert "There is no such request" in page.text
        listed = [
            mallory.open(f"/?view={view}").answer.text for view in ("answer", "mine", "open", "history")
        ]
        assert all(request.id not in text for text in listed)


def test_the_receipt_is_verified_on_the_page_and_can_be_taken_away(shared: Site) -> None:
    request = opened(shared, "receipt")
    with Browser(shared, "alice") as alice:
        page = alice.open(f"{path_of(request)}/receipt")
        assert (page.answer.status_code, "never approved" in page.text) == (404, True)
        alice.send(alice.open(path_of(request)).form("/vote"), verdict="approve")
        answer = alice.open(f"{path_of(request)}/receipt").answer
    assert answer.headers["content-disposition"] == f'attachment; filename="receipt-{request.id}.json"'
    keys = public_keys_from_json(public_keys(shared.service))
    assert verify_bundle(json.loads(answer.text), keys).request_id == request.id


def test_a_receipt_that_does_not_verify_is_said_so(site: Site) -> None:
    request, other = opened(site, "genuine"), opened(site, "other")
    with Browser(site, "alice") as alice:
        for each in (request, other):
            alice.send(alice.open(path_of(each)).form("/vote"), verdict="approve")
        approved, taken = site.store.get_request(request.id), site.store.get_request(other.id)
        with site.store.begin() as tx:
            tx.update_request(replace(approved, receipt=taken.receipt))
        page = alice.open(path_of(request))
        assert "Verification failed." in page.text
        assert "just verified" not in page.text
        moved = replace(approved.action, destination="file:///outbox/elsewhere.csv")
        with site.store.begin() as tx:
            tx.update_request(replace(approved, action=moved))
        assert "Verification failed." in alice.open(path_of(request)).text


def test_the_task_instance_tab_leads_to_its_newest_request(shared: Site) -> None:
    plain = opened(shared, "tab+1")
    mapped_ti = shared.add_task(run_id="run_tab+1", task_id="mapped", map_index=3)
    with shared.worker(mapped_ti) as worker:
        mapped, _ = worker.open_request(an_opening("mapped"))
    with Browser(shared, "alice") as alice:
        tabs = "/task-instances/export/run_tab+1"
        for path, request in (
            (f"{tabs}/publish/%7BMAP_INDEX%7D", plain),
            (f"{tabs}/publish/-1", plain),
            (f"{tabs}/mapped/3", mapped),
        ):
            assert alice.open(path).answer.url.path == f"/approvals/requests/{request.id}"
        for index in ("4", "%C2%B2", "9" * 30):  # of another one, no number, no number that a task can have
            page = alice.open(f"{tabs}/mapped/{index}")
            assert "No approval was asked for" in page.text


def test_the_tab_of_a_mapped_task_finds_its_request_among_a_thousand(site: Site) -> None:
    ti_id = site.add_task(run_id="wide", map_index=0)
    with site.worker(ti_id) as worker:
        first, _ = worker.open_request(an_opening("wide"))
    assert first.origin is not None
    with site.store.begin() as tx:
        for index in range(1, 1000):
            origin = replace(first.origin, ti_id=str(uuid4()), map_index=index)
            tx.insert_request(replace(first, id=str(uuid4()), origin=origin))
    with Browser(site, "alice") as alice:
        page = alice.open("/task-instances/export/wide/publish/0")
    assert page.answer.url.path == f"/approvals/requests/{first.id}"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("search=needle", True),
        ("search=NEEDLE+monthly", True),
        ("search=needle+absent", False),
        ("search=%25", False),
        ("search=engineer+needle", True),
        ("dag=haystack", True),
        ("dag=hay", False),
        ("policy=partner-export", True),
        ("policy=none", False),
        ("requester=Engineer", True),
        ("requester=somebody", False),
        ("requester=%E2%80%AE", False),
        ("state=pending", True),
        ("state=approved", False),
        ("page=99", False),
    ],
)
def test_the_list_is_searched_and_narrowed(shared: Site, query: str, found: bool) -> None:
    ti_id = shared.add_task(dag_id="haystack", run_id=f"run_{uuid4()}")
    with shared.worker(ti_id) as worker:
        request, _ = worker.open_request(an_opening("needle"))
    with Browser(shared, "root") as root:
        page = root.open(f"/?view=open&{query}")
    assert page.answer.status_code == 200
    assert (request.id in page.answer.text) is found


def test_the_lists_hold_what_their_names_say(site: Site) -> None:
    pending, decided = opened(site, "pending"), opened(site, "decided")
    with Browser(site, "alice") as alice, Browser(site, "engineer") as engineer:
        alice.send(alice.open(path_of(decided)).form("/vote"), verdict="deny", reason="no")

        def shown(browser: Browser, view: str) -> list[bool]:
            text = browser.open(f"/?view={view}").answer.text
            return [pending.id in text, decided.id in text]

        assert shown(alice, "answer") == [True, False]
        assert shown(alice, "mine") == [False, False]
        assert shown(alice, "open") == [True, False]
        assert shown(alice, "history") == [False, True]
        assert shown(engineer, "answer") == [False, False]
        assert shown(engineer, "mine") == [True, False]
        assert engineer.open("/?view=nonsense").answer.status_code == 404


@contextmanager
def statements_of(site: Site) -> Iterator[list[str]]:
    """Collect what is asked about requests; the loops of the server ask at their own, longer times."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "approvals_request" in statement:
            asked.append(statement)

    event.listen(site.store.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(site.store.engine, "before_cursor_execute", note)


def test_a_thousand_requests_are_listed_with_a_handful_of_questions_to_the_database(site: Site) -> None:
    request = opened(site, "many")
    with site.store.begin() as tx:
        for index in range(999):
            later = request.expires_at + timedelta(seconds=index)
            tx.insert_request(replace(request, id=str(uuid4()), expires_at=later))
    with Browser(site, "alice") as alice:
        with statements_of(site) as asked:
            page = alice.open("/")
        assert 0 < len(asked) < 10
        assert "1,000 requests" in page.text
        assert "Page 1 of 40" in page.text
        assert page.answer.text.index(request.id) < page.answer.text.index('class="pages"')
        assert "Page 40 of 40" in alice.open("/?page=40").text
        assert "Page 2 of 40" in alice.open("/?view=open&page=2").text


def test_a_page_past_the_end_does_not_say_that_nothing_waits(site: Site) -> None:
    request = opened(site, "last")
    with Browser(site, "alice") as alice:
        page = alice.open("/?page=2")
        assert "Nothing waits" not in page.text
        assert "Show its last page" in page.text
        last = next(attrs["href"] for tag, attrs in page.tags if tag == "a" and "view=answer" in str(attrs))
        assert request.id in alice.client.get(str(last)).text


def test_without_a_policy_the_record_is_still_shown(site: Site) -> None:
    request = opened(site, "kept")
    site.policy_file.write_text("version: 1\n")
    with Browser(site, "engineer") as engineer:
        assert "stays in force" in engineer.open("/").text
        site.service.policies = FilePolicySource(site.policy_file)
        assert "There is no valid policy file" in engineer.open("/").text
        page = engineer.open(path_of(request))
        assert page.buttons == []
        assert "nothing can be approved" in page.text


def test_an_expired_request_has_no_buttons(site: Site) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=2)
    opening = an_opening("old")
    request = site.service.open_for_person(
        person_named("engineer"),
        opening,
        key="k",
        request_id="0" * 8 + "-0000-4000-8000-" + "0" * 12,
        now=long_ago,
    ).request
    with Browser(site, "alice") as alice:
        page = alice.open(path_of(request))
    assert (page.buttons, "Nobody answered in time" in page.text) == ([], True)
