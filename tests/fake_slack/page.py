"""The fake workspace as a page: the channel, private notes, windows and the app's Home tab, all to click."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fake_slack.people import FakeSlack

Json = dict[str, Any]

CHANNEL, HOME = "channel", "home"

_STYLE = """
*{box-sizing:border-box}body{margin:0;font:15px/1.46 Lato,"Noto Sans",sans-serif;color:#1d1c1d;display:flex}
nav{width:14rem;min-height:100vh;background:#3f0e40;color:#fff;padding:1rem;flex:none}nav h1{font-size:1.1rem}
nav h2{font-size:.8rem;opacity:.7;margin:1.2rem 0 .3rem;font-weight:400}
nav a{display:block;color:#e6d5e6;text-decoration:none;padding:.2rem .5rem;border-radius:6px}
nav a.on{background:#1164a3;color:#fff}main{flex:1;max-width:52rem;padding:0 1.5rem 2rem}
main>h1{font-size:1.15rem;border-bottom:1px solid #ddd;padding:.8rem 0;margin:0 0 1rem}
article{display:flex;gap:.7rem;margin:1.2rem 0;overflow-wrap:anywhere}article.thread{margin-left:3rem}
article>i{flex:none;width:36px;height:36px;border-radius:8px;background:#0e5a8a;color:#fff;font-style:normal;
display:grid;place-items:center;font-weight:700}article>div{min-width:0;flex:1}
b.who{font-size:.95rem}
b.who small{background:#e8e8e8;color:#555;font-size:.65rem;padding:0 .25rem;border-radius:2px}
h2,h3{font-size:1.15rem;margin:.3rem 0}pre{white-space:pre-wrap;font:inherit;margin:.35rem 0}
hr{border:0;border-top:1px solid #ddd}form{display:inline-block;margin:.3rem .4rem .2rem 0}
button{font:inherit;font-weight:600;font-size:.85rem;padding:.3rem .8rem;border:1px solid #bbb;
border-radius:4px;background:#fff;color:#1d1c1d;cursor:pointer}button.primary{background:#007a5a;color:#fff;border-color:#007a5a}
button.danger{background:#fff;color:#c01343;border-color:#c01343}
aside{background:#fcf5e1;border-radius:8px;padding:.5rem 1rem;margin:1rem 0;overflow-wrap:anywhere}
aside small{color:#666;display:block}
dialog{width:34rem;max-width:94vw;border:1px solid #bbb;border-radius:8px;box-shadow:0 8px 40px #0006;
padding:1rem 1.4rem;position:fixed;top:6vh;max-height:86vh;overflow:auto;z-index:1}
textarea{width:100%;font:inherit;padding:.4rem}label{font-weight:600}
"""


def page_of(slack: FakeSlack, user: str, view: str) -> str:
    """Return the page as `user` sees it."""
    user = user if user in slack.users else next(iter(slack.users), "")
    shown = _home(slack, user) if view == HOME else _channel(slack, user)
    title = "Airflow Approvals · Home" if view == HOME else "# data-approvals"
    own = [each["view"] for each in slack.views if each["user"] == user]
    window = _window(own[-1], user, view) if own else ""
    # While nobody types, the page looks again by itself.
    again = "" if window else '<meta http-equiv="refresh" content="3">'
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{again}<title>Fake Slack</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<body>{_sidebar(slack, user, view)}<main><h1>{title}</h1>{shown}</main>{window}</body></html>"
    )


def _sidebar(slack: FakeSlack, user: str, view: str) -> str:
    def link(href: str, text: str, *, on: bool) -> str:
        return f'<a href="{escape(href)}"{" class=on" if on else ""}>{escape(text)}</a>'

    people = "".join(
        link(f"/?user={each}", slack.users[each]["name"], on=each == user) for each in slack.users
    )
    return (
        "<nav><h1>Fake Slack</h1>"
        f"<h2>Channels</h2>{link(f'/?user={user}', '# data-approvals', on=view != HOME)}"
        f"<h2>Apps</h2>{link(f'/home?user={user}', 'Airflow Approvals', on=view == HOME)}"
        f"<h2>You are</h2>{people}</nav>"
    )


def _channel(slack: FakeSlack, user: str) -> str:
    threads = {message.ts: [message] for message in slack.messages if message.thread_ts is None}
    for message in slack.messages:
        if message.thread_ts in threads:
            threads[message.thread_ts].append(message)
    shown = "".join(_message(message, user) for thread in threads.values() for message in thread)
    private = "".join(
        f"<aside><small>Only visible to you</small>{escape(note['text'])}</aside>"
        for note in slack.notes
        if note["user"] == user
    )
    return (shown or "<p>Nothing has been posted here yet.</p>") + private


def _home(slack: FakeSlack, user: str) -> str:
    view = slack.homes.get(user)
    if view is None:
        return "<p>The app has not shown anything here yet.</p>"
    return "".join(_block(block, _hidden(user=user)) for block in view["blocks"])


def _message(message: Any, user: str) -> str:
    thread = ' class="thread"' if message.thread_ts else ""
    hidden = _hidden(channel=message.channel, ts=message.ts, user=user)
    blocks = "".join(_block(block, hidden) for block in message.blocks)
    return (
        f'<article{thread} data-ts="{escape(message.ts)}"><i>A</i><div><b class="who">Airflow Approvals '
        f"<small>APP</small></b>{blocks or escape(message.text)}</div></article>"
    )


def _window(view: Json, user: str, behind: str) -> str:
    blocks = "".join(_block(block, "") for block in view["blocks"])
    hidden = _hidden(user=user, view=behind)
    submit = f"<button class=primary>{escape(view['submit']['text'])}</button>" if "submit" in view else ""
    close = escape(view["close"]["text"])
    return (
        f"<dialog open aria-label=window><h2>{escape(view['title']['text'])}</h2>"
        f'<form id="window" method="post" action="/do/submit" style="display:block">{hidden}{blocks}{submit}'
        f'<button formaction="/do/close" formnovalidate>{close}</button></form></dialog>'
    )


def _block(block: Json, hidden: str) -> str:
    kind = block["type"]
    if kind == "header":
        return f"<h2>{escape(block['text']['text'])}</h2>"
    if kind == "divider":
        return "<hr>"
    if kind == "rich_text":
        parts = (part for section in block["elements"] for part in section["elements"])
        return f"<pre>{''.join(_part(part) for part in parts)}</pre>"
    if kind == "input":
        required = "" if block.get("optional") else " required"
        text = f'<textarea name="text" rows="4"{required}></textarea>'
        return f"<label>{escape(block['label']['text'])}<br>{text}</label><br>"
    if kind == "actions":
        return "".join(_button(each, hidden) for each in block["elements"])
    return f"<pre>{escape(str(block.get('text', '')))}</pre>"


def _button(button: Json, hidden: str) -> str:
    confirm = button.get("confirm")
    asked = f"{confirm['title']['text']}\n\n{confirm['text']['text']}" if confirm else ""
    ask = f' onsubmit="return confirm({escape(json.dumps(asked))})"' if confirm else ""
    which = _hidden(action_id=button["action_id"], request=json.loads(button["value"])[0])
    return (
        f'<form method="post" action="/do/click"{ask}>{hidden}{which}'
        f'<button class="{escape(button.get("style", ""))}">{escape(button["text"]["text"])}</button></form>'
    )


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
