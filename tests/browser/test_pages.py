"""The pages in a real browser: answered, refused, live, by keyboard, narrow, dark, and for everybody."""

from __future__ import annotations

from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from airflow_approvals.core.model import ApprovalRequest, State
from tests.browser.conftest import OpenPage
from tests.browser.gallery import Gallery, ask

pytestmark = pytest.mark.services

SERIOUS = ("serious", "critical")


def a_request(gallery: Gallery, *, rows: int = 300) -> ApprovalRequest:
    return ask(gallery.site, name=f"set_{uuid4().hex[:8]}", rows=rows, dag_id=f"dag_{uuid4().hex[:8]}")


def state_of(gallery: Gallery, request: ApprovalRequest) -> State:
    return gallery.site.store.get_request(request.id).state


def test_from_the_inbox_to_a_decision(gallery: Gallery, open_page: OpenPage) -> None:
    request = a_request(gallery)
    page = open_page("alice", "/")
    page.locator(f"#r-{request.id}").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Export 300 rows")
    page.get_by_label("Reason").fill("As agreed.")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#notice")).to_have_text("Your approval is on the record.")
    expect(page.locator("#notice")).to_be_focused()
    expect(page.get_by_text("This server has just verified")).to_be_visible()
    assert state_of(gallery, request) is State.APPROVED
    assert urlsplit(page.url).query == ""


def test_a_requester_is_refused(gallery: Gallery, open_page: OpenPage) -> None:
    request = a_request(gallery)
    page = open_page("engineer", f"/requests/{request.id}")
    expect(page.get_by_text("You asked for this, so somebody else must approve it.")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    script = """(path) => fetch(path, {
        method: "POST",
        body: '{"verdict": "approve", "revision": 1}',
        headers: {"Content-Type": "application/json", "X-Requested-With": "page"},
    }).then((answer) => answer.status)"""
    status = page.evaluate(script, f"/approvals/api/v1/requests/{request.id}/votes")
    assert status == 403
    expect(page.locator("#timeline")).to_contain_text("tried to approve, and was refused")
    assert state_of(gallery, request) is State.PENDING


def test_a_refusal_is_shown_in_place_and_what_was_typed_stays(gallery: Gallery, open_page: OpenPage) -> None:
    request = a_request(gallery)
    page = open_page("alice", f"/requests/{request.id}")
    page.get_by_label("Reason").fill("   ")
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("alert")).to_contain_text("wants a reason")
    expect(page.get_by_role("alert")).to_be_focused()
    page.get_by_label("Reason").fill("Not in the contract.")
    page.get_by_role("button", name="Deny").click()
    expect(page.locator("#notice")).to_contain_text("denial is on the record")


def test_other_windows_follow_without_being_loaded_again(gallery: Gallery, open_page: OpenPage) -> None:
    request = a_request(gallery)
    path = f"/requests/{request.id}"
    first, second = open_page("alice", path), open_page("engineer", path)
    inbox = open_page("bob", "/")
    expect(inbox.locator(f"#r-{request.id}")).to_be_visible()
    second.wait_for_timeout(300)
    first.get_by_role("button", name="Approve").click()
    expect(second.locator("#summary .state")).to_have_text("Approved")
    expect(inbox.locator(f"#r-{request.id}")).to_have_count(0)
    expect(second.locator("#announce")).to_contain_text("This request is approved.")
    expect(second.locator("#receipt")).to_contain_text("Verified")


def test_what_somebody_types_outlives_what_others_do(gallery: Gallery, open_page: OpenPage) -> None:
    request = a_request(gallery, rows=5000)
    page = open_page("alice", f"/requests/{request.id}")
    reason = page.get_by_label("Reason")
    reason.press_sequentially("I have looked at ")
    other = open_page("carol", f"/requests/{request.id}")
    other.get_by_role("button", name="Approve").click()
    expect(page.locator("#decision")).to_contain_text("1 of 2: data-stewards missing, security done")
    expect(page.get_by_label("Reason")).to_have_value("I have looked at ")
    page.keyboard.type("all of it.")
    expect(page.get_by_label("Reason")).to_have_value("I have looked at all of it.")


@pytest.mark.parametrize("sent", [True, False], ids=["while answering", "while typing"])
def test_a_login_that_ends_loses_nothing_and_says_that_nothing_was_recorded(
    gallery: Gallery, open_page: OpenPage, sent: bool
) -> None:
    request = a_request(gallery)
    page = open_page("alice", f"/requests/{request.id}", width=360)
    page.get_by_label("Reason").fill("I have looked at all of it.")
    page.context.clear_cookies(name="_token")
    if sent:
        page.get_by_role("button", name="Approve").click()
    else:
        a_request(gallery)  # news, which the page asks for without a login
    page.wait_for_url("**/api/v2/auth/login?next=**")
    log_in(page, gallery, "alice", f"/requests/{request.id}")
    expect(page.locator("#notice")).to_contain_text("so nothing was recorded")
    expect(page.locator("#notice")).to_be_focused()
    expect(page.get_by_label("Reason")).to_have_value("I have looked at all of it.")
    assert state_of(gallery, request) is State.PENDING
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#notice")).to_have_text("Your approval is on the record.")
    page.reload()
    expect(page.locator("#notice")).to_have_count(0)


def test_an_answer_without_a_word_is_told_to_be_lost_with_the_login_too(
    gallery: Gallery, open_page: OpenPage
) -> None:
    request = a_request(gallery)
    page = open_page("alice", f"/requests/{request.id}")
    page.context.clear_cookies(name="_token")
    page.get_by_role("button", name="Approve").click()
    page.wait_for_url("**/api/v2/auth/login?next=**")
    log_in(page, gallery, "alice", f"/requests/{request.id}")
    expect(page.locator("#notice")).to_contain_text("so nothing was recorded")
    assert state_of(gallery, request) is State.PENDING


def test_what_somebody_typed_is_not_shown_to_whoever_logs_in_next(
    gallery: Gallery, open_page: OpenPage
) -> None:
    request = a_request(gallery)
    page = open_page("alice", f"/requests/{request.id}")
    page.get_by_label("Reason").fill("Between alice and the record.")
    page.context.clear_cookies(name="_token")
    page.get_by_role("button", name="Approve").click()
    page.wait_for_url("**/api/v2/auth/login?next=**")
    log_in(page, gallery, "bob", f"/requests/{request.id}")
    expect(page.get_by_label("Reason")).to_have_value("")
    expect(page.locator("#notice")).to_have_count(0)
    assert "Between" not in page.evaluate("JSON.stringify(sessionStorage)")


def log_in(page: Page, gallery: Gallery, name: str, path: str) -> None:
    base_url = gallery.site.base_url
    page.context.add_cookies([{"name": "_token", "value": f"login-{name}", "url": base_url}])
    page.goto(f"{base_url}/approvals{path}")


def test_a_new_request_comes_to_the_inbox_by_itself(gallery: Gallery, open_page: OpenPage) -> None:
    page = open_page("alice", "/")
    before = int(page.locator("#to-answer").inner_text().split()[0])
    request = a_request(gallery)
    expect(page.locator(f"#r-{request.id}")).to_be_visible()
    expect(page.locator("#to-answer")).to_contain_text(str(before + 1))


def test_search_narrows_without_a_reload(gallery: Gallery, open_page: OpenPage) -> None:
    page = open_page("alice", "/?view=open")
    page.get_by_label("Search").fill("sessions_2023")
    expect(page.locator(".row")).to_have_count(1)
    expect(page.locator(".row")).to_contain_text("sql://warehouse/web.sessions_2023")
    assert "search=sessions_2023" in page.url
    expect(page.get_by_label("Search")).to_be_focused()
    page.get_by_label("Search").fill("no such thing")
    expect(page.get_by_text("Nothing here matches.")).to_be_visible()


def test_everything_is_done_by_keyboard(gallery: Gallery, open_page: OpenPage) -> None:
    request = a_request(gallery)
    page = open_page("alice", "/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    tab_to(page, f"#r-{request.id}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/requests/{request.id}")
    tab_to(page, "#reason")
    page.keyboard.type("Checked by keyboard.")
    tab_to(page, "button.approve")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_be_focused()
    assert state_of(gallery, request) is State.APPROVED


def tab_to(page: Page, selector: str) -> None:
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement?.matches(selector)", selector):
            return
    raise AssertionError(f"the Tab key does not come to {selector}")


def test_basic_actions_need_no_script(gallery: Gallery, open_page: OpenPage) -> None:
    request = a_request(gallery)
    page = open_page("alice", "/?search=nothing", scripts=False)
    page.get_by_label("Search").fill(request.action.destination or "")
    page.get_by_role("button", name="Search").click()
    page.locator(f"#r-{request.id}").click()
    page.get_by_label("Reason").fill("No.")
    page.get_by_role("button", name="Deny").click()
    expect(page.locator("#notice")).to_contain_text("denial is on the record")
    assert state_of(gallery, request) is State.DENIED


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_scrolls_sideways(gallery: Gallery, open_page: OpenPage, width: int) -> None:
    long = ask(gallery.site, name="n" * 300, dag_id="d" * 200, why="w" * 1500, rows=10)
    paths = ["/?view=open", "/identity", "/?view=history", "/requests/3f2b8f6e-1111-4222-8333-444455556666"]
    paths += [f"/requests/{each.id}" for each in (gallery.pending, gallery.completed, long)]
    paths += [f"/requests/{each.id}" for each in (gallery.standing, gallery.emergency)]
    for path in paths:
        page = open_page("alice", path, width=width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_what_an_approver_presses_is_wide_enough_for_a_thumb(gallery: Gallery, browser: Browser) -> None:
    base_url = gallery.site.base_url
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    context.add_cookies([{"name": "_token", "value": "login-dana", "url": base_url}])
    page = context.new_page()
    page.goto(f"{base_url}/approvals/requests/{gallery.high_risk.id}")
    heights = page.evaluate(
        """() => [...document.querySelectorAll("button, summary, .jump a, .crumbs a, .who a")]
            .filter((each) => each.offsetParent)
            .map((each) => [each.textContent.trim(), each.getBoundingClientRect().height])"""
    )
    context.close()
    assert len(heights) >= 5
    assert [name for name, height in heights if height < 36] == []


def test_dark_is_dark_and_light_is_light(gallery: Gallery, open_page: OpenPage) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    assert open_page("alice", "/", dark=True).evaluate(background) == "rgb(18, 21, 26)"
    assert open_page("alice", "/").evaluate(background) == "rgb(245, 246, 248)"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("who", ["alice", "engineer"])
def test_axe_finds_nothing_serious(gallery: Gallery, open_page: OpenPage, who: str, dark: bool) -> None:
    long = ask(gallery.site, name="n" * 300, dag_id="d" * 200, why="why " * 450, rows=10)
    for path in (
        "/?view=open",
        "/identity",
        "/?view=history&search=x&dag=y",
        f"/requests/{long.id}",
        f"/requests/{gallery.pending.id}",
        f"/requests/{gallery.completed.id}",
        f"/requests/{gallery.standing.id}",
        f"/requests/{gallery.standing.standing.approved_id if gallery.standing.standing else ''}",
    ):
        assert serious_in(open_page(who, path, dark=dark)) == [], path


def serious_in(page: Page) -> list[tuple[str, str]]:
    """Return what axe finds serious on the page with everything unfolded."""
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = Axe().run(page).response["violations"]
    serious = [each for each in found if each["impact"] in SERIOUS]
    return [(each["id"], node["html"][:200]) for each in serious for node in each["nodes"]]


def test_a_lost_server_is_said_so_and_found_again(gallery: Gallery, open_page: OpenPage) -> None:
    page = open_page("alice", "/")
    page.route("**/api/v1/events**", lambda route: route.abort())
    a_request(gallery)  # ends the call that is held; every further one fails
    expect(page.locator("#connection")).to_contain_text("The server does not answer")
    page.unroute("**/api/v1/events**")
    request = a_request(gallery)
    expect(page.locator(f"#r-{request.id}")).to_be_visible()
    expect(page.locator("#connection")).to_be_hidden()
