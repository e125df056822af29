"""Who gets in, which forms count, what other sites can do, and what text from outside turns into."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Column,
    Evidence,
    FileDigest,
    Snapshot,
    State,
)
from airflow_approvals.service import Opening
from airflow_approvals.web.pages.csrf import COOKIE
from airflow_approvals.web.pages.words import visible
from tests.web.pages import Browser, Page
from tests.web.site import LOADED, Site, an_opening

ID = "3f2b8f6e-1111-4222-8333-444455556666"
PATHS = ["/", f"/requests/{ID}", f"/requests/{ID}/receipt", "/task-instances/a/b/c/-1", "/static/app.css"]
WORDS = ("vote", "ask", "answer", "cancel", "revoke", "break-glass", "review", "standing", "send-again")
FORMS = [f"/requests/{ID}/{word}" for word in WORDS]


def opened(site: Site, opening: Opening) -> ApprovalRequest:
    ti_id = site.add_task(run_id=f"run_{opening.action.destination}"[:200])
    with site.worker(ti_id) as worker:
        request, _ = worker.open_request(opening)
    return request


@pytest.mark.parametrize("path", PATHS)
def test_a_page_without_a_login_leads_to_airflows_login_and_back(shared: Site, path: str) -> None:
    wanted = f"{shared.base_url}/approvals{path}?x=1%202"
    answer = httpx.get(wanted, headers={"Accept": "text/html"}, timeout=LOADED)
    assert answer.status_code == 303
    address = urlsplit(answer.headers["location"])
    assert (address.scheme, address.netloc, address.path) == ("", "", "/api/v2/auth/login")
    assert parse_qs(address.query)["next"] == [f"/approvals{path}?x=1%202"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [{}, {"Accept": "text/html", "HX-Request": "true"}])
def test_a_scripts_call_without_a_login_is_refused(shared: Site, path: str, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{shared.base_url}/approvals{path}", headers=headers, timeout=LOADED)
    assert (answer.status_code, answer.json()["type"]) == (401, "not-authenticated")


@pytest.mark.parametrize("path", FORMS)
def test_a_form_without_a_login_is_refused(shared: Site, path: str) -> None:
    answer = httpx.post(
        f"{shared.base_url}/approvals{path}", data={"a": "b"}, headers={"Accept": "text/html"}, timeout=LOADED
    )
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "so nothing was recorded" in answer.text


def test_a_worker_has_no_pages(shared: Site) -> None:
    from airflow_approvals.client.tokens import worker_tokens
    from tests.web.site import SECRET

    ti_id = shared.add_task()
    token = worker_tokens(ti_id, SECRET)()
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{shared.base_url}/approvals/", headers=headers, timeout=LOADED)
    assert answer.status_code == 401


FORGERIES = {
    "no token": ({"token": ""}, {}, True),
    "a made-up token": ({"token": "0" * 64}, {}, True),
    "a token that is no ASCII": ({"token": "ü" * 64}, {}, True),
    "from another site": ({}, {"Origin": "https://evil.example"}, True),
    "from nowhere": ({}, {"Origin": "null"}, True),
    "another site by fetch metadata": ({}, {"Sec-Fetch-Site": "cross-site"}, True),
    "a sibling site": ({}, {"Sec-Fetch-Site": "same-site"}, True),
    "without the browser's seed": ({}, {}, False),
}


@pytest.mark.parametrize(("fields", "headers", "seeded"), FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_form_changes_nothing(
    shared: Site, fields: dict[str, str], headers: dict[str, str], seeded: bool
) -> None:
    request = opened(shared, an_opening("forged"))
    with Browser(shared, "alice") as alice:
        form = alice.open(f"/requests/{request.id}").form("/vote")
        if not seeded:
            del alice.client.cookies[COOKIE]
        data = {**form.fields, "verdict": "approve", **fields}
        answer = alice.client.post(form.action, data=data, headers=headers)
    assert answer.status_code == 403
    assert shared.store.get_request(request.id).state is State.PENDING


def test_the_token_of_one_person_is_none_for_another(shared: Site) -> None:
    request = opened(shared, an_opening("borrowed"))
    with Browser(shared, "bob") as bob:
        form = bob.open(f"/requests/{request.id}").form("/vote")
        seed = bob.client.cookies[COOKIE]
    # Bob has put his own seed into alice's browser, and sends her his own form.
    cookies = f"_token=login-alice; {COOKIE}={seed}"
    data = {**form.fields, "verdict": "approve"}
    answer = httpx.post(
        f"{shared.base_url}{form.action}", data=data, headers={"Cookie": cookies}, timeout=LOADED
    )
    assert answer.status_code == 403
    assert shared.store.get_request(request.id).votes == ()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/json", 422),
        (b"token=%ff", "application/x-www-form-urlencoded", 422),
        (b"reason=%00", "application/x-www-form-urlencoded", 422),
        (b"\xff", "application/x-www-form-urlencoded", 422),
        (b"&".join(b"a%d=1" % index for index in range(40)), "application/x-www-form-urlencoded", 422),
        (b"a=" + b"b" * (1 << 20), "application/x-www-form-urlencoded", 413),
    ],
)
def test_what_is_no_form_is_refused(shared: Site, body: bytes, content_type: str, status: int) -> None:
    with Browser(shared, "alice") as alice:
        answer = alice.client.post(
            f"/approvals{FORMS[0]}", content=body, headers={"Content-Type": content_type}
        )
    assert answer.status_code == status


@pytest.mark.parametrize("fields", [{"verdict": "maybe"}, {"verdict": "approve", "revision": "one"}])
def test_a_form_with_odd_fields_is_refused(shared: Site, fields: dict[str, str]) -> None:
    request = opened(shared, an_opening("odd"))
    with Browser(shared, "alice") as alice:
        page = alice.send(alice.open(f"/requests/{request.id}").form("/vote"), **fields)
    assert (page.answer.status_code, "load the page again" in page.text) == (422, True)


@pytest.mark.parametrize("path", [*PATHS[:4], "/static/absent.js"])
def test_every_page_keeps_other_sites_and_caches_out(shared: Site, path: str) -> None:
    with Browser(shared, "root") as root:
        answer = root.open(path).answer
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_pages_need_nothing_inline_and_nothing_from_elsewhere(shared: Site) -> None:
    request = opened(shared, an_opening("inline"))
    with Browser(shared, "alice") as alice:
        for path in ("/", f"/requests/{request.id}"):
            for tag, attrs in alice.open(path).tags:
                assert "style" not in attrs
                assert not any(name.startswith(("on", "hx-on")) for name in attrs)
                assert tag != "script" or attrs["src"]
                for name in ("src", "href", "action"):
                    assert urlsplit(attrs.get(name) or "").netloc == ""


def test_the_seed_of_the_forms_is_kept_from_scripts_and_other_sites(shared: Site) -> None:
    request = opened(shared, an_opening("seed"))
    with Browser(shared, "alice") as alice:
        cookie = alice.open(f"/requests/{request.id}").answer.headers["set-cookie"]
    assert {"HttpOnly", "Path=/approvals", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}


NASTY = {
    "a script": "<script>alert(1)</script>",
    "an image": '"><img src=x onerror=alert(1)>',
    "a template": "{{1234567*7654321}} {% raw %} ${1234567*7654321} #{1234567*7654321}",
    "htmx": '<div hx-get="/evil" hx-trigger="load">',
    "a link": "javascript:alert(1)",
    "a long word": "x" * 2000,
    "emoji": "\N{PILE OF POO}\N{ZERO WIDTH JOINER}\N{FIRE}",
    "bidi controls": "txt.\u202egnp\u2066",
    "letters that are blank": "a\u3164b\u2800c",
    "right to left": "\u05e9\u05dc\u05d5\u05dd",
    "tags": "</title></textarea></main>",
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_text_from_outside_is_shown_and_never_obeyed(shared: Site, text: str) -> None:
    # Addresses with characters that cannot be seen are refused before anybody is asked.
    source = f"file:///staged/{text}" if text.isprintable() else "file:///staged/nasty.csv"
    snapshot = Snapshot(
        uri=source,
        format="csv",
        sha256="a" * 64,
        size=1,
        rows=1,
        columns=(Column(name=text, type=text),),
        schema_sha256="b" * 64,
        files=(FileDigest(name=text if text.isprintable() else "nasty.csv", sha256="a" * 64, size=1),),
    )
    report = {
        "dataset_sha256": "a" * 64,
        "scanned": True,
        text: text,
        "columns": [{"column": text, "scanned": 1, "entities": [{"entity_type": text, "cells": 1}]}],
    }
    opening = Opening(
        action=Action(
            kind="export",
            source=source,
            destination="file:///outbox/nasty.csv",
            parameters={text: [text]},
            justification=text,
        ),
        evidence=Evidence(datasets=(snapshot,), pii=report, links=(text, f"https://x.example/{text}")),
    )
    request = opened(shared, opening)
    with Browser(shared, "alice") as alice:
        alice.send(alice.open(f"/requests/{request.id}").form("/ask"), question=text)
        page = alice.open(f"/requests/{request.id}")
        inbox = alice.open(f"/?{httpx.QueryParams({'view': 'open', 'search': text[:200]})}")
    assert page.answer.status_code == 200
    for each in (page, inbox):
        assert_harmless(each)
    assert visible(text) in "".join(page.words)
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", page.answer.text)


def assert_harmless(page: Page) -> None:
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    assert all(str(attrs.get("src")).startswith("/approvals/static/") for attrs in scripts)
    assert not any(tag in ("img", "iframe", "object") for tag, _ in page.tags)
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        assert attrs.get("hx-get", "/approvals").startswith("/approvals")  # type: ignore[union-attr]
        assert not str(attrs.get("href", "")).lower().startswith("javascript:")
    assert str(1234567 * 7654321) not in page.text


def test_a_very_long_destination_breaks_nothing(shared: Site) -> None:
    long = "file:///outbox/" + "long-name/" * 400
    request = opened(shared, Opening(action=Action(kind="export", destination=long), evidence=Evidence()))
    with Browser(shared, "alice") as alice:
        assert long in alice.open(f"/requests/{request.id}").answer.text  # the whole of it, to decide on
        inbox = alice.open("/?view=open&search=long-name")
    assert request.id in inbox.answer.text
    assert long not in inbox.answer.text


ODD_REPORTS = {
    "a list of names": {"scanned": True, "columns": ["a"], "entities": {"PERSON": 3}},
    "columns of another shape": {"before": {"columns": [1, None, {"column": 5}]}, "after": "none"},
    "counts of another shape": {
        "before": {
            "columns": [{"column": "a", "scanned": -1, "entities": [{"entity_type": "X", "cells": "9"}]}]
        }
    },
    "more findings than cells": {
        "before": {"columns": [{"column": "a", "scanned": 1, "cells_with_findings": 10**12}]}
    },
    "nothing": {},
}


@pytest.mark.parametrize("report", ODD_REPORTS.values(), ids=ODD_REPORTS.keys())
def test_an_odd_pii_report_breaks_nothing(shared: Site, report: dict[str, object]) -> None:
    opening = an_opening(f"odd-{len(str(report))}")
    datasets = opening.evidence.datasets
    about = {"dataset_sha256": datasets[0].sha256, **report}
    request = opened(shared, Opening(action=opening.action, evidence=Evidence(datasets=datasets, pii=about)))
    with Browser(shared, "alice") as alice:
        page = alice.open(f"/requests/{request.id}")
    assert page.answer.status_code == 200
    assert "Masking verified" not in page.text
