"""Where a request was told, and what could not be told: a broken channel is seen here, not at the gate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_approvals.channels.outbox import Outbox
from airflow_approvals.core import progress
from airflow_approvals.core.delivery import PROMPT, Delivery
from airflow_approvals.core.errors import ApprovalsError, NotAllowedError
from airflow_approvals.core.model import ApprovalRequest, Person
from airflow_approvals.core.policy import ADMINS, PolicyFile
from airflow_approvals.ports import Store, Visibility
from airflow_approvals.web.deliveries import ChannelsBackend

MAX_LETTERS = 100
YOUNG = timedelta(days=7)
"""For how long the inbox speaks of what was given up."""

_NOT_TOLD = "not told: it was decided before"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Told:
    """One message to one channel, and how far it has come."""

    channel: str
    kind: str  # of the channel; empty when the policy file does not have it any more
    what: str
    standing: str
    tone: str  # plain, good, bad, warn
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class GivenUp:
    """What the inbox says of messages that were given up."""

    count: str
    channel: str
    problem: str
    request_id: str


def told_of(deliveries: Sequence[Delivery], policy_file: PolicyFile | None) -> tuple[Told, ...]:
    """Return one line for each message, in order; a note that was sent is told by its prompt's line."""
    channels = policy_file.channels if policy_file is not None else {}
    stands = {each.channel for each in deliveries if each.entry == PROMPT and each.place is not None}
    lines = []
    for each in deliveries:
        if each.entry != PROMPT and each.channel not in stands:
            continue  # it follows once the request itself is told there
        standing, tone = _standing(each)
        if each.entry != PROMPT and tone in ("good", "plain") and each.shown >= each.wanted:
            continue
        known = channels.get(each.channel)
        lines.append(
            Told(
                channel=each.channel,
                kind=known.kind if known else "",
                what="the request" if each.entry == PROMPT else f"ledger entry {each.entry}",
                standing=standing,
                tone=tone,
                at=each.next_try_at if tone == "good" else None,
            )
        )
    return tuple(lines)


def is_moving(lines: Sequence[Told]) -> bool:
    """Return whether something is about to be sent, so that this page will soon be out of date."""
    return any(line.tone in ("plain", "warn") and line.standing != _NOT_TOLD for line in lines)


def given_up(outbox: Outbox, store: Store, visible_to: Visibility | None, *, now: datetime) -> GivenUp | None:
    """Return what was given up of requests that somebody may see; None when that is nothing."""
    letters = outbox.dead_letters(limit=MAX_LETTERS, since=now - YOUNG)
    if visible_to is not None:
        seen = store.visible_among({each.request_id for each in letters}, visible_to)
        letters = [each for each in letters if each.request_id in seen]
    if not letters:
        return None
    more = "+" if len(letters) == MAX_LETTERS else ""
    noun = "message" if len(letters) == 1 else "messages"
    return GivenUp(
        count=f"{len(letters)}{more} {noun}",
        channel=letters[0].channel,
        problem=letters[0].problem,
        request_id=letters[0].request_id,
    )


def find_outbox(channels: ChannelsBackend | None) -> Outbox | None:
    """Return the outbox; None where there are no channels to be had: the pages work without."""
    if channels is None:
        return None
    try:
        return channels.channels.deliveries.outbox
    except ApprovalsError as trouble:
        log.warning("deliveries cannot be shown: %s", trouble)
        return None


def check_may_send_again(request: ApprovalRequest, person: Person, policy_file: PolicyFile) -> None:
    """Raise `NotAllowedError` unless `person` asks, is asked, or is an admin."""
    policy = policy_file.find_policy(request.policy)
    asked = policy is not None and bool(progress.approver_groups(policy_file, policy, person))
    if asked or person in request.requesters or ADMINS in progress.groups_of(policy_file, person):
        return
    raise NotAllowedError(f"{person} neither asks nor is asked here, so the messages are not sent again")


def _standing(delivery: Delivery) -> tuple[str, str]:
    if delivery.is_dead:
        return f"given up after {delivery.tries} tries: {delivery.problem}", "bad"
    if delivery.wanted > delivery.shown:
        if delivery.tries:
            return f"not told yet, tried {delivery.tries} times: {delivery.problem}", "warn"
        return "on its way", "plain"
    return ("told", "good") if delivery.place is not None else (_NOT_TOLD, "plain")
