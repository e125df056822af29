"""The evidence report in a browser: whole without a network, readable in the dark, and clean on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.evidence.conftest import package_of_a_busy_day

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package_of_a_busy_day(tmp_path_factory.mktemp("report")) / "index.html"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(offline=True, java_script_enabled=False)
    yield opened
    opened.close()


def test_the_report_opens_without_a_network_and_asks_for_nothing_else(
    context: BrowserContext, report: Path
) -> None:
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: complaints.append(line.text))
    page.goto(report.as_uri())
    assert asked == [report.as_uri()]
    assert complaints == []
    assert page.locator("h1").inner_text() == "evidence.example/approvals"
    assert page.locator("article").count() == 9
    page.locator("#break_glass + p + table a").click()
    assert page.url.partition("#")[2].startswith("r-")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_on_a_narrow_screen(browser: Browser, report: Path, scheme: str) -> None:
    narrow = browser.new_context(
        offline=True,
        viewport={"width": 400, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = narrow.new_page()
    page.goto(report.as_uri())
    width = page.evaluate("document.documentElement.scrollWidth")
    narrow.close()
    assert width <= 400


def test_it_prints_to_paper_with_every_action_on_it(context: BrowserContext, report: Path) -> None:
    page = context.new_page()
    page.goto(report.as_uri())
    printed = page.pdf(format="A4", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 3 <= pages <= 14
