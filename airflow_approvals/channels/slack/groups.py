"""Groups of the policy file whose members Slack knows: asked every few minutes, never while somebody waits.

Who is in a Slack user group counts once a logged-in person has linked the account. What was not heard from
Slack for too long is nobody: a group does not outlive its source.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.slack.identity import PROVIDER
from airflow_approvals.channels.slack.workspace import Workspaces
from airflow_approvals.core.errors import ApprovalsError, ConfigurationError
from airflow_approvals.core.model import Person
from airflow_approvals.core.policy import PolicyFile
from airflow_approvals.ports import PolicySource

ASKED_EVERY = timedelta(minutes=2)
"""Slack takes about 20 of these questions a minute. Somebody who left has lost their vote after that."""

AGAIN = timedelta(seconds=10)
"""After Slack did not answer."""

BELIEVED = timedelta(minutes=10)
"""For how long an answer counts while Slack gives no newer one."""

_PAUSE = 1.0  # seconds: a link that was made or ended counts from then on

log = logging.getLogger(__name__)


class Links(Protocol):
    """Whose the accounts are."""

    def find_people(self, provider: str, team_id: str, user_ids: Sequence[str]) -> Sequence[Person]: ...


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """What Slack said of one user group."""

    at: datetime
    team_id: str
    user_ids: tuple[str, ...]


class LinkedGroups:
    """The policy in force, with everybody in it whom Slack's user groups bring."""

    def __init__(
        self,
        source: PolicySource,
        links: Links,
        workspaces: Workspaces,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self.workspaces = workspaces
        self._source, self._links, self._clock = source, links, clock
        self._lock = threading.Lock()
        self._heard: dict[str, _Heard] = {}  # by user group
        self._next: dict[str, datetime] = {}  # when it is asked for again
        self._people: Mapping[str, Sequence[Person]] = {}  # by user group
        self._known_at: datetime | None = None
        self._filled: tuple[PolicyFile, PolicyFile] | None = None  # as read, and with its people

    def current(self) -> PolicyFile:
        """Return the newest valid policy file with its groups filled; raise `PolicyError` without one.

        It asks nobody: a vote calls this with its transaction open.
        """
        file = self._source.current()
        if not _usergroups(file):
            return file
        with self._lock:
            if self._known_at is None or abs(self._clock() - self._known_at) > BELIEVED:
                return file
            if self._filled is None or self._filled[0] is not file:
                self._filled = (file, file.with_linked(self._people))
            return self._filled[1]

    def problem(self) -> str | None:
        return self._source.problem()

    def refresh(self) -> None:
        """Ask Slack who is in each user group, where it is time to, and look up whose the accounts are."""
        file = self._source.current()
        usergroups, now = _usergroups(file), self._clock()
        for usergroup in usergroups:
            wait = self._next.get(usergroup, now) - now
            if timedelta(0) < wait <= ASKED_EVERY:  # a longer one: the clock was set back meanwhile
                continue
            heard = self._ask(file, usergroup, now)
            if heard is not None:
                self._heard[usergroup] = heard
            self._next[usergroup] = now + (AGAIN if heard is None else ASKED_EVERY)
        people = {
            usergroup: self._links.find_people(PROVIDER, heard.team_id, heard.user_ids)
            for usergroup in usergroups
            if (heard := self._heard.get(usergroup)) is not None and abs(now - heard.at) < BELIEVED
        }
        with self._lock:
            self._known_at = now
            if people != self._people:
                self._people, self._filled = people, None

    def _ask(self, file: PolicyFile, usergroup: str, now: datetime) -> _Heard | None:
        """Return what the first workspace says that knows the group."""
        named = {each.conn_id for each in file.channels.values() if each.kind == "slack"}
        for conn_id in sorted(filter(None, named)):
            try:
                workspace = self.workspaces.get(conn_id)
                members = workspace.group_members(usergroup, now=now)
                return _Heard(at=now, team_id=workspace.team_id(now=now), user_ids=tuple(sorted(members)))
            except (SendError, ConfigurationError) as trouble:
                log.warning("Slack user group %s: %s", usergroup, trouble)
        return None


async def keep_fresh(groups: Callable[[], LinkedGroups | None]) -> None:
    """Refresh for ever; `groups` is called in a thread, and may raise `ApprovalsError` while it cannot."""

    def refresh() -> None:
        found = groups()
        if found is not None:
            found.refresh()

    while True:
        try:
            await asyncio.to_thread(refresh)
        except ApprovalsError as trouble:
            log.warning("Slack user groups: %s", trouble)
            await asyncio.sleep(AGAIN.total_seconds())
        except Exception:
            # The loop must outlive a fault: without it nobody in these groups can vote. The log has it all.
            log.exception("Slack user groups were not refreshed")
            await asyncio.sleep(AGAIN.total_seconds())
        await asyncio.sleep(_PAUSE)


def _usergroups(file: PolicyFile) -> tuple[str, ...]:
    return tuple(sorted({group.slack_usergroup for group in file.groups.values() if group.slack_usergroup}))
