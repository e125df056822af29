"""A browser, and a site to look at with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import chromium
from tests.browser.gallery import Gallery, hang
from tests.web.site import mounted, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

# The environment with the lowest Airflow has no browser: what is tested there does not need one.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]

OpenPage = Callable[..., "Page"]
LOADED = 60_000.0  # milliseconds for what is waited for: others use the machine too


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect

    expect.set_options(timeout=LOADED)
    # Not for longer: Playwright keeps an event loop running, and tests of tasks start their own.
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    found = hang(tmp_path_factory.mktemp("gallery"))
    with serving(mounted(found.site.app), found.site.port):
        yield found
    found.site.store.close()


@pytest.fixture
def open_page(browser: Browser, gallery: Gallery) -> Iterator[OpenPage]:
    """Open a page as somebody; what the browser complains about fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_as(name: str, path: str, *, width: int = 1280, dark: bool = False, scripts: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        contexts.append(context)
        base_url = gallery.site.base_url
        context.add_cookies([{"name": "_token", "value": f"login-{name}", "url": base_url}])
        page = context.new_page()
        page.set_default_timeout(LOADED)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda line: complaints.append(line.text) if "Security Policy" in line.text else None,
        )
        page.goto(f"{base_url}/approvals{path}")
        return page

    yield open_as
    for context in contexts:
        context.close()
    assert complaints == []
