"""The fake channel as a page: messages, private notes and windows, with buttons that click."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any

Json = dict[str, Any]

_STYLE = (
    "body{font:15px sans-serif;max-width:46rem;margin:1rem auto;padding:0 1rem}"
    "article{border:1px solid #ccc;border-radius:8px;padding:.5rem 1rem;margin:1rem 0;overflow-wrap:anywhere}"
    "article.thread{margin-left:2rem}pre{white-space:pre-wrap;font:inherit;margin:.3rem 0}"
    "form{display:inline-block;margin:.2rem .4rem .2rem 0}aside{background:#fff7d6;padding:.5rem 1rem}"
)


def page_of(
    messages: list[Any], notes: list[Json], views: list[Json], users: dict[str, Json], user: str
) -> str:
    """Return the page as `user` sees it."""
    user = user or next(iter(users), "")
    people = " ".join(f'<a href="/?user={escape(each)}">{escape(users[each]["name"])}</a>' for each in users)
    shown = "".join(_message(message, user) for message in messages)
    private = "".join(
        f"<aside>Only visible to you: {escape(note['text'])}</aside>"
        for note in notes
        if note["user"] == user
    )
    own = [view["view"] for view in views if view["user"] == user]
    window = _view(own[-1], user) if own else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Fake Slack</title>'
        f"<style>{_STYLE}</style><h1>#data-approvals</h1><p>You are {escape(user)}. Be: {people}</p>"
        f"{shown}{private}{window}</html>"
    )


def _message(message: Any, user: str) -> str:
    thread = ' class="thread"' if message.thread_ts else ""
    hidden = _hidden(channel=message.channel, ts=message.ts, user=user)
    blocks = "".join(_block(block, hidden) for block in message.blocks)
    return f'<article{thread} data-ts="{escape(message.ts)}">{blocks or escape(message.text)}</article>'


def _view(view: Json, user: str) -> str:
    blocks = "".join(_block(block, "") for block in view["blocks"])
    submit = f"<button>{escape(view['submit']['text'])}</button>" if "submit" in view else ""
    return (
        f"<article class=view><h2>{escape(view['title']['text'])}</h2>"
        f'<form method="post" action="/do/submit">{_hidden(user=user)}{blocks}{submit}</form></article>'
    )


def _block(block: Json, hidden: str) -> str:
    kind = block["type"]
    if kind == "header":
        return f"<h2>{escape(block['text']['text'])}</h2>"
    if kind == "rich_text":
        parts = (part for section in block["elements"] for part in section["elements"])
        return f"<pre>{''.join(_part(part) for part in parts)}</pre>"
    if kind == "input":
        label = escape(block["label"]["text"])
        return f'<label>{label}<br><textarea name="text" rows="4" cols="60"></textarea></label><br>'
    if kind == "actions":
        return "".join(
            f'<form method="post" action="/do/click">{hidden}{_hidden(action_id=each["action_id"])}'
            f"<button>{escape(each['text']['text'])}</button></form>"
            for each in block["elements"]
        )
    return f"<pre>{escape(str(block.get('text', '')))}</pre>"


def _part(part: Json) -> str:
    if part["type"] == "link":
        return f'<a href="{escape(part["url"])}">{escape(str(part.get("text", part["url"])))}</a>'
    if part["type"] == "date":
        return f"{datetime.fromtimestamp(part['timestamp'], UTC):%Y-%m-%d %H:%M} UTC"
    text = escape(part["text"])
    return f"<b>{text}</b>" if part.get("style", {}).get("bold") else text


def _hidden(**values: str) -> str:
    return "".join(
        f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in values.items()
    )
