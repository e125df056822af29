"""What only the person sees who clicked: a window, or a note below the prompt."""

from __future__ import annotations

import logging
from datetime import datetime

from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.slack.blocks import Json
from airflow_approvals.channels.slack.interactive import Click, Submission
from airflow_approvals.channels.slack.modals import notice_modal
from airflow_approvals.channels.slack.workspace import Workspace
from airflow_approvals.channels.text import escaped

_NOTE = 1500

log = logging.getLogger(__name__)


def open_window(workspace: Workspace, intent: Click | Submission, view: Json, *, now: datetime) -> None:
    """Open a window; Slack allows one per click, within three seconds. Raises `SendError`."""
    workspace.call("views.open", now=now, trigger_id=intent.trigger_id, view=view)


def tell(workspace: Workspace, intent: Click | Submission, words: str, *, now: datetime) -> None:
    """Say `words` to the person alone: in the channel, or in a window where there is no channel."""
    try:
        if intent.place is None:
            open_window(workspace, intent, notice_modal(words), now=now)
        else:
            workspace.call(
                "chat.postEphemeral",
                now=now,
                channel=intent.place.channel,
                user=intent.who.user_id,
                text=escaped(words, _NOTE),
            )
    except SendError as trouble:
        log.warning("a private note was not taken: %s", trouble)
