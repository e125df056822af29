"""Prompts and notes into Slack channels."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_approvals.channels import telling
from airflow_approvals.channels.changes import changes_of, find_prior
from airflow_approvals.channels.one_way import members_of
from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.slack.message import Standing, note_of, prompt_of
from airflow_approvals.channels.slack.notices import notice_of
from airflow_approvals.channels.slack.workspace import Workspaces
from airflow_approvals.core import gate
from airflow_approvals.core.errors import VoteRefusedError
from airflow_approvals.core.model import ApprovalRequest, Channel, Person
from airflow_approvals.core.policy_channels import ChannelSettings, SlackChannel
from airflow_approvals.core.reminders import Notice
from airflow_approvals.ports import Visibility
from airflow_approvals.service import Service

KIND = "slack"
_QUIET = {"unfurl_links": False, "unfurl_media": False}  # an unfurl fetches what it shows


class SlackSender:
    """Sends what the outbox holds for channels of kind `slack`."""

    def __init__(self, service: Service, workspaces: Workspaces, *, base_url: str) -> None:
        self._service = service
        self._workspaces = workspaces
        self._base_url = base_url

    def send_prompt(
        self,
        settings: ChannelSettings,
        request: ApprovalRequest,
        place: dict[str, str] | None,
        *,
        now: datetime,
    ) -> dict[str, str]:
        """Post the prompt, or change the one at `place`; return where it stands."""
        workspace = self._workspaces.get(_connection(settings))
        standing = standing_of(self._service, request, self._base_url)
        prompt = prompt_of(request, compared(self._service, request, standing))
        if place is None:
            sent = workspace.call("chat.postMessage", now=now, channel=_channel(settings), **prompt, **_QUIET)
        else:
            sent = workspace.call("chat.update", now=now, **place, **prompt, **_QUIET)
        return {"channel": str(sent["channel"]), "ts": str(sent["ts"])}

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
        """Tell in the thread of the prompt at `place`: of a question, its answer, or what has no number."""
        note = note_of(kind, request, question) if question else self._notice(kind, request, now=now)
        if note is None:
            raise SendError(f"question {question} is not there any more", refused=True)
        workspace = self._workspaces.get(_connection(settings))
        sent = workspace.call(
            "chat.postMessage", now=now, channel=place["channel"], thread_ts=place["ts"], **note, **_QUIET
        )
        return {"channel": str(sent["channel"]), "ts": str(sent["ts"])}

    def _notice(self, kind: str, request: ApprovalRequest, *, now: datetime) -> dict[str, Any] | None:
        members, link = (
            members_of(self._service, request),
            f"{self._base_url}/approvals/requests/{request.id}",
        )
        progress = self._service.progress_of(request)
        told = telling.note_of(kind, request, 0, progress, members=members, link=link, now=now)
        group = self._service.policies.current().groups.get(request.escalated_to or "")
        mentioned = group.slack_usergroup if group and kind == Notice.ESCALATED else None
        return None if told is None else notice_of(told, usergroup=mentioned)


def standing_of(service: Service, request: ApprovalRequest, base_url: str) -> Standing:
    """Return what is shown beside `request`, under the policy in force; `compared` adds the changes."""
    policy = service.policies.current().find_policy(request.policy)
    page_only = None
    try:
        if policy is not None:
            gate.check_channel(request, policy, Channel.SLACK)
    except VoteRefusedError as refusal:
        page_only = str(refusal)
    return Standing(
        link=f"{base_url}/approvals/requests/{request.id}",
        progress=service.progress_of(request),
        page_only=page_only,
        asks_reason=policy is not None and policy.require_reason == "always",
        is_high_risk=policy is not None and policy.high_risk,
    )


def compared(service: Service, request: ApprovalRequest, standing: Standing) -> Standing:
    """Return `standing` with what differs from the last approval that the same people were asked for."""
    shown = Visibility(person=Person(""), policies=(request.policy,), dag_ids=())
    prior = find_prior(service.store, request, shown)
    return standing if prior is None else replace(standing, changes=changes_of(prior, request))


def _connection(settings: ChannelSettings) -> str:
    return _slack(settings).conn_id


def _channel(settings: ChannelSettings) -> str:
    return _slack(settings).channel


def _slack(settings: ChannelSettings) -> SlackChannel:
    if not isinstance(settings, SlackChannel):
        raise SendError(f"the channel is of kind {settings.kind} now, and was of kind slack", refused=True)
    return settings
