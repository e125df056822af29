"""The few Block Kit shapes that are used.

Words from outside only ever stand in `rich_text` and `plain_text`, where Slack parses nothing: no mention,
no link, no emphasis.

Limits: https://docs.slack.dev/reference/block-kit
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_approvals.channels.text import cut

Json = dict[str, Any]
Fact = tuple[str, str | Json]  # a label of ours, and words from outside or an element of ours

HEADER = 150
BUTTON = 75
CONFIRM_TITLE, CONFIRM_TEXT, CONFIRM_BUTTON = 100, 300, 30
TITLE = 24  # of a modal, and its buttons
INPUT = 2000  # as `core.gate.MAX_TEXT`; Slack allows 3,000
FALLBACK = 1000  # of the message's own text, which is what notifications show
FACT = 400
RICH_TEXT = 2800  # characters of one block; Slack names no limit, its other texts hold 3,000


def plain(text: str, limit: int) -> Json:
    return {"type": "plain_text", "text": cut(text, limit) or "-", "emoji": False}


def header(text: str) -> Json:
    return {"type": "header", "text": plain(text, HEADER)}


def words(text: str, *, bold: bool = False) -> Json:
    """Return words of one's own, which are never cut."""
    return {"type": "text", "text": text, **({"style": {"bold": True}} if bold else {})}


def moment(at: datetime) -> Json:
    """Return a moment that Slack shows in the reader's own time zone."""
    fallback = f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return {
        "type": "date",
        "timestamp": int(at.timestamp()),
        "format": "{date_short_pretty} {time} ({ago})",
        "fallback": fallback,
    }


def link(url: str, text: str) -> Json:
    return {"type": "link", "url": url, "text": text}


def usergroup(usergroup_id: str) -> Json:
    """Return a mention of a Slack user group, which notifies its members."""
    return {"type": "usergroup", "usergroup_id": usergroup_id}


def facts(rows: Sequence[Fact], *, block_id: str) -> list[Json]:
    """Return the facts, one a line, in as many `rich_text` blocks as their length needs."""
    blocks: list[Json] = []
    elements: list[Json] = []
    used = 0
    for label, value in rows:
        element = value if isinstance(value, dict) else words(cut(value, FACT) or "-")
        length = len(label) + 2 + len(str(element.get("text", ""))) * 2  # UTF-16 at worst
        if elements and used + length > RICH_TEXT:
            blocks.append(rich_text(elements, f"{block_id}.{len(blocks)}"))
            elements, used = [], 0
        if elements:
            elements.append(words("\n"))
        elements += [words(f"{label}: ", bold=True), element]
        used += length
    if elements:
        blocks.append(rich_text(elements, f"{block_id}.{len(blocks)}"))
    return blocks


def rich_text(elements: Iterable[Json], block_id: str) -> Json:
    section = {"type": "rich_text_section", "elements": list(elements)}
    return {"type": "rich_text", "block_id": block_id, "elements": [section]}


def button(
    action_id: str,
    text: str,
    value: str,
    *,
    style: str | None = None,
    label: str = "",
    confirm: Json | None = None,
) -> Json:
    found: Json = {
        "type": "button",
        "action_id": action_id,
        "text": plain(text, BUTTON),
        "value": value,
    }
    if style:
        found["style"] = style
    if label:
        found["accessibility_label"] = cut(label, BUTTON)
    if confirm is not None:
        found["confirm"] = confirm
    return found


def confirmation(title: str, text: str, yes: str, no: str) -> Json:
    """Return what Slack asks before a button counts."""
    return {
        "title": plain(title, CONFIRM_TITLE),
        "text": plain(text, CONFIRM_TEXT),
        "confirm": plain(yes, CONFIRM_BUTTON),
        "deny": plain(no, CONFIRM_BUTTON),
    }


def modal(
    callback_id: str, title: str, blocks: list[Json], *, submit: str | None = None, metadata: str = ""
) -> Json:
    view: Json = {
        "type": "modal",
        "callback_id": callback_id,
        "title": plain(title, TITLE),
        "close": plain("Close" if submit is None else "Cancel", TITLE),
        "private_metadata": metadata,
        "blocks": blocks,
    }
    if submit is not None:
        view["submit"] = plain(submit, TITLE)
    return view


def text_input(block_id: str, action_id: str, label: str, *, optional: bool) -> Json:
    return {
        "type": "input",
        "block_id": block_id,
        "label": plain(label, INPUT),
        "optional": optional,
        "element": {
            "type": "plain_text_input",
            "action_id": action_id,
            "multiline": True,
            "max_length": INPUT,
        },
    }
