"""What is told in the thread of a prompt that is no question and no answer: it still waits, it was forced."""

from __future__ import annotations

from airflow_approvals.channels.slack import blocks
from airflow_approvals.channels.slack.blocks import Json
from airflow_approvals.channels.telling import Message
from airflow_approvals.channels.text import escaped


def notice_of(message: Message, *, usergroup: str | None) -> Json:
    """Return `text` and `blocks`; `usergroup` is the Slack user group that the policy escalates to.

    It is mentioned, and so notified. Nothing else in a message ever notifies anybody.
    """
    shown = [blocks.rich_text([blocks.words(message.title, bold=True)], "notice-title")]
    if usergroup is not None:
        shown.append(blocks.rich_text([blocks.usergroup(usergroup)], "notice-group"))
    shown += blocks.facts(list(message.facts), block_id="notice")
    return {"text": escaped(message.title, blocks.FALLBACK), "blocks": shown}
