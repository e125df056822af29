"""Prompts and notes on their way: planned from the ledger, sent by whoever can, tried again where it failed.

A channel that is down delays nothing but its own messages: the gate knows nothing of all this.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from airflow_approvals.core.break_glass import is_emergency
from airflow_approvals.core.delivery import PROMPT, Delivery, Telling
from airflow_approvals.core.errors import ApprovalsError, PolicyError, RequestNotFoundError
from airflow_approvals.core.model import ApprovalRequest, Entry, State
from airflow_approvals.core.policy import PolicyFile
from airflow_approvals.core.policy_channels import ChannelSettings
from airflow_approvals.core.reminders import Notice
from airflow_approvals.service import Service
from airflow_approvals.service.emergency import GLASS_BROKEN, GLASS_REVIEWED

_OPENING = frozenset({"request.opened", "request.rebound"})
_NOTED = frozenset({"question.asked", "answer.given", GLASS_BROKEN, *Notice})
_CHANGING = frozenset({"vote.cast", "receipt.redeemed", "outcome.reported", GLASS_REVIEWED})

log = logging.getLogger(__name__)


class SendError(ApprovalsError):
    """The other side did not take the message."""

    type = "send-failed"

    def __init__(
        self,
        message: str,
        *,
        refused: bool = False,
        retry_at: datetime | None = None,
        is_gone: bool = False,
    ) -> None:
        super().__init__(message)
        self.refused = refused  # it answered, and said no
        self.retry_at = retry_at  # it asked to be left alone until then
        self.is_gone = is_gone  # the message to change is not there any more


class Sender(Protocol):
    """One kind of channel."""

    def send_prompt(
        self,
        settings: ChannelSettings,
        request: ApprovalRequest,
        place: dict[str, str] | None,
        *,
        now: datetime,
    ) -> dict[str, str]:
        """Post the prompt, or change the one at `place`; return where it stands, or raise `SendError`."""

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
        """Tell below the prompt at `place`: of a question or its answer, or of what has no number (0)."""


class Outbox(Protocol):
    """Where deliveries are kept."""

    def plan(self, plan: Callable[[Entry], Telling | None], *, now: datetime) -> int: ...

    def claim(self, *, now: datetime, lease: str, request_id: str | None = None) -> Delivery | None: ...

    def done(
        self, delivery: Delivery, *, lease: str, place: dict[str, str] | None, now: datetime
    ) -> None: ...

    def failed(
        self,
        delivery: Delivery,
        *,
        lease: str,
        problem: str,
        refused: bool,
        now: datetime,
        forget: bool = False,
    ) -> None: ...

    def hold(self, delivery: Delivery, *, lease: str, until: datetime) -> None: ...

    def want_again(self, request_id: str, *, now: datetime) -> None: ...

    def deliveries_of(self, request_id: str) -> Sequence[Delivery]: ...

    def revive(self, request_id: str, *, now: datetime) -> int: ...

    def dead_letters(self, *, limit: int = 100, since: datetime | None = None) -> Sequence[Delivery]: ...

    def next_due(self) -> datetime | None: ...

    def is_first_use(self, digest: str, *, now: datetime, within: timedelta = timedelta(0)) -> bool: ...


class Deliveries:
    """Moves messages from the outbox to where they belong."""

    def __init__(self, service: Service, outbox: Outbox, senders: Mapping[str, Sender]) -> None:
        self._service = service
        self._senders = senders  # by `kind` of the policy file's channels
        self.outbox = outbox

    def plan(self, *, now: datetime) -> int:
        """Read what is new in the ledger; return how many entries that were."""
        policy_file = self._service.policies.current()
        return self.outbox.plan(lambda entry: self._telling(entry, policy_file), now=now)

    def deliver_one(self, *, now: datetime, lease: str, request_id: str | None = None) -> bool:
        """Send what is due next; return whether there was anything. `lease` is new with every call."""
        began = time.monotonic()

        def since() -> timedelta:
            return timedelta(seconds=time.monotonic() - began)

        delivery = self.outbox.claim(now=now, lease=lease, request_id=request_id)
        if delivery is None:
            return False
        try:
            place = self._send(delivery, now=now)
        except SendError as trouble:
            log.warning("request %s to channel %s: %s", delivery.request_id, delivery.channel, trouble)
            if trouble.retry_at is not None:
                self.outbox.hold(delivery, lease=lease, until=trouble.retry_at + since())
                return True
            self.outbox.failed(
                delivery,
                lease=lease,
                problem=str(trouble),
                refused=trouble.refused,
                forget=trouble.is_gone,
                now=now + since(),
            )
        except ApprovalsError as trouble:
            log.warning("request %s to channel %s: %s", delivery.request_id, delivery.channel, trouble)
            self.outbox.failed(delivery, lease=lease, problem=str(trouble), refused=False, now=now + since())
        except Exception as fault:
            # A fault of ours in one message must not stop the others; the traceback is in the log.
            log.exception("request %s to channel %s", delivery.request_id, delivery.channel)
            word = type(fault).__name__
            self.outbox.failed(delivery, lease=lease, problem=word, refused=True, now=now + since())
        else:
            self.outbox.done(delivery, lease=lease, place=place, now=now + since())
        return True

    def _telling(self, entry: Entry, policy_file: PolicyFile) -> Telling | None:
        body = json.loads(entry.body)
        kind, request_id = body["kind"], body["request_id"]
        if request_id is None:
            return None
        policy = policy_file.find_policy(body["data"].get("policy", ""))
        channels: tuple[str, ...] = ()
        if policy is not None and kind in _OPENING:
            channels = policy.notify
        elif policy is not None and policy.escalate is not None and kind == Notice.ESCALATED:
            channels = policy.escalate.notify
        elif kind == GLASS_BROKEN:
            channels = tuple(policy_file.channels)  # an emergency is everybody's business
        if kind not in _CHANGING | _NOTED and not kind.startswith("request."):
            return None
        known = tuple(name for name in channels if policy_file.channels[name].kind in self._senders)
        return Telling(request_id=request_id, channels=known, has_note=kind in _NOTED)

    def _send(self, delivery: Delivery, *, now: datetime) -> dict[str, str] | None:
        """Send the message as it has to be now; None when nothing needs to be said any more."""
        policy_file = self._service.policies.current()
        settings = policy_file.channels.get(delivery.channel)
        if settings is None or settings.kind not in self._senders:
            raise SendError("the policy file has no such channel any more; put it back", refused=True)
        sender = self._senders[settings.kind]
        request = self._service.store.get_request(delivery.request_id)
        if delivery.entry == PROMPT:
            if delivery.place is None and request.state is not State.PENDING and not is_emergency(request):
                return None  # decided before anybody was asked here: there is nothing left to answer
            return sender.send_prompt(settings, request, delivery.place, now=now)
        return self._send_note(sender, settings, request, delivery, now=now)

    def _send_note(
        self,
        sender: Sender,
        settings: ChannelSettings,
        request: ApprovalRequest,
        delivery: Delivery,
        *,
        now: datetime,
    ) -> dict[str, str] | None:
        found = next(iter(self._service.store.entries_after(delivery.entry - 1, limit=1)), None)
        prompt = next(
            (
                each.place
                for each in self.outbox.deliveries_of(request.id)
                if (each.channel, each.entry) == (delivery.channel, PROMPT)
            ),
            None,
        )
        if found is None or prompt is None:
            raise RequestNotFoundError("what this note tells of is not there")
        body = json.loads(found.body)
        if body["kind"] in set(Notice) and _is_outdated(request, body["time"]):
            return None
        number = int(body["data"].get("question", {}).get("id", 0))
        return sender.send_note(settings, request, body["kind"], number, prompt, now=now)


def _is_outdated(request: ApprovalRequest, told_at: str) -> bool:
    """Return whether a reminder is late: a channel that was away gets the newest one, if it still waits."""
    if request.state is not State.PENDING:
        return True
    return request.reminded_at is not None and datetime.fromisoformat(told_at) < request.reminded_at


def has_channels(service: Service, kinds: Collection[str]) -> bool:
    """Return whether the policy file in force names a channel that somebody here can send to."""
    try:
        policy_file = service.policies.current()
    except PolicyError:
        return False
    return any(settings.kind in kinds for settings in policy_file.channels.values())
