"""Who calls: a person with an Airflow login, or a worker with a token of its own; and what each may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request

from airflow_approvals.core import progress
from airflow_approvals.core.errors import (
    NotAllowedError,
    PolicyError,
    RequestNotFoundError,
    TaskInstanceRefusedError,
)
from airflow_approvals.core.model import ApprovalRequest, Person
from airflow_approvals.core.policy import ADMINS, PolicyFile
from airflow_approvals.core.worker_token import WorkerClaims
from airflow_approvals.ports import Visibility

AUDITORS = "auditors"
"""The group whose members, beside the admins, may see every request and export the ledger."""


@dataclass(frozen=True, kw_only=True)
class User:
    """A logged-in person, and the auth manager's own object for them."""

    person: Person
    airflow_user: Any


Caller = User | WorkerClaims


class Users(Protocol):
    """Airflow's logins."""

    async def user_of(self, request: Request) -> User:
        """Return who is logged in by token or cookie; raise `NotAuthenticatedError` when nobody is."""

    def may_read_dag(self, user: User, dag_id: str) -> bool: ...

    def readable_dags(self, user: User) -> Sequence[str]: ...


def the_user(caller: Caller) -> User:
    """Return the person who calls, or raise: a worker can never answer, ask, take back or look around."""
    if isinstance(caller, User):
        return caller
    raise NotAllowedError(
        f"{actor_of(caller)} may not do this: a person must, with a login of their own; workers never vote"
    )


def the_task(caller: Caller, ti_id: str | None) -> str:
    """Return the task instance that calls; `ti_id` is what the body says, and must be the token's own."""
    if not isinstance(caller, WorkerClaims) or caller.scope != "worker":
        raise NotAllowedError(
            f"{actor_of(caller)} may not do this: only a running task may, with its own worker token"
        )
    if ti_id is not None and ti_id != caller.subject:
        raise TaskInstanceRefusedError(
            f"the worker token is of task instance {caller.subject}, and cannot speak for another one"
        )
    return caller.subject


def actor_of(caller: Caller) -> str:
    """Return how the caller is named in the ledger."""
    return caller.person if isinstance(caller, User) else f"worker:{caller.subject}"


def sees_all(caller: Caller, policy_file: PolicyFile | None) -> bool:
    """Return whether the caller may see every request: workers, admins, auditors."""
    if isinstance(caller, WorkerClaims):
        return True
    return policy_file is not None and is_auditor(caller, policy_file)


def is_auditor(user: User, policy_file: PolicyFile) -> bool:
    """Return whether the user may read the whole record."""
    return bool({ADMINS, AUDITORS} & set(progress.groups_of(policy_file, user.person)))


def check_auditor(user: User, policy_file: PolicyFile) -> None:
    """Raise `NotAllowedError` unless the user may read the whole record."""
    if not is_auditor(user, policy_file):
        raise NotAllowedError(
            f"{user.person} may not export the ledger: only members of the groups {ADMINS} and {AUDITORS} may"
        )


def check_may_see(
    users: Users, caller: Caller, request: ApprovalRequest, policy_file: PolicyFile | None
) -> None:
    """Raise `RequestNotFoundError` unless the caller may see `request`: what is hidden does not exist."""
    if sees_all(caller, policy_file) or not isinstance(caller, User):
        return
    if caller.person in request.requesters or request.policy in _policies_of(caller.person, policy_file):
        return
    if request.origin is not None and users.may_read_dag(caller, request.origin.dag_id):
        return
    raise RequestNotFoundError("there is no such request; check its id, or list the requests")


def visibility_of(users: Users, caller: Caller, policy_file: PolicyFile | None) -> Visibility | None:
    """Return what to list for the caller; None for everything."""
    if sees_all(caller, policy_file) or not isinstance(caller, User):
        return None
    return Visibility(
        person=caller.person,
        policies=_policies_of(caller.person, policy_file),
        dag_ids=tuple(users.readable_dags(caller)),
    )


def policy_file_or_none(source: Any) -> PolicyFile | None:
    """Return the policy file in force; None while there is none: reading the record must not need one."""
    try:
        current: PolicyFile = source.current()
    except PolicyError:
        return None
    return current


def _policies_of(person: Person, policy_file: PolicyFile | None) -> tuple[str, ...]:
    if policy_file is None:
        return ()
    return tuple(
        policy.name
        for policy in policy_file.policies
        if progress.approver_groups(policy_file, policy, person)
        or (policy.break_glass and policy.break_glass.group in progress.groups_of(policy_file, person))
    )
