"""The pages inside Airflow's own UI: found in its navigation and on the task, answered in its frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import pytest

from airflow_approvals.core.model import ApprovalRequest, Channel, State
from tests.browser.chromium import chromium
from tests.provider.runs import Runs
from tests.provider.site import Site
from tests.provider.test_export import export_dag

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.services, pytest.mark.airflow]

SLOW = 120_000.0  # milliseconds: Airflow's UI is a large script


def in_browser(act: Callable[[Page, Site, ApprovalRequest], None]) -> Callable[[Site, ApprovalRequest], None]:
    """Return an answer to a request that `act` gives in a browser of its own."""

    def answer(site: Site, request: ApprovalRequest) -> None:
        with chromium() as browser:
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            page.set_default_timeout(SLOW)
            act(page, site, request)

    return answer


def log_in(page: Page, name: str) -> None:
    page.get_by_label("Username").fill(name)
    page.locator("input[type=password]").fill(name)
    page.get_by_role("button", name="Sign in").click()


def test_a_link_from_outside_leads_through_airflows_login_to_the_request(runs: Runs, staged: Path) -> None:
    def act(page: Page, site: Site, request: ApprovalRequest) -> None:
        page.goto(f"{site.base_url}/approvals/requests/{request.id}")
        log_in(page, "alice")
        page.wait_for_url(f"{site.base_url}/approvals/requests/{request.id}")
        page.get_by_role("button", name="Approve").click()
        page.get_by_text("Your approval is on the record.").wait_for()

    dag, target = export_dag("linked", staged)
    run = runs.test(dag, in_browser(act))
    assert run.states == {"publish": "success"}
    assert target.read_bytes() == staged.read_bytes()
    (request,) = runs.site.requests_of(run.run_id)
    assert (request.state, request.votes[0].voter, request.votes[0].channel) == (
        State.COMPLETED,
        "alice",
        Channel.PAGE,
    )


def test_the_inbox_and_the_tab_of_the_task_are_in_airflows_own_ui(runs: Runs, staged: Path) -> None:
    def act(page: Page, site: Site, request: ApprovalRequest) -> None:
        assert request.origin is not None
        page.goto(f"{site.base_url}/auth/login")
        log_in(page, "alice")
        page.get_by_role("link", name="Approvals").click()
        inbox = page.frame_locator("iframe[title=Approvals]")
        inbox.locator(f"#r-{request.id}").wait_for()

        origin = request.origin
        run_id = quote(origin.run_id, safe="")
        page.goto(f"{site.base_url}/dags/{origin.dag_id}/runs/{run_id}/tasks/{origin.task_id}")
        page.get_by_role("link", name="Approval", exact=True).click()
        tab = page.frame_locator("iframe[title=Approval]")
        tab.get_by_role("heading", level=1).wait_for()
        assert request.id[:8] in tab.locator("#summary").inner_text()
        tab.get_by_role("button", name="Approve").click()
        tab.get_by_text("Your approval is on the record.").wait_for()
        tab.get_by_role("link", name="tabbed / publish").click()
        page.wait_for_url(lambda address: "/approval" not in urlsplit(address).path)

    dag, target = export_dag("tabbed", staged)
    run = runs.test(dag, in_browser(act))
    assert run.states == {"publish": "success"}
    assert target.exists()
