from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.core.policy import Policy, parse_policy_file
from airflow_approvals.core.reminders import Notice, scheduled, told
from tests.store.samples import NOON, a_request

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def a_policy(*lines: str) -> Policy:
    text = "".join(f"    {line}\n" for line in lines)
    return parse_policy_file(
        "version: 1\ngroups:\n  g: {users: [alice]}\n  h: {users: [carol]}\n  i: {users: [dave]}\npolicies:\n"
        f"  - name: p\n    match: {{action: [export]}}\n    require: [{{group: g}}]\n{text}",
        name="policy.yaml",
    ).policies[0]


def opened(policy: Policy, *, open_for: timedelta = 4 * HOUR) -> ApprovalRequest:
    return scheduled(replace(a_request(), opened_at=NOON, expires_at=NOON + open_for), policy)


def story(
    policy: Policy, *, step: timedelta = MINUTE, open_for: timedelta = 4 * HOUR
) -> list[tuple[int, str]]:
    """Return minute and notice of everything that is told while nobody answers."""
    request, found = opened(policy, open_for=open_for), []
    now = NOON
    while now < request.expires_at:
        if request.next_notice_at is not None and now >= request.next_notice_at:
            request, notice = told(request, policy, now=now)
            if notice is not None:
                found.append((int((now - NOON) / MINUTE), notice.value.partition(".")[2]))
        now += step
    return found


STORIES = {
    "nothing": ((), []),
    "every hour": (("remind_every: 1h",), [(60, "reminded"), (120, "reminded"), (180, "reminded")]),
    "once escalated": (("escalate: {after: 2h, to: h}",), [(120, "escalated")]),
    "an escalation stands for the reminder of its moment": (
        ("remind_every: 1h", "escalate: {after: 2h, to: h}"),
        [(60, "reminded"), (120, "escalated"), (180, "reminded")],
    ),
    "an escalation between two reminders": (
        ("remind_every: 1h", "escalate: {after: 90m, to: h}"),
        [(60, "reminded"), (90, "escalated"), (120, "reminded"), (180, "reminded")],
    ),
    "never once it has run out": (("remind_every: 5h", "escalate: {after: 4h, to: h}"), []),
}


@pytest.mark.parametrize(("lines", "expected"), STORIES.values(), ids=STORIES.keys())
def test_who_waits_is_told_again_at_the_moments_of_the_policy(
    lines: tuple[str, ...], expected: list[tuple[int, str]]
) -> None:
    assert story(a_policy(*lines)) == expected


def test_reminders_that_nobody_could_send_are_told_as_one() -> None:
    found = story(a_policy("remind_every: 10m"), step=95 * MINUTE)
    assert found == [(95, "reminded"), (190, "reminded")]


def test_the_next_one_keeps_to_the_clock_of_the_opening() -> None:
    policy = a_policy("remind_every: 1h")
    late, notice = told(opened(policy), policy, now=NOON + 61 * MINUTE)
    assert notice is Notice.REMINDED
    assert late.next_notice_at == NOON + 2 * HOUR


def test_looking_too_early_tells_nothing() -> None:
    policy = a_policy("remind_every: 1h", "escalate: {after: 2h, to: h}")
    request = opened(policy)
    assert told(request, policy, now=NOON + 59 * MINUTE) == (request, None)


def test_a_policy_that_escalates_to_others_escalates_again() -> None:
    policy = a_policy("escalate: {after: 1h, to: h}")
    request, _ = told(opened(policy), policy, now=NOON + HOUR)
    assert (request.escalated_to, request.next_notice_at) == ("h", None)
    other = a_policy("escalate: {after: 2h, to: i}")
    request = scheduled(request, other)
    assert request.next_notice_at == NOON + 2 * HOUR
    request, notice = told(request, other, now=NOON + 2 * HOUR)
    assert (notice, request.escalated_to) == (Notice.ESCALATED, "i")


@pytest.mark.parametrize("state", [state for state in State if state is not State.PENDING])
def test_what_is_not_open_is_never_due(state: State) -> None:
    policy = a_policy("remind_every: 1h")
    assert scheduled(replace(opened(policy), state=state), policy).next_notice_at is None
