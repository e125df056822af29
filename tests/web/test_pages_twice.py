"""What is asked twice on the pages, who opens the gate alone, and what stands for later runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_approvals.core.errors import NotAllowedError
from airflow_approvals.core.model import ApprovalRequest, GrantKind, State
from tests.web.pages import Browser, Page
from tests.web.site import Site, an_opening, mounted, serving

POLICY = """
version: 1
groups:
  stewards: {users: [alice, bob]}
  oncall: {users: [dana, engineer]}
  admins: {users: [root]}
policies:
  - name: payroll
    match: {action: [export], destination: ["file:///outbox/payroll/**"]}
    require: [{group: stewards}]
    high_risk: true
    break_glass: {group: oncall}
  - name: strict
    match: {action: [export], destination: ["file:///outbox/strict/**"]}
    require: [{group: stewards}]
    high_risk: true
    require_reason: always
  - name: feed
    match: {action: [export], destination: ["file:///outbox/feed/**"]}
    require: [{group: stewards}]
    standing: {max_days: 30, void_on: [schema, "rows > 1.2x"]}
  - name: plain
    match: {action: [export], destination: ["file:///outbox/**"]}
    require: [{group: stewards}]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("twice")
    found = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    found.policy_file.write_text(POLICY, encoding="utf-8")
    with serving(mounted(found.app), found.port):
        yield found
    found.store.close()


def opened(
    site: Site, folder: str, *, rows: int = 1000, name: str = "data", dag: str = ""
) -> ApprovalRequest:
    number = len(site.ledger())
    ti_id = site.add_task(dag_id=dag or f"dag_{number}", run_id=f"run_{number}")
    with site.worker(ti_id) as worker:
        return worker.open_request(an_opening(name, rows=rows, folder=folder))[0]


def fresh(site: Site, request: ApprovalRequest) -> ApprovalRequest:
    return site.store.get_request(request.id)


def approve(alice: Browser, request: ApprovalRequest, **fields: str) -> Page:
    return alice.send(alice.open(f"/requests/{request.id}").form("/vote"), verdict="approve", **fields)


def kinds(site: Site, request: ApprovalRequest) -> list[str]:
    return [entry["kind"] for entry in site.ledger() if entry["request_id"] == request.id]


# --- high risk -------------------------------------------------------------------------------------------


def test_an_approval_under_a_high_risk_policy_counts_at_the_second_yes(site: Site) -> None:
    request = opened(site, "payroll/")
    with Browser(site, "alice") as alice:
        asked = approve(alice, request, reason="As agreed.")
        assert asked.answer.status_code == 200
        assert "Approve exactly this?" in asked.text
        assert "file:///outbox/payroll/data.csv" in asked.text
        assert "As agreed." in asked.text
        assert kinds(site, request) == ["request.opened"]
        page = alice.send(asked.form("/vote"), confirm="yes")
    assert "Your approval is on the record." in page.text
    assert (fresh(site, request).state, fresh(site, request).votes[0].reason) == (
        State.APPROVED,
        "As agreed.",
    )


def test_not_yet_leads_back_with_what_was_typed(site: Site) -> None:
    request = opened(site, "payroll/")
    with Browser(site, "alice") as alice:
        page = alice.send(approve(alice, request, reason="As agreed.").form("/vote"), confirm="no")
    assert "As agreed." in page.answer.text
    assert "approve" in page.buttons
    assert kinds(site, request) == ["request.opened"]


def test_a_denial_is_not_asked_twice(site: Site) -> None:
    request = opened(site, "payroll/")
    with Browser(site, "alice") as alice:
        alice.send(alice.open(f"/requests/{request.id}").form("/vote"), verdict="deny", reason="no")
    assert fresh(site, request).state is State.DENIED


def test_an_ordinary_policy_asks_once(site: Site) -> None:
    request = opened(site, "")
    with Browser(site, "alice") as alice:
        approve(alice, request)
    assert fresh(site, request).state is State.APPROVED


def test_what_is_missing_is_said_before_the_second_question(site: Site) -> None:
    request = opened(site, "strict/")
    with Browser(site, "alice") as alice:
        page = approve(alice, request, reason=" ")
        assert (page.answer.status_code, "wants a reason" in page.text) == (422, True)
        assert "Approve exactly this?" in approve(alice, request, reason="As agreed.").text


def test_what_changed_between_the_two_answers_is_looked_at_again(site: Site) -> None:
    request = opened(site, "payroll/")
    before = site.policy_file.read_text(encoding="utf-8")
    with Browser(site, "alice") as alice:
        asked = approve(alice, request)
        site.policy_file.write_text(
            before.replace("high_risk: true", "high_risk: true\n    expires_after: 9h")
        )
        try:
            page = alice.send(asked.form("/vote"), confirm="yes")
        finally:
            site.policy_file.write_text(before)
    assert (page.answer.status_code, "has changed" in page.text) == (409, True)
    assert fresh(site, request).votes == ()


def test_who_may_not_answer_is_refused_at_once_and_not_asked_twice(site: Site) -> None:
    request = opened(site, "payroll/")
    with Browser(site, "alice") as alice, Browser(site, "root") as root:
        form = alice.open(f"/requests/{request.id}").form("/vote")
        form.fields["token"] = root.open(f"/requests/{request.id}").form("/cancel").fields["token"]
        page = root.send(form, verdict="approve")
    assert (page.answer.status_code, "not in any approver group" in page.text) == (403, True)
    assert kinds(site, request) == ["request.opened", "attempt.refused"]


# --- break glass -----------------------------------------------------------------------------------------


def broken(site: Site, request: ApprovalRequest) -> Page:
    with Browser(site, "dana") as dana:
        form = dana.open(f"/requests/{request.id}").form("/break-glass")
        asked = dana.send(form, emergency="Payroll is due at six.")
        assert "Break the glass?" in asked.text
        assert "You alone open the gate" in asked.text
        assert kinds(site, request) == ["request.opened"]
        return dana.send(asked.form("/break-glass"), confirm="yes")


def test_somebody_on_call_grants_alone_with_a_reason_and_a_second_yes(site: Site) -> None:
    request = opened(site, "payroll/")
    page = broken(site, request)
    assert "The glass is broken" in page.text
    assert "dana granted this alone, in an emergency: Payroll is due at six." in page.text
    granted = fresh(site, request).granted
    assert granted is not None
    assert (granted.kind, granted.by) == (GrantKind.BREAK_GLASS, ("dana",))
    assert kinds(site, request) == ["request.opened", "glass.broken", "request.approved"]


@pytest.mark.parametrize(("field", "status"), [("", 422), ("   ", 422)])
def test_the_glass_is_not_broken_without_a_reason(site: Site, field: str, status: int) -> None:
    request = opened(site, "payroll/")
    with Browser(site, "dana") as dana:
        form = dana.open(f"/requests/{request.id}").form("/break-glass")
        page = dana.send(form, emergency=field)
    assert (page.answer.status_code, "needs a reason" in page.text) == (status, True)
    assert fresh(site, request).state is State.PENDING


@pytest.mark.parametrize("name", ["alice", "engineer", "root"])
def test_the_glass_is_shown_to_those_who_may_break_it_and_to_nobody_else(site: Site, name: str) -> None:
    request = opened(site, "payroll/")
    with Browser(site, name) as browser:
        page = browser.open(f"/requests/{request.id}")
        assert "break-glass" not in page.buttons
        token = page.forms[0].fields["token"]
        form = {"token": token, "revision": "1", "emergency": "now", "confirm": "yes"}
        answer = browser.client.post(f"/approvals/requests/{request.id}/break-glass", data=form)
    assert answer.status_code == 403
    assert fresh(site, request).state is State.PENDING


def test_an_emergency_waits_for_somebody_else_to_look_at_it_and_then_no_more(site: Site) -> None:
    request = opened(site, "payroll/")
    broken(site, request)
    with Browser(site, "bob") as bob, Browser(site, "dana") as dana:
        assert "nobody else has looked at it yet" in bob.open("/").text
        assert "nobody else has looked" not in dana.open("/").text
        assert "review" not in dana.open(f"/requests/{request.id}").buttons
        page = bob.open(f"/requests/{request.id}")
        assert "Not looked at yet" in page.text
        page = bob.send(page.form("/review"), remark="Checked with finance.")
        assert "you have looked at this emergency grant" in page.text
        assert "Looked at by bob" in page.text
        assert "Checked with finance." in page.text
        assert "review" not in page.buttons
        while "nobody else has looked" in (inbox := bob.open("/")).text:  # those of other tests
            link = next(
                str(attrs["href"]) for tag, attrs in inbox.tags if "/requests/" in str(attrs.get("href"))
            )
            assert request.id not in link
            bob.send(bob.open(link.removeprefix("/approvals")).form("/review"))
    assert kinds(site, request)[-1] == "glass.reviewed"


def test_the_api_reviews_too_and_refuses_whoever_broke_the_glass(site: Site) -> None:
    request = opened(site, "payroll/")
    broken(site, request)
    with site.person("dana") as dana, pytest.raises(NotAllowedError, match="only an approver"):
        dana.review(request.id, remark="mine")
    with site.person("alice") as alice:
        seen = alice.review(request.id, remark="fine")
    assert seen.review is not None
    assert (seen.review.by, seen.review.remark) == ("alice", "fine")


# --- standing --------------------------------------------------------------------------------------------


def asked_to_stand(site: Site, run: ApprovalRequest, name: str = "engineer", **fields: str) -> Page:
    with Browser(site, name) as browser:
        form = browser.open(f"/requests/{run.id}").form("/standing")
        return browser.send(form, **{"days": "20", **fields})


def standing_of(site: Site, dag: str) -> ApprovalRequest:
    with site.person("root") as root:
        return root.list_requests(dag_id=dag, standing=True).requests[0]


def stands(site: Site, dag: str) -> ApprovalRequest:
    """Let alice approve a first run, and that it stands."""
    run = opened(site, "feed/", dag=dag)
    with Browser(site, "alice") as alice:
        approve(alice, run)
        asked_to_stand(site, run)
        standing = standing_of(site, dag)
        asked = approve(alice, standing)
        assert "Approve for 20 days?" in asked.text
        assert fresh(site, standing).state is State.PENDING
        alice.send(asked.form("/vote"), confirm="yes")
    assert fresh(site, standing).state is State.APPROVED
    return fresh(site, standing)


def test_an_approval_stands_once_others_have_said_so_twice(site: Site) -> None:
    run = opened(site, "feed/", dag="feed_a")
    with Browser(site, "alice") as alice:
        assert "standing" not in alice.open(f"/requests/{run.id}").buttons  # nobody has approved it yet
        approve(alice, run)
    page = asked_to_stand(site, run)
    assert "Others must approve that it stands." in page.text
    assert "Once approved, it stands for 20 days" in page.text
    assert "rows > 1.2x" in page.text
    assert "approve" not in page.buttons  # whoever asks cannot vote
    with Browser(site, "bob") as bob:
        standing = standing_of(site, "feed_a")
        assert standing.id in bob.open("/").answer.text
        page = bob.open(f"/requests/{standing.id}")
        assert f"Compared with request {run.id[:8]}" in page.text
        assert "Same source, destination, parameters, number of rows" in page.text
        asked = approve(bob, standing)
        assert "Your yes is for every later run too" in asked.text
        bob.send(asked.form("/vote"), confirm="yes")
        assert "In force" in bob.open(f"/requests/{standing.id}").text


BAD_WISHES = {
    "too long": ({"days": "31"}, 422, "1 to 30 days"),
    "no days": ({"days": "0"}, 422, "1 to 30 days"),
    "no number": ({"days": "many"}, 422, "expected a number"),
    "a place that was not approved": ({"destination": "file:///outbox/other/*.csv"}, 422, "does not cover"),
}


@pytest.mark.parametrize(("fields", "status", "why"), BAD_WISHES.values(), ids=BAD_WISHES.keys())
def test_what_cannot_stand_is_said_in_place_and_what_was_typed_stays(
    site: Site, fields: dict[str, str], status: int, why: str
) -> None:
    run = opened(site, "feed/")
    with Browser(site, "alice") as alice:
        approve(alice, run)
    page = asked_to_stand(site, run, **fields)
    assert (page.answer.status_code, why in page.text) == (status, True)
    form = page.form("/standing").fields
    assert all(form[name] == value for name, value in fields.items())


def test_a_policy_without_standing_approvals_offers_none(site: Site) -> None:
    run = opened(site, "")
    with Browser(site, "alice") as alice:
        approve(alice, run)
        assert "standing" not in alice.open(f"/requests/{run.id}").buttons


def test_what_stands_shows_what_it_lets_through_and_can_be_ended(site: Site) -> None:
    standing = stands(site, "feed_b")
    run = opened(site, "feed/", rows=1100, name="data", dag="feed_b")
    assert fresh(site, run).state is State.APPROVED
    with site.person("alice") as person:
        assert [each.id for each in person.list_requests(granted_by=standing.id).requests] == [run.id]
        assert standing.id not in {each.id for each in person.list_requests(standing=False).requests}
    with Browser(site, "alice") as alice:
        page = alice.open(f"/requests/{standing.id}")
        assert "1 run" in page.text
        assert run.id in page.answer.text
        assert standing.id in alice.open("/?view=standing").answer.text
        assert f"standing approval {standing.id[:8]}" in alice.open(f"/requests/{run.id}").text
        page = alice.send(page.form("/revoke"), because="The contract ends.")
        assert "The approval is taken back." in page.text
        assert standing.id not in alice.open("/?view=standing").answer.text
    assert opened(site, "feed/", rows=1100, name="data", dag="feed_b").state is State.PENDING


def test_what_drifted_is_shown_on_the_run_and_on_what_it_ended(site: Site) -> None:
    standing = stands(site, "feed_c")
    run = opened(site, "feed/", rows=9000, dag="feed_c")
    assert fresh(site, run).voided == standing.id
    with Browser(site, "bob") as bob:
        for request in (run, standing):
            page = bob.open(f"/requests/{request.id}")
            assert "rows > 1.2x 1,000 9,000" in page.text
        assert run.id in page.answer.text


def test_who_sees_no_request_of_the_task_sees_nothing_of_its_runs(site: Site) -> None:
    standing = stands(site, "feed_d")
    run = opened(site, "feed/", rows=1100, dag="feed_d")
    with Browser(site, "mallory") as mallory:
        for request in (standing, run):
            assert mallory.open(f"/requests/{request.id}").answer.status_code == 404
        assert standing.id not in mallory.open("/?view=standing").answer.text
