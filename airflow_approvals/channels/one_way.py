"""Channels that only tell: nobody answers there, and what was sent stays as it was sent.

A message cannot be changed afterwards, so every further state of a request is told by a message of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.telling import Message, note_of, prompt_of, told_of
from airflow_approvals.core.model import ApprovalRequest, Person
from airflow_approvals.core.policy_channels import ChannelSettings
from airflow_approvals.service import Service
from airflow_approvals.service.emergency import GLASS_BROKEN

_TOLD = "told"


class Post(Protocol):
    """How one kind of channel is reached."""

    def __call__(self, settings: ChannelSettings, message: Message, *, now: datetime) -> None:
        """Send it, or raise `SendError` (or `ConfigurationError`, which a person has to mend)."""


class OneWaySender:
    """Sends what the outbox holds for one kind of channel that cannot be answered in."""

    def __init__(
        self,
        service: Service,
        post: Post,
        *,
        base_url: str,
        told: Callable[[ApprovalRequest], str] = told_of,
    ) -> None:
        self._service = service
        self._post = post
        self._base_url = base_url
        self._told = told  # what is new is told again

    def send_prompt(
        self,
        settings: ChannelSettings,
        request: ApprovalRequest,
        place: dict[str, str] | None,
        *,
        now: datetime,
    ) -> dict[str, str]:
        """Tell where the request stands, unless that was the last thing told here."""
        told = self._told(request)
        if place is None or place.get(_TOLD) != told:
            message = prompt_of(
                request,
                self._service.progress_of(request),
                link=self._link(request),
                is_first=place is None,
                now=now,
            )
            self._post(settings, message, now=now)
        return {_TOLD: told}

    def send_note(
        self,
        settings: ChannelSettings,
        request: ApprovalRequest,
        kind: str,
        question: int,
        place: dict[str, str],
        *,
        now: datetime,
    ) -> dict[str, str]:
        """Tell of a question, an answer, or that the request still waits."""
        if kind == GLASS_BROKEN:
            return place  # the request's new state is a message of its own here, and tells it
        message = note_of(
            kind,
            request,
            question,
            self._service.progress_of(request),
            members=members_of(self._service, request),
            link=self._link(request),
            now=now,
        )
        if message is None:
            raise SendError(f"question {question} is not there any more", refused=True)
        self._post(settings, message, now=now)
        return place

    def _link(self, request: ApprovalRequest) -> str:
        return f"{self._base_url}/approvals/requests/{request.id}"


def members_of(service: Service, request: ApprovalRequest) -> tuple[Person, ...]:
    """Return whom the request was escalated to, as far as the policy file names them."""
    group = service.policies.current().groups.get(request.escalated_to or "")
    return group.people if group else ()
