"""Everything that an API server process needs to speak with people outside of Airflow."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_approvals.channels.outbox import Deliveries
from airflow_approvals.channels.slack.answers import Answers
from airflow_approvals.channels.slack.groups import LinkedGroups
from airflow_approvals.channels.slack.identity import Identities
from airflow_approvals.channels.slack.workspace import Workspaces


@dataclass(frozen=True, kw_only=True)
class Channels:
    """What goes out, what comes in, and who is who."""

    deliveries: Deliveries
    answers: Answers
    identities: Identities
    workspaces: Workspaces
    groups: LinkedGroups | None  # the policy source, where it asks Slack for members
    kinds: frozenset[str]  # of channels that can be sent to
