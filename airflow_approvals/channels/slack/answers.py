"""What a click leads to: the same rules as everywhere, and a private note where they say no."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from airflow_approvals.channels.outbox import Outbox, SendError
from airflow_approvals.channels.slack.identity import (
    CODE_LIFE,
    Identities,
    NotLinkedError,
    new_code,
    person_of,
)
from airflow_approvals.channels.slack.interactive import Click, SlackUser, Submission, Wish
from airflow_approvals.channels.slack.modals import details_modal, link_modal, text_modal
from airflow_approvals.channels.slack.send import standing_of
from airflow_approvals.channels.slack.workspace import Workspace
from airflow_approvals.channels.text import escaped
from airflow_approvals.core import gate, progress
from airflow_approvals.core.errors import (
    AlreadyDecidedError,
    ApprovalsError,
    NotAllowedError,
    NotAuthenticatedError,
    StaleRevisionError,
)
from airflow_approvals.core.model import ApprovalRequest, Channel, Person, Verdict
from airflow_approvals.core.policy import ADMINS, Policy
from airflow_approvals.service import Service

_NOTE = 1500

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Carries out what people do in Slack, through the service that serves every channel."""

    service: Service
    outbox: Outbox
    identities: Identities
    base_url: str

    def carry_out(self, intent: Click | Submission, workspace: Workspace, *, now: datetime) -> None:
        """Do what was asked, or tell the person privately why not."""
        try:
            self._carry_out(intent, workspace, now=now)
        except NotLinkedError as refusal:
            self._record(intent, refusal, now=now)
            self._introduce(intent, workspace, now=now)
        except SendError as trouble:
            log.warning("request %s: %s", intent.ref.request_id, trouble)
        except ApprovalsError as refusal:
            if isinstance(refusal, StaleRevisionError | AlreadyDecidedError):
                self.outbox.want_again(intent.ref.request_id, now=now)
            self._tell(intent, workspace, str(refusal), now=now)

    def _carry_out(self, intent: Click | Submission, workspace: Workspace, *, now: datetime) -> None:
        try:
            person = person_of(self.identities, intent.who, workspace, now=now)
        except NotAllowedError as refusal:
            self._record(intent, refusal, now=now)
            raise
        if isinstance(intent, Submission):
            self._answer(intent, person, intent.text, now=now)
            return
        request = self.service.follow_policy(intent.ref.request_id, now=now)
        if intent.wish is Wish.DETAILS:
            self._check_may_look(request, person)
            view = details_modal(request, standing_of(self.service, request, self.base_url))
        elif intent.wish is Wish.APPROVE and not self._asks_reason(request):
            self._answer(intent, person, "", now=now)
            return
        else:
            intent.ref.check_shows(request)
            gate.check_open(request, now=now)
            optional = intent.wish is Wish.DENY and self._policy(request).require_reason == "never"
            view = text_modal(
                intent.wish, request, (intent.place.channel, intent.place.ts), optional=optional
            )
        workspace.call("views.open", now=now, trigger_id=intent.trigger_id, view=view)

    def _answer(self, intent: Click | Submission, person: Person, text: str, *, now: datetime) -> None:
        request_id = intent.ref.request_id
        if intent.wish is Wish.ASK:
            self.service.ask(person, request_id, text, channel=Channel.SLACK, now=now)
            return
        request = self.service.store.get_request(request_id)
        revision = intent.ref.revision
        if intent.ref.digest != request.action_digest and revision == request.revision:
            revision = 0  # other content under the same number is stale too, and recorded as such
        self.service.cast_vote(
            person,
            request_id,
            Verdict(intent.wish.value),
            reason=text,
            revision=revision,
            channel=Channel.SLACK,
            now=now,
        )

    def _check_may_look(self, request: ApprovalRequest, person: Person) -> None:
        policy_file = self.service.policies.current()
        approver = progress.approver_groups(policy_file, self._policy(request), person)
        if approver or person in request.requesters or ADMINS in progress.groups_of(policy_file, person):
            return
        raise NotAllowedError("you are neither asked nor asking here; the page shows what you may see")

    def _asks_reason(self, request: ApprovalRequest) -> bool:
        policy = self.service.policies.current().find_policy(request.policy)
        return policy is not None and policy.require_reason == "always"

    def _policy(self, request: ApprovalRequest) -> Policy:
        policy = self.service.policies.current().find_policy(request.policy)
        if policy is None:
            raise NotAllowedError(f"policy {request.policy} is not in the policy file any more")
        return policy

    def _introduce(self, intent: Click | Submission, workspace: Workspace, *, now: datetime) -> None:
        """Tell an account that nobody knows how its owner can say whose it is."""
        code = new_code(self.identities, intent.who, now=now)
        page = f"{self.base_url}/approvals/identity"
        minutes = int(CODE_LIFE.total_seconds() // 60)
        if isinstance(intent, Click):
            try:
                view = link_modal(code, page, minutes)
                workspace.call("views.open", now=now, trigger_id=intent.trigger_id, view=view)
            except SendError as trouble:
                log.warning("the window with the code did not open: %s", trouble)
            else:
                return
        words = f"your Slack account is not linked to an Airflow login. Your code: {code} ({minutes} minutes)"
        self._tell(intent, workspace, words, now=now)

    def _tell(self, intent: Click | Submission, workspace: Workspace, words: str, *, now: datetime) -> None:
        try:
            workspace.call(
                "chat.postEphemeral",
                now=now,
                channel=intent.place.channel,
                user=intent.who.user_id,
                text=escaped(words, _NOTE),
            )
        except SendError as trouble:
            log.warning("a private note was not taken: %s", trouble)

    def _record(
        self, intent: Click | Submission, refusal: NotAllowedError | NotAuthenticatedError, *, now: datetime
    ) -> None:
        request_id = self.service.store.get_request(intent.ref.request_id).id
        self.service.record_refusal(actor_of(intent.who), request_id, intent.wish.value, refusal, now=now)


def actor_of(who: SlackUser) -> str:
    """Return how a Slack account without a person is named in the ledger."""
    return f"slack:{who.team_id}/{who.user_id}"
