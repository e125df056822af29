"""The app's Home tab: what waits for one person's answer, with the buttons of the prompts.

It is no copy of a prompt: Slack asks for it anew whenever somebody opens it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from airflow_approvals.channels.slack import blocks
from airflow_approvals.channels.slack.blocks import Json
from airflow_approvals.channels.slack.identity import Account
from airflow_approvals.channels.slack.message import Standing, answer_blocks, summary_rows, title_of
from airflow_approvals.channels.slack.send import standing_of
from airflow_approvals.channels.text import counted
from airflow_approvals.channels.waiting import waiting_for
from airflow_approvals.core.model import ApprovalRequest
from airflow_approvals.ports import RequestFilter
from airflow_approvals.service import Service

MAX_SHOWN = 12
"""Requests on the tab: Slack takes 100 blocks, and one of ours has at most seven."""


def home_of(service: Service, account: Account, *, base_url: str, now: datetime) -> Json:
    """Return the tab of `account`'s person; requests that this account may not answer are left out."""
    policy_file = service.policies.current()
    open_to = {policy.name for policy in policy_file.policies if account.may_answer_under(policy)}
    found = [
        request
        for request in waiting_for(service.store, account.person, policy_file, RequestFilter(), now=now)
        if request.policy in open_to
    ]
    shown = [(request, standing_of(service, request, base_url)) for request in found[:MAX_SHOWN]]
    return tab_of(shown, total=len(found), base_url=base_url)


def tab_of(shown: Sequence[tuple[ApprovalRequest, Standing]], *, total: int, base_url: str) -> Json:
    """Return the tab with these requests, out of `total`."""
    title = f"{counted(total, 'request')} wait{'s' if total == 1 else ''} for your answer"
    parts = [blocks.header(title if total else "Nothing waits for you")]
    for number, (request, standing) in enumerate(shown):
        parts += _entry(request, standing, number)
    link = blocks.link(f"{base_url}/approvals/", "All requests in Airflow")
    parts.append(blocks.rich_text([link], "inbox"))
    return {"type": "home", "blocks": parts}


def _entry(request: ApprovalRequest, standing: Standing, number: int) -> list[Json]:
    rows = [*summary_rows(request), ("Expires", blocks.moment(request.expires_at))]
    if standing.progress is not None:
        rows.append(("Approvals", standing.progress.missing))
    return [
        {"type": "divider"},
        blocks.header(title_of(request)),
        *blocks.facts(rows, block_id=f"facts-{number}"),
        *answer_blocks(request, standing, suffix=f"-{number}"),
        blocks.rich_text([blocks.link(standing.link, "Open in Airflow")], f"page-{number}"),
    ]
