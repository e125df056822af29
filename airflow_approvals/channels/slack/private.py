"""What only the person sees who clicked: a window, or a note below the prompt."""

from __future__ import annotations

import logging
from datetime import datetime

from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.slack.blocks import Json
from airflow_approvals.channels.slack.interactive import Click, Place, Submission
from airflow_approvals.channels.slack.modals import notice_modal
from airflow_approvals.channels.slack.workspace import Workspace
from airflow_approvals.channels.text import escaped
from airflow_approvals.core.errors import ConfigurationError

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
            _note(workspace, intent, intent.place, escaped(words, _NOTE), now=now)
    except (SendError, ConfigurationError) as trouble:
        log.warning("a private note was not taken: %s", trouble)


def _note(
    workspace: Workspace, intent: Click | Submission, place: Place, text: str, *, now: datetime
) -> None:
    """Post a note below the prompt; who is not in the channel gets it through what came with the click."""
    to = {"channel": place.channel, "user": intent.who.user_id}
    try:
        workspace.call("chat.postEphemeral", now=now, text=text, **to)
    except SendError as trouble:
        if not (trouble.refused and isinstance(intent, Click) and intent.response_url):
            raise
        workspace.respond(intent.response_url, text)
