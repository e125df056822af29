"""What an approver is shown beside the facts: what has changed, and the personal data before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.channels.changes import changes_of, find_prior
from airflow_approvals.channels.pii_chart import chart_of
from airflow_approvals.core.model import ApprovalRequest, Evidence
from airflow_approvals.pii.verify_report import Found, Leak, VerifyReport
from tests.browser.gallery import COLUMNS, Gallery, approve, ask, hang, pii_report
from tests.web.pages import Browser
from tests.web.site import mounted, serving, utc_now


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return hang(tmp_path_factory.mktemp("gallery"))


def told(prior: ApprovalRequest, request: ApprovalRequest) -> dict[str, tuple[str, str]]:
    return {each.what: (each.was, each.now) for each in changes_of(prior, request).differences}


def test_every_difference_to_the_last_approval_is_told(gallery: Gallery) -> None:
    prior = find_prior(gallery.site.store, gallery.pending, None)
    assert prior is not None
    assert prior.id == gallery.completed.id
    assert told(prior, gallery.pending) == {
        "Rows": ("4,984", "5,210 (+226, +4.5%)"),
        "Column added": ("none", "notes (string)"),
        "Type of column lifetime_value": ("int64", "double"),
    }
    assert told(gallery.pending, prior)["Column removed"] == ("notes (string)", "none")
    elsewhere = replace(gallery.pending.action, destination="s3://partner-acme/other.parquet")
    moved = replace(gallery.pending, action=elsewhere, policy_digest="f" * 64)
    assert told(gallery.pending, moved) == {
        "Destination": ("s3://partner-acme/inbox/customers.parquet", "s3://partner-acme/other.parquet"),
        "Policy rule": (gallery.pending.policy_digest[:12], "f" * 12),
    }


def test_other_parameters_are_told_and_of_a_gated_task_each_of_its_fields(gallery: Gallery) -> None:
    def doing(parameters: dict[str, Any]) -> ApprovalRequest:
        return replace(gallery.pending, action=replace(gallery.pending.action, parameters=parameters))

    def running(sql: str) -> dict[str, Any]:
        bound = {"sql": sha256(sql.encode()).hexdigest()}
        shown = {"sql": sql}
        return {"operator": "vendor.Sql", "fields": bound, "arguments": {}, "shown": shown}

    assert told(gallery.pending, doing({"overwrite": True})) == {"Parameter overwrite": ("none", "true")}
    old, new = doing({"task": running("DELETE 1")}), doing({"task": running("DELETE 2")})
    assert told(old, new) == {"Its sql": ("DELETE 1", "DELETE 2")}
    unknown = {**running("DELETE 1"), "more": "than is known"}
    assert told(old, doing({"task": unknown})).keys() == {"Parameter task"}


def test_another_mix_of_personal_data_is_told(gallery: Gallery) -> None:
    report = pii_report(5210)
    left = {"entity_type": "EMAIL_ADDRESS", "cells": 7}
    report["after"]["columns"][2].update(cells_with_findings=7, entities=[left])
    leaking = with_pii(gallery.pending, report)
    assert told(gallery.pending, leaking) == {"PII EMAIL_ADDRESS": ("0 cells", "7 cells")}
    by_rules, by_others = (
        with_pii(gallery.pending, {**pii_report(5210), "rules_digest": digit * 64}) for digit in "12"
    )
    assert told(by_rules, by_others) == {"Masking rules": ("1" * 12, "2" * 12)}
    assert told(gallery.pending, with_pii(gallery.pending, None)) == {
        "PII scan": ("0 cells with findings", "not scanned")
    }
    assert told(gallery.pending, gallery.pending) == {}


def with_pii(request: ApprovalRequest, pii: dict[str, Any] | None) -> ApprovalRequest:
    return replace(request, evidence=Evidence(datasets=request.evidence.datasets, pii=pii))


def test_only_earlier_approvals_of_the_same_task_are_compared_with(gallery: Gallery) -> None:
    site, now = gallery.site, utc_now()
    store = site.store
    assert find_prior(store, gallery.completed, None) is None
    first = ask(site, name="feed", rows=5, dag_id="feeds", at=now - timedelta(minutes=9))
    approve(site, first, "alice", at=now - timedelta(minutes=8))
    other = ask(site, name="else", rows=5, dag_id="feeds", at=now - timedelta(minutes=7))
    approve(site, other, "alice", at=now - timedelta(minutes=6))
    again = ask(site, name="feed", rows=6, dag_id="feeds", at=now)
    found = find_prior(store, again, None)
    assert found is not None
    assert found.id == first.id  # the same destination, although the other one is newer
    third = ask(site, name="third", rows=6, dag_id="feeds", at=now)
    found = find_prior(store, third, None)
    assert found is not None
    assert found.id == other.id


def test_a_retry_is_held_against_the_try_that_was_approved_and_failed(tmp_path: Path) -> None:
    site, at = hang(tmp_path).site, utc_now() - timedelta(minutes=9)
    first = approve(site, ask(site, name="retried", rows=5, dag_id="retried", at=at), "alice", at=at)
    ti_id = first.origin.ti_id if first.origin else ""
    site.service.redeem(ti_id, first.id, digest=first.action_digest, now=at)
    site.service.report_outcome(
        ti_id, first.id, published=False, digest=None, detail="the bucket is gone", now=at
    )
    again = ask(site, name="retried", rows=5, dag_id="retried")
    with serving(mounted(site.app), site.port), Browser(site, "alice") as alice:
        assert "Not published the bucket is gone" in alice.open(f"/requests/{first.id}").text
        text = alice.open(f"/requests/{again.id}").text
    site.store.close()
    assert f"Compared with request {first.id[:8]} , approved by alice" in text
    assert "Its task then failed: the bucket is gone" in text
    assert "Same source, destination, parameters, number of rows, columns, PII and policy." in text


def test_the_chart_has_every_column_with_findings_before_and_after() -> None:
    chart = chart_of(pii_report(5210))
    assert chart is not None
    assert [column.name for column in chart.columns] == ["full_name", "email", "phone", "city", "notes"]
    assert (chart.clean, chart.verified, chart.residual) == (len(COLUMNS) - 5, True, 0)
    email = chart.columns[1]
    assert email.before is not None
    assert email.after is not None
    assert (email.before.percent, email.after.percent) == ("99.5 %", "0.0 %")
    assert chart.entities == ("EMAIL_ADDRESS", "LOCATION", "PERSON", "PHONE_NUMBER")


def test_a_single_report_is_the_scan_before_masking() -> None:
    chart = chart_of({**pii_report(5210)["before"], "scanned": True})
    assert chart is not None
    assert (chart.has_before, chart.has_after, chart.verified) == (True, False, False)


@pytest.mark.parametrize("pii", [None, {}, {"scanned": False}, {"columns": "email"}])
def test_what_was_not_scanned_has_no_chart(pii: dict[str, Any] | None) -> None:
    assert chart_of(pii) is None


def left_by_the_plan(report: dict[str, Any]) -> None:
    for column in report["before"]["columns"]:
        if column["column"] in ("full_name", "phone"):
            report["after"]["columns"] = [*report["after"]["columns"], column]


WORDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "verified": (lambda report: None, "Nothing that was found is left."),
    "left by the plan": (left_by_the_plan, "The plan leaves alone what was found in full_name and phone"),
    "not said": (lambda report: report.pop("verified"), "does not say that the masking"),
    "failed": (lambda report: report.update(verified=False), "Not verified"),
    "not scanned before": (lambda report: report.update(scanned=False), "does not say that the masking"),
    "something left": (lambda report: report.update(residual=3), "3 findings left"),
    "a promise broken": (lambda report: report.update(broken=["rows differ"]), "Masking broken"),
    "not masked": (lambda report: (report.pop("after"), report.pop("verified")), "Not masked"),
    "nothing": (lambda report: report.clear(), "Not scanned."),
}


@pytest.mark.parametrize(("change", "words"), WORDS.values(), ids=WORDS.keys())
def test_the_page_says_what_the_scans_prove_and_no_more(tmp_path: Path, change: Any, words: str) -> None:
    gallery = hang(tmp_path)
    report = pii_report(20)
    change(report)
    request = ask(gallery.site, name="told", rows=20, dag_id="told", pii=report)
    with serving(mounted(gallery.site.app), gallery.site.port), Browser(gallery.site, "alice") as alice:
        text = alice.open(f"/requests/{request.id}").text
    gallery.site.store.close()
    assert {each for _, each in WORDS.values() if each in text} == {words}


def test_a_verification_without_its_scans_is_told_without_a_chart() -> None:
    leak = Leak(column="email", entity_type="EMAIL_ADDRESS", found=Found.SURVIVES, count=2, rows=(0, 4))
    clean = VerifyReport(
        scanned=True,
        verified=True,
        residual=0,
        entities={},
        columns=(),
        leaks=(),
        broken=(),
        rows=10,
        values_searched=9,
        values_too_short=0,
        rules_digest="d" * 64,
    )
    chart = chart_of(clean.to_evidence())
    assert chart is not None
    assert (chart.verified, chart.residual, chart.has_before, chart.has_after) == (True, 0, False, False)
    leaking = replace(clean, verified=False, residual=2, columns=("email",), leaks=(leak,))
    chart = chart_of(leaking.to_evidence())
    assert chart is not None
    assert (chart.verified, chart.leaks[0].column, chart.leaks[0].count) == (False, "email", 2)
