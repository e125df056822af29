"""Which open requests wait for an answer of one person: the inbox, on the page and in a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from airflow_approvals.core.model import ApprovalRequest, Person, State
from airflow_approvals.core.policy import PolicyFile
from airflow_approvals.core.progress import approver_groups
from airflow_approvals.ports import RequestFilter, Store, Visibility

MAX_OPEN = 5000
"""Open requests that are looked through for one person's list; there is a filter for those who have more."""

_BATCH = 500


def waiting_for(
    store: Store, person: Person, policy_file: PolicyFile, asked: RequestFilter, *, now: datetime
) -> Sequence[ApprovalRequest]:
    """Return open requests that `person` may and did not yet vote on, those that run out first first.

    What `asked` says of states, pages and visibility is replaced; the rest of it narrows.
    """
    policies = {
        policy.name: policy for policy in policy_file.policies if approver_groups(policy_file, policy, person)
    }
    scope = Visibility(person=person, policies=tuple(policies), dag_ids=())
    asked = replace(asked, states=(State.PENDING,), visible_to=scope, limit=_BATCH)
    found: dict[str, ApprovalRequest] = {}  # a page overlaps the one before when somebody asks in between
    for offset in range(0, MAX_OPEN, _BATCH):
        page = store.list_requests(replace(asked, offset=offset)).requests
        found.update((request.id, request) for request in page)
        if len(page) < _BATCH:
            break
    return sorted(
        (
            request
            for request in found.values()
            if request.policy in policies
            and now < request.expires_at
            and all(vote.voter != person for vote in request.votes)
            and (person not in request.requesters or policies[request.policy].self_approval == "allowed")
        ),
        key=lambda request: request.expires_at,
    )
