"""What stands for later runs: what a standing approval has let out and what ends it, seen from both sides."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_approvals.core.model import ApprovalRequest, State
from airflow_approvals.core.policy import PolicyFile
from airflow_approvals.ports import Page, RequestFilter, Store, Visibility

MAX_RUNS = 10
"""Runs that one page names; it counts all of them."""

_NONE = Page(requests=(), total=0)


@dataclass(frozen=True, kw_only=True)
class Standings:
    """The runs that this standing approval has let out, or the approvals that stand for this run's gate."""

    watched: tuple[str, ...]  # what ends it, as the policy in force has it
    runs: Page
    ended_by: ApprovalRequest | None  # the run that has drifted from it
    in_force: tuple[ApprovalRequest, ...]


def standings_of(
    store: Store, request: ApprovalRequest, policy_file: PolicyFile | None, *, visible_to: Visibility | None
) -> Standings:
    """Return what stands around `request`, as far as it may be seen."""
    policy = policy_file.find_policy(request.policy) if policy_file is not None else None
    watched = policy.standing.void_on if policy is not None and policy.standing is not None else ()
    if request.standing is None:
        in_force = _in_force(store, request, visible_to) if policy is None or policy.standing else ()
        return Standings(watched=watched, runs=_NONE, ended_by=None, in_force=in_force)
    terms = request.standing
    of_its_task = RequestFilter(
        dag_id=terms.dag_id, task_id=terms.task_id, visible_to=visible_to, limit=MAX_RUNS
    )
    runs = store.list_requests(replace(of_its_task, granted_by=request.id))
    is_ended = request.state is State.REVOKED
    drifted = store.list_requests(replace(of_its_task, voided=request.id)).requests if is_ended else ()
    return Standings(watched=watched, runs=runs, ended_by=next(iter(drifted), None), in_force=())


def _in_force(
    store: Store, run: ApprovalRequest, visible_to: Visibility | None
) -> tuple[ApprovalRequest, ...]:
    if run.origin is None:
        return ()
    wanted = RequestFilter(
        states=(State.PENDING, State.APPROVED),
        dag_id=run.origin.dag_id,
        task_id=run.origin.task_id,
        is_standing=True,
        visible_to=visible_to,
        limit=MAX_RUNS,
    )
    return tuple(each for each in store.list_requests(wanted).requests if each.gate == run.gate)
