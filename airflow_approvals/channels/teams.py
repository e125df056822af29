"""Microsoft Teams: an Adaptive Card through a Workflows webhook, with a link to the page.

The webhook takes cards and gives nothing back, so a card can neither be answered nor changed. Its address
carries its own signature (`sig`) and is therefore kept as the password of the connection.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from airflow_approvals.channels.connections import check_address, connection_of, is_loopback
from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.posting import post
from airflow_approvals.channels.telling import Message
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.policy_channels import ChannelSettings, TeamsChannel

KIND = "teams"
MAX_BYTES = 27_000
"""Teams takes 28 KB: learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors."""

HOSTS = (".logic.azure.com", ".powerplatform.com", ".logic.azure.us", ".powerplatform.us")
"""Where Microsoft's Workflows webhooks are; another host is named in the policy file."""

_CARD = "application/vnd.microsoft.card.adaptive"
_COLORS = {"asks": "accent", "good": "good", "bad": "attention", "plain": "default"}

Json = dict[str, Any]


def post_card(settings: ChannelSettings, message: Message, *, now: datetime) -> None:
    """Send one card."""
    body = json.dumps(envelope_of(message), ensure_ascii=False).encode()
    post(address_of(settings), body, headers={"Content-Type": "application/json"}, now=now)


def address_of(settings: ChannelSettings) -> str:
    """Return the webhook's address; raise `ConfigurationError` unless it is one that may be posted to."""
    if not isinstance(settings, TeamsChannel):
        raise SendError(f"the channel is of kind {settings.kind} now", refused=True)
    address = (connection_of(settings.conn_id).password or "").strip()
    host = check_address(settings.conn_id, address).lower()
    wanted = (settings.host or "").lower()
    if host == wanted or is_loopback(host) or (not wanted and host.endswith(HOSTS)):
        return address
    raise ConfigurationError(
        f"connection {settings.conn_id}: its host is not {wanted or 'one of Microsoft Workflows'}; "
        "correct the password of the connection, or name the host in the policy file"
    )


def envelope_of(message: Message) -> Json:
    """Return what a Workflows webhook takes: one message with one card, small enough for Teams."""
    facts = message.facts
    while True:
        attachment = {"contentType": _CARD, "contentUrl": None, "content": card_of(message, facts)}
        envelope = {"type": "message", "attachments": [attachment]}
        if len(facts) <= 1 or len(json.dumps(envelope, ensure_ascii=False).encode()) <= MAX_BYTES:
            return envelope
        facts = facts[:-1]  # the page has all of them


def card_of(message: Message, facts: tuple[tuple[str, str], ...]) -> Json:
    """Return the card. Text from outside stands in TextRuns alone: everything else renders Markdown."""
    return {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.5",
        "fallbackText": "An approval; open it in Airflow.",
        "body": [
            {
                "type": "Container",
                "style": _COLORS[message.tone],
                "bleed": True,
                "items": [_text(message.title, size="large", weight="bolder")],
            },
            *(_fact(label, value) for label, value in facts),
        ],
        "actions": [{"type": "Action.OpenUrl", "title": message.call_to_action, "url": message.link}],
    }


def _fact(label: str, value: str) -> Json:
    runs = [
        {"type": "TextRun", "text": f"{label}: ", "weight": "bolder"},
        {"type": "TextRun", "text": value or "none"},
    ]
    return {"type": "RichTextBlock", "spacing": "small", "inlines": runs}


def _text(text: str, **style: str) -> Json:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}
