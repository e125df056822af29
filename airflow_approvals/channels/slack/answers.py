"""What a click leads to: the same rules as everywhere, and a private note where they say no."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime

from airflow_approvals.channels.outbox import Outbox, SendError
from airflow_approvals.channels.slack.home import home_of
from airflow_approvals.channels.slack.identity import (
    CODE_LIFE,
    Account,
    Identities,
    NotLinkedError,
    account_of,
    new_code,
)
from airflow_approvals.channels.slack.interactive import Click, Doing, HomeOpened, SlackUser, Submission, Wish
from airflow_approvals.channels.slack.modals import details_modal, link_modal, link_view, text_modal
from airflow_approvals.channels.slack.patience import Patience
from airflow_approvals.channels.slack.private import open_window, tell
from airflow_approvals.channels.slack.send import standing_of
from airflow_approvals.channels.slack.workspace import Workspace
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

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Carries out what people do in Slack, through the service that serves every channel."""

    service: Service
    outbox: Outbox
    identities: Identities
    base_url: str
    patience: Patience = field(default_factory=Patience)

    def carry_out(self, intent: Doing, workspace: Workspace, *, now: datetime) -> None:
        """Do what was asked, or tell the person privately why not."""
        try:
            if isinstance(intent, HomeOpened):
                self._show_home(intent.who, workspace, now=now)
            else:
                self._answer_to(intent, workspace, now=now)
        except SendError as trouble:
            log.warning("Slack did not take an answer to somebody: %s", trouble)

    def _answer_to(self, intent: Click | Submission, workspace: Workspace, *, now: datetime) -> None:
        try:
            account = self._account(intent, workspace, now=now)
        except (NotLinkedError, NotAllowedError) as refusal:
            if not self.patience.has_for(intent.who, now=now):
                log.warning("%s presses and presses; nothing is answered", actor_of(intent.who))
                return
            self._record(intent, refusal, now=now)
            if isinstance(refusal, NotLinkedError):
                self._introduce(intent, workspace, now=now)
            else:
                tell(workspace, intent, str(refusal), now=now)
            return
        except ApprovalsError as trouble:
            # Slack or the database did not say who this is: nobody must take that for an answer given.
            log.warning("%s was not heard: %s", actor_of(intent.who), trouble)
            tell(workspace, intent, f"nothing was recorded, press the button again: {trouble}", now=now)
            return
        try:
            self._carry_out(intent, account, workspace, now=now)
        except SendError as trouble:
            log.warning("the window for %s did not open: %s", actor_of(intent.who), trouble)
            words = "the window did not open, and nothing was recorded: press the button again"
            tell(workspace, intent, words, now=now)
        except ApprovalsError as refusal:
            if isinstance(refusal, StaleRevisionError | AlreadyDecidedError):
                self.outbox.want_again(intent.ref.request_id, now=now)
            tell(workspace, intent, str(refusal), now=now)
        if intent.place is None:
            self._show_home(intent.who, workspace, now=now)

    def _account(self, intent: Click | Submission, workspace: Workspace, *, now: datetime) -> Account:
        request = self.service.store.get_request(intent.ref.request_id)
        policy = self.service.policies.current().find_policy(request.policy)
        by_email = policy is not None and policy.slack_identity == "link_or_email"
        return account_of(self.identities, intent.who, workspace, by_email=by_email, now=now)

    def _carry_out(
        self, intent: Click | Submission, account: Account, workspace: Workspace, *, now: datetime
    ) -> None:
        if isinstance(intent, Submission):
            self._answer(intent, account, intent.text, now=now)
            return
        request = self.service.follow_policy(intent.ref.request_id, now=now)
        if intent.wish is Wish.DETAILS:
            self._check_may_look(request, account.person)
            view = details_modal(request, standing_of(self.service, request, self.base_url))
        elif intent.wish is Wish.APPROVE and not self._asks_reason(request):
            self._answer(intent, account, "", now=now)
            return
        else:
            intent.ref.check_shows(request)
            gate.check_open(request, now=now)
            optional = intent.wish is Wish.DENY and self._policy(request).require_reason == "never"
            view = text_modal(intent.wish, request, intent.place, optional=optional)
        open_window(workspace, intent, view, now=now)

    def _answer(self, intent: Click | Submission, account: Account, text: str, *, now: datetime) -> None:
        request_id = intent.ref.request_id
        if intent.wish is Wish.ASK:
            self.service.ask(account.person, request_id, text, channel=Channel.SLACK, now=now)
            return
        request = self.service.store.get_request(request_id)
        revision = intent.ref.revision
        if intent.ref.digest != request.action_digest and revision == request.revision:
            revision = 0  # other content under the same number is stale too, and recorded as such
        self.service.cast_vote(
            account.person,
            request_id,
            Verdict(intent.wish.value),
            reason=text,
            revision=revision,
            channel=Channel.SLACK,
            account=account.facts(),
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
        try:
            open_window(workspace, intent, link_modal(code, self._page, _MINUTES), now=now)
        except SendError as trouble:
            log.warning("the window with the code did not open: %s", trouble)
            words = "your Slack account is not linked to an Airflow login."
            tell(workspace, intent, f"{words} Your code: {code} ({_MINUTES} minutes)", now=now)

    def _show_home(self, who: SlackUser, workspace: Workspace, *, now: datetime) -> None:
        """Publish what waits for this person; or how to become known, or why nothing is shown."""
        policy_file = self.service.policies.current()
        by_email = any(policy.slack_identity == "link_or_email" for policy in policy_file.policies)
        try:
            account = account_of(self.identities, who, workspace, by_email=by_email, now=now)
            view = home_of(self.service, account, base_url=self.base_url, now=now)
        except NotLinkedError:
            if not self.patience.has_for(who, now=now):
                return
            view = link_view(new_code(self.identities, who, now=now), self._page, _MINUTES)
        except NotAllowedError as refusal:
            log.info("no Home tab for %s: %s", actor_of(who), refusal)
            return
        workspace.call("views.publish", now=now, user_id=who.user_id, view=view)

    @property
    def _page(self) -> str:
        return f"{self.base_url}/approvals/identity"

    def _record(
        self, intent: Click | Submission, refusal: NotAllowedError | NotAuthenticatedError, *, now: datetime
    ) -> None:
        request_id = self.service.store.get_request(intent.ref.request_id).id
        self.service.record_refusal(actor_of(intent.who), request_id, intent.wish.value, refusal, now=now)


_MINUTES = int(CODE_LIFE.total_seconds() // 60)


def actor_of(who: SlackUser) -> str:
    """Return how a Slack account without a person is named in the ledger."""
    return f"slack:{who.team_id}/{who.user_id}"
