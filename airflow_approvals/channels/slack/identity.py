"""Which person a Slack account is: an explicit link, and an account that Slack vouches for at this moment."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from airflow_approvals.channels.slack.interactive import SlackUser
from airflow_approvals.channels.slack.workspace import Workspace
from airflow_approvals.core.delivery import IdentityLink, LinkCode
from airflow_approvals.core.errors import NotAllowedError, NotAuthenticatedError
from airflow_approvals.core.identity import person_logged_in_as
from airflow_approvals.core.model import Person
from airflow_approvals.core.policy import Policy

PROVIDER = "slack"
CODE_LIFE = timedelta(minutes=10)
_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # none that is taken for another
_LENGTH = 12


class Identities(Protocol):
    """Where links and codes are kept."""

    def find_person(self, provider: str, team_id: str, user_id: str) -> Person | None: ...

    def save_code(self, code: str, told: LinkCode) -> None: ...

    def find_code(self, code: str, *, now: datetime) -> LinkCode: ...

    def link(self, code: str, person: Person, *, now: datetime) -> IdentityLink: ...

    def unlink(
        self, provider: str, team_id: str, user_id: str, *, of: Person | None, actor: Person, now: datetime
    ) -> None: ...

    def links_of(self, person: Person) -> Sequence[IdentityLink]: ...


class NotLinkedError(NotAuthenticatedError):
    """Nobody has said yet whose Slack account this is."""

    type = "not-linked"


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whose Slack account acts, and how that is known."""

    person: Person
    who: SlackUser
    by: Literal["link", "email"]

    def may_answer_under(self, policy: Policy) -> bool:
        return self.by == "link" or policy.slack_identity == "link_or_email"

    def facts(self) -> dict[str, str]:
        """Return what the ledger keeps of it beside a vote."""
        return {"provider": PROVIDER, "team_id": self.who.team_id, "user_id": self.who.user_id, "by": self.by}


def account_of(
    identities: Identities, who: SlackUser, workspace: Workspace, *, by_email: bool, now: datetime
) -> Account:
    """Return the person behind a Slack account, or raise.

    (1) it is of the workspace that the app is installed in, (2) Slack says now that it is a full, active
    member with a confirmed e-mail address and no bot, (3) a logged-in person has linked it, or else, where
    the policy says `by_email`, (4) its confirmed address is the name of an Airflow user. Other names count
    for nothing.
    """
    home = workspace.team_id(now=now)
    if who.team_id != home:  # (1) shared channels bring people of other companies
        raise NotAllowedError("your Slack account is of another workspace; answer on the page instead")
    member = workspace.member(who.user_id, now=now)  # (2)
    for refused, why in (
        (member.team_id != home or member.is_stranger, "is of another workspace"),
        (member.is_deleted, "is deactivated"),
        (member.is_bot, "is a bot"),
        (member.is_guest, "is a guest"),
        (not member.is_confirmed, "has no confirmed e-mail address"),
    ):
        if refused:
            raise NotAllowedError(f"your Slack account {why}; answer on the page instead")
    person = identities.find_person(PROVIDER, who.team_id, who.user_id)  # (3)
    if person is not None:
        return Account(person=person, who=who, by="link")
    if by_email and member.email is not None:  # (4)
        return Account(person=person_logged_in_as(member.email), who=who, by="email")
    raise NotLinkedError("your Slack account is not linked to an Airflow login yet; press a button again")


def new_code(
    identities: Identities, who: SlackUser, *, now: datetime, choose: Callable[[str], str] = secrets.choice
) -> str:
    """Return a code that links this account once, within `CODE_LIFE`, when a logged-in person repeats it.

    The code goes to the Slack account, and the login repeats it, not the other way round: so it is the login,
    which has the votes to give, that says yes, and sees to whom.
    """
    letters = "".join(choose(_ALPHABET) for _ in range(_LENGTH))
    code = "-".join(letters[start : start + 4] for start in range(0, _LENGTH, 4))
    told = LinkCode(provider=PROVIDER, team_id=who.team_id, user_id=who.user_id, expires_at=now + CODE_LIFE)
    identities.save_code(code, told)
    return code
