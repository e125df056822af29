"""Who may say what a write did when its worker is gone: a later try of the same task, nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from airflow_approvals.core.errors import NotAllowedError, TaskInstanceRefusedError
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import ApprovalRequest, Channel, State, Verdict
from tests.web.site import Site, an_opening, utc_now


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The service and its store; nobody calls it over HTTP here."""
    found = Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    yield found
    found.store.close()


def redeemed_by(site: Site, ti_id: str) -> ApprovalRequest:
    opened = site.service.open_for_task(
        ti_id, an_opening(), request_id=f"r-{ti_id[:8]}", now=utc_now()
    ).request
    site.service.cast_vote(
        person_named("alice"),
        opened.id,
        Verdict.APPROVE,
        reason="",
        revision=1,
        channel=Channel.API,
        now=utc_now(),
    )
    return site.service.redeem(ti_id, opened.id, digest=opened.action_digest, now=utc_now())


def forget(site: Site, ti_id: str) -> None:
    """Do as Airflow does when a task is tried again: the row gets another id."""
    with site.store.engine.begin() as connection:
        connection.execute(text("DELETE FROM task_instance WHERE id=:id"), {"id": ti_id})


def report(site: Site, ti_id: str, request: ApprovalRequest) -> ApprovalRequest:
    digest = request.evidence.datasets[0].sha256
    return site.service.report_outcome(
        ti_id, request.id, published=True, digest=digest, detail="found", now=utc_now()
    )


@pytest.mark.parametrize("end", ["retried", "failed"])
def test_a_later_try_reports_for_one_that_is_gone(site: Site, end: str) -> None:
    first = site.add_task()
    request = redeemed_by(site, first)
    if end == "retried":
        forget(site, first)
    else:
        site.set_task_state(first, "failed")
    second = site.add_task()
    reported = report(site, second, request)
    assert reported.state is State.COMPLETED
    assert reported.redeemed_by == first
    assert report(site, second, request) == reported  # said again, nothing changes
    assert site.ledger()[-1]["actor"] == f"worker:{second}"


def test_nobody_reports_for_a_try_that_still_runs(site: Site) -> None:
    first = site.add_task()
    request = redeemed_by(site, first)
    with pytest.raises(NotAllowedError, match="did not redeem"):
        report(site, site.add_task(), request)
    assert site.service.store.get_request(request.id).state is State.REDEEMED


OTHERS: dict[str, dict[str, object]] = {
    "another task": {"task_id": "other"},
    "another run": {"run_id": "manual__2"},
    "another DAG": {"dag_id": "other"},
    "another index": {"map_index": 1},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_another_task_reports_nothing(site: Site, other: dict[str, object]) -> None:
    first = site.add_task()
    request = redeemed_by(site, first)
    forget(site, first)
    with pytest.raises(NotAllowedError, match="did not redeem"):
        report(site, site.add_task(**other), request)  # type: ignore[arg-type]  # one of its arguments


def test_a_later_try_that_does_not_run_reports_nothing(site: Site) -> None:
    first = site.add_task()
    request = redeemed_by(site, first)
    forget(site, first)
    with pytest.raises(TaskInstanceRefusedError):
        report(site, site.add_task(state="queued"), request)


def test_the_try_that_redeemed_is_found_at_it_again_whichever_try_had_opened(site: Site) -> None:
    """A rescheduled task asks anew within its try: its own redeemed request is no lost one."""
    first = site.add_task()
    opened = site.service.open_for_task(first, an_opening(), request_id="r1", now=utc_now()).request
    site.service.cast_vote(
        person_named("alice"),
        opened.id,
        Verdict.APPROVE,
        reason="",
        revision=1,
        channel=Channel.API,
        now=utc_now(),
    )
    forget(site, first)
    second = site.add_task()
    site.service.redeem(second, opened.id, digest=opened.action_digest, now=utc_now())
    later = utc_now() + timedelta(seconds=1)
    again = site.service.open_for_task(second, an_opening(), request_id="r2", now=later)
    assert (again.created, again.request.id, again.request.state) == (False, "r1", State.REDEEMED)
