from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from airflow_approvals.core.model import State
from tests.channels.site import ALICE, LOADED, SlackSite, code_in, eventually


@pytest.fixture
def browser(unlinked: SlackSite) -> Iterator[httpx.Client]:
    """A browser that alice is logged in with."""
    address, cookies = f"{unlinked.base_url}/approvals", {"_token": "login-alice"}
    with httpx.Client(base_url=address, cookies=cookies, timeout=LOADED) as found:
        yield found


def token_in(page: httpx.Response) -> str:
    found = re.search(r'name="token" value="([0-9a-f]+)"', page.text)
    assert found is not None
    return found.group(1)


def test_the_page_links_the_account_that_was_told_the_code(
    unlinked: SlackSite, browser: httpx.Client
) -> None:
    request = unlinked.open()
    message = unlinked.prompt(request)
    unlinked.slack.click(ALICE, message, "approvals.approve")
    view = json.dumps(eventually(lambda: unlinked.slack.views))
    assert f"{unlinked.base_url}/approvals/identity" in view
    code, token = code_in(view), token_in(browser.get("/identity"))

    asked = browser.post("/identity", data={"token": token, "code": code})
    assert ALICE in asked.text
    assert not unlinked.channels.identities.links_of(request.requesters[0])
    linked = browser.post("/identity", data={"token": token, "code": code, "confirm": "yes"})
    assert linked.status_code == 303
    assert ALICE in browser.get("/identity?done=linked").text

    unlinked.slack.click(ALICE, message, "approvals.approve")
    eventually(lambda: unlinked.store.get_request(request.id).state is State.APPROVED)
    account = {"provider": "slack", "team_id": "T0HOME", "user_id": ALICE}
    assert browser.post("/identity/unlink", data={"token": token, **account}).status_code == 303
    again = browser.post("/identity/unlink", data={"token": token, **account})
    assert again.status_code == 422
    assert "no such link of yours" in again.text


def test_a_wrong_code_and_a_form_of_another_site_link_nothing(
    unlinked: SlackSite, browser: httpx.Client
) -> None:
    token = token_in(browser.get("/identity"))
    wrong = browser.post("/identity", data={"token": token, "code": "AAAA-BBBB-CCCC", "confirm": "yes"})
    assert wrong.status_code == 422
    assert "not known" in wrong.text
    assert browser.post("/identity", data={"token": "0" * 64, "code": "x"}).status_code == 403
    foreign = {"Origin": "https://evil.example"}
    assert browser.post("/identity", data={"token": token, "code": "x"}, headers=foreign).status_code == 403
    refused = [entry for entry in unlinked.ledger() if entry["kind"] == "attempt.refused"]
    assert refused[0]["data"]["attempt"] == "link identity"
