"""What is asked twice, in a browser: high risk, break glass, what stands; by keyboard, narrow, dark."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from airflow_approvals.core.model import ApprovalRequest, State
from tests.browser.conftest import OpenPage
from tests.browser.gallery import Gallery, approve, ask, feed, publish
from tests.browser.test_pages import serious_in, state_of, tab_to

pytestmark = pytest.mark.services


def payroll(gallery: Gallery) -> ApprovalRequest:
    name = uuid4().hex[:8]
    return ask(
        gallery.site,
        name=name,
        rows=412,
        dag_id=f"dag_{name}",
        destination=f"s3://bank-transfer/{name}.parquet",
    )


def test_a_high_risk_approval_is_given_by_keyboard_at_the_second_yes(
    gallery: Gallery, open_page: OpenPage
) -> None:
    request = payroll(gallery)
    page = open_page("alice", f"/requests/{request.id}")
    tab_to(page, "#reason")
    page.keyboard.type("Checked with finance.")
    tab_to(page, "button.approve")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Approve exactly this?")).to_be_focused()
    expect(page.get_by_text("Checked with finance.")).to_be_visible()
    assert state_of(gallery, request) is State.PENDING
    tab_to(page, "button[value=yes]")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_have_text("Your approval is on the record.")
    expect(page.locator("#notice")).to_be_focused()
    assert state_of(gallery, request) is State.APPROVED


def test_not_yet_keeps_what_was_typed_and_the_page_goes_on_being_live(
    gallery: Gallery, open_page: OpenPage
) -> None:
    request = payroll(gallery)
    page = open_page("alice", f"/requests/{request.id}")
    page.get_by_label("Reason").fill("Checked with finance.")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Not yet").click()
    expect(page.get_by_label("Reason")).to_have_value("Checked with finance.")
    approve(gallery.site, request, "bob")
    gallery.site.app.state.backend.events.wake()
    expect(page.locator("#summary .state")).to_have_text("Approved")


@pytest.mark.parametrize("scripts", [True, False], ids=["live", "no script"])
def test_somebody_on_call_breaks_the_glass_and_somebody_else_looks_at_it(
    gallery: Gallery, open_page: OpenPage, scripts: bool
) -> None:
    request = payroll(gallery)
    path = f"/requests/{request.id}"
    page = open_page("dana", path, width=360, dark=True, scripts=scripts)
    page.locator("summary", has_text="Break the glass").click()
    page.get_by_label("What the emergency is").fill("Payroll is due at six.")
    page.get_by_role("button", name="Break the glass…").click()
    expect(page.get_by_role("heading", name="Break the glass?")).to_be_visible()
    assert state_of(gallery, request) is State.PENDING
    page.get_by_role("button", name="Yes, grant it on me alone").click()
    expect(page.locator("#notice")).to_contain_text("The glass is broken")
    assert state_of(gallery, request) is State.APPROVED

    page = open_page("bob", path, width=360, dark=True, scripts=scripts)
    page.get_by_label("Remark").fill("Checked with finance.")
    page.get_by_role("button", name="I have looked at it").click()
    expect(page.locator("#notice")).to_contain_text("you have looked at this emergency grant")
    expect(page.locator("#standing")).to_contain_text("Looked at by bob")


def test_an_approval_is_asked_to_stand_is_given_and_is_ended(gallery: Gallery, open_page: OpenPage) -> None:
    at = datetime.now(UTC)
    gate = f"feed_{uuid4().hex[:8]}"
    run = publish(
        gallery.site, approve(gallery.site, feed(gallery.site, rows=50, at=at, dag_id=gate), "bob"), at=at
    )
    page = open_page("engineer", f"/requests/{run.id}")
    page.get_by_text("Let it stand for later runs").click()
    page.get_by_label("Days").fill("7")
    page.get_by_role("button", name="Ask for it").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("for 7 days")
    page = open_page("alice", f"/requests/{page.url.rpartition('/')[2]}")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Yes, approve for 7 days").click()
    expect(page.locator("#decision")).to_contain_text("In force")
    later = feed(gallery.site, rows=51, at=datetime.now(UTC), dag_id=gate)
    assert state_of(gallery, later) is State.APPROVED
    page.reload()
    expect(page.locator("#standing")).to_contain_text("1 run")
    page.get_by_text("End this standing approval").click()
    page.get_by_role("button", name="End it").click()
    expect(page.locator("#notice")).to_contain_text("The approval is taken back")
    assert state_of(gallery, feed(gallery.site, rows=52, at=datetime.now(UTC), dag_id=gate)) is State.PENDING


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious_where_it_is_asked_twice(
    gallery: Gallery, open_page: OpenPage, dark: bool
) -> None:
    for name, button, field in (
        ("alice", "Approve", "Reason"),
        ("dana", "Break the glass…", "What the emergency is"),
    ):
        page = open_page(name, f"/requests/{gallery.high_risk.id}", width=360, dark=dark)
        assert serious_in(page) == []
        page.get_by_label(field).fill("because " * 200)
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("button", name="Not yet")).to_be_visible()
        assert serious_in(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for name, path in (
        ("carol", f"/requests/{gallery.emergency.id}"),
        ("carol", "/"),
        ("alice", "/?view=standing"),
    ):
        assert serious_in(open_page(name, path, width=360, dark=dark)) == [], path
