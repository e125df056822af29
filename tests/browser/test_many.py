"""The inbox with a thousand open requests: as short, as narrow and as easy to reach as with five."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from airflow_approvals.core.identity import person_named
from tests.browser.gallery import COLUMNS, POLICY, an_opening
from tests.web.site import Site, mounted, serving

pytestmark = pytest.mark.services

MANY = 1000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("many")
    found = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    found.policy_file.write_text(POLICY, encoding="utf-8")
    for number in range(MANY):
        opening = an_opening(f"set_{number:04d}", 10 + number, "export", None, "monthly", COLUMNS, None, ())
        found.service.open_for_person(
            person_named("engineer"),
            opening,
            key=str(number),
            request_id=str(uuid4()),
            now=datetime.now(UTC),
        )
    with serving(mounted(found.app), found.port):
        yield found
    found.store.close()


@pytest.fixture
def page(site: Site, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": getattr(request, "param", 1280), "height": 900})
    context.add_cookies([{"name": "_token", "value": "login-alice", "url": site.base_url}])
    yield context.new_page()
    context.close()


def opened(page: Page, site: Site, path: str) -> None:
    page.goto(f"{site.base_url}/approvals{path}")
    expect(page.locator(".row").first).to_be_visible()


def test_a_thousand_requests_are_listed_searched_and_paged(site: Site, page: Page) -> None:
    for path, rows in {"/": 25, "/?view=open": 25, "/?page=40": 25, "/?search=set_0777": 1}.items():
        opened(page, site, path)
        expect(page.locator(".row")).to_have_count(rows)
    opened(page, site, "/")
    expect(page.locator("#to-answer")).to_contain_text("1000")
    expect(page.get_by_text("Page 1 of 40")).to_be_visible()
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text("Page 2 of 40")).to_be_visible()


@pytest.mark.parametrize("page", [360], indirect=True)
def test_a_thousand_requests_fit_a_phone(site: Site, page: Page) -> None:
    opened(page, site, "/")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    found = Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
