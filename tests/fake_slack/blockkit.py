"""Is this a message or a window that Slack would take: shapes, limits, no unknown keys, nobody notified.

The table is from docs.slack.dev/reference/block-kit and the constants of slack_sdk, and stricter than
slack_sdk's own validation, which passes over unknown blocks, wrong keys and doubled ids. How the real Slack
counts characters is not documented: here they are UTF-16 units.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

BLOCKS = {"message": 50, "modal": 100, "home": 100}
KEYS: dict[str, tuple[set[str], set[str]]] = {  # required, optional
    "header": ({"text"}, {"block_id"}),
    "divider": (set(), {"block_id"}),
    "confirm": ({"title", "text", "confirm", "deny"}, {"style"}),
    "section": ({"text"}, {"block_id"}),
    "actions": ({"elements"}, {"block_id"}),
    "rich_text": ({"elements"}, {"block_id"}),
    "input": ({"label", "element"}, {"block_id", "optional", "hint", "dispatch_action"}),
    "button": ({"text", "action_id"}, {"value", "style", "url", "accessibility_label", "confirm"}),
    "plain_text_input": ({"action_id"}, {"multiline", "max_length", "min_length", "placeholder"}),
    "plain_text": ({"text"}, {"emoji"}),
    "mrkdwn": ({"text"}, {"verbatim"}),
    "rich_text_section": ({"elements"}, set()),
    "text": ({"text"}, {"style"}),
    "link": ({"url"}, {"text", "style", "unsafe"}),
    "usergroup": ({"usergroup_id"}, {"style"}),
    "date": ({"timestamp", "format"}, {"fallback", "url"}),
    "modal": (
        {"title", "blocks"},
        {
            "submit",
            "close",
            "callback_id",
            "private_metadata",
            "notify_on_close",
            "clear_on_close",
            "external_id",
        },
    ),
    "home": ({"blocks"}, {"callback_id", "private_metadata", "external_id"}),
}
LENGTHS: dict[tuple[str, str], int] = {
    ("button", "value"): 2000,
    ("button", "url"): 3000,
    ("button", "accessibility_label"): 75,
    ("button", "action_id"): 255,
    ("plain_text_input", "action_id"): 255,
    ("modal", "callback_id"): 255,
    ("modal", "private_metadata"): 3000,
    ("link", "url"): 3000,
}
TEXTS: dict[tuple[str, str], tuple[str, int]] = {  # the text objects: type, length
    ("header", "text"): ("plain_text", 150),
    ("section", "text"): ("mrkdwn", 3000),
    ("button", "text"): ("plain_text", 75),
    ("input", "label"): ("plain_text", 2000),
    ("modal", "title"): ("plain_text", 24),
    ("modal", "submit"): ("plain_text", 24),
    ("modal", "close"): ("plain_text", 24),
    ("confirm", "title"): ("plain_text", 100),
    ("confirm", "text"): ("plain_text", 300),
    ("confirm", "confirm"): ("plain_text", 30),
    ("confirm", "deny"): ("plain_text", 30),
}
CHILDREN: dict[tuple[str, str], tuple[set[str], int]] = {
    ("actions", "elements"): ({"button"}, 25),
    ("rich_text", "elements"): ({"rich_text_section"}, 100),
    ("rich_text_section", "elements"): ({"text", "link", "date", "usergroup"}, 1000),
}
MESSAGE_BLOCKS = {"header", "section", "actions", "rich_text", "divider"}
MODAL_BLOCKS = MESSAGE_BLOCKS | {"input"}
NOTIFYING = re.compile(r"<!|<@|<#")
RICH_TEXT = 3000  # of one block, all its words; Slack names no limit


class BlockKitError(Exception):
    """Slack would answer `invalid_blocks`."""


def check_message(payload: Json) -> None:
    """Raise `BlockKitError` unless this is a message with a fallback text that notifies nobody."""
    problems = list(_message_problems(payload))
    if problems:
        raise BlockKitError("; ".join(problems))


def check_view(view: Any) -> None:
    """Raise `BlockKitError` unless this is a modal."""
    problems = list(_view_problems(view))
    if problems:
        raise BlockKitError("; ".join(problems))


def check_home(view: Any) -> None:
    """Raise `BlockKitError` unless this is a Home tab."""
    problems = list(_home_problems(view))
    if problems:
        raise BlockKitError("; ".join(problems))


def _message_problems(payload: Json) -> Iterator[str]:
    text = payload.get("text")
    if not isinstance(text, str) or not text.strip():
        yield "no fallback text"
    elif units(text) > 4000:
        yield f"text: {units(text)} of 4000"
    elif NOTIFYING.search(text) or re.search(r"[<>]", text):
        yield "text: something is not escaped"
    if "blocks" in payload:
        yield from _blocks(payload["blocks"], "message", MESSAGE_BLOCKS)


def _view_problems(view: Any) -> Iterator[str]:
    if not isinstance(view, dict) or view.get("type") != "modal":
        yield "a view is a modal"
        return
    yield from _element(view, {"modal"}, "view")
    yield from _blocks(view.get("blocks"), "modal", MODAL_BLOCKS)
    kinds = {block.get("type") for block in view.get("blocks") or [] if isinstance(block, dict)}
    if "input" in kinds and "submit" not in view:
        yield "an input needs a submit"


def _home_problems(view: Any) -> Iterator[str]:
    if not isinstance(view, dict) or view.get("type") != "home":
        yield "a view for the Home tab is a home"
        return
    yield from _element(view, {"home"}, "view")
    yield from _blocks(view.get("blocks"), "home", MESSAGE_BLOCKS)


def _blocks(blocks: Any, surface: str, allowed: set[str]) -> Iterator[str]:
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= BLOCKS[surface]:
        yield f"{surface}: 1 to {BLOCKS[surface]} blocks"
        return
    for position, block in enumerate(blocks):
        yield from _element(block, allowed, f"blocks[{position}]")
    ids = list(_values(blocks, "block_id"))
    if len(ids) != len(set(ids)):
        yield "block_id is here twice"
    for block in blocks:
        ids = list(_values(block, "action_id"))
        if len(ids) != len(set(ids)):
            yield "action_id is twice in one block"


def _element(element: Any, allowed: set[str], at: str) -> Iterator[str]:
    kind = element.get("type") if isinstance(element, dict) else None
    if kind not in allowed:
        yield f"{at}: {kind!r} is not one of {sorted(allowed)}"
        return
    required, optional = KEYS[kind]
    keys = set(element) - {"type"}
    if required - keys or keys - required - optional:
        yield f"{at}: keys missing {sorted(required - keys)}, unknown {sorted(keys - required - optional)}"
        return
    if len(str(element.get("block_id", "x"))) > 255:
        yield f"{at}: block_id"
    for key, value in element.items():
        yield from _key(kind, key, value, f"{at}.{key}")
    if kind == "rich_text" and sum(units(text) for text in _values(element, "text")) > RICH_TEXT:
        yield f"{at}: over {RICH_TEXT}"
    if kind == "button" and element.get("style") not in (None, "primary", "danger"):
        yield f"{at}: style"


def _key(kind: str, key: str, value: Any, at: str) -> Iterator[str]:
    if (kind, key) in LENGTHS and not (isinstance(value, str) and units(value) <= LENGTHS[kind, key]):
        yield f"{at}: over {LENGTHS[kind, key]}"
    if key == "url" and not re.match(r"https?://", str(value)):
        yield f"{at}: not a web address"
    if (kind, key) in TEXTS:
        wanted, length = TEXTS[kind, key]
        yield from _element(value, {wanted}, at)
        text = value.get("text") if isinstance(value, dict) else None
        if not isinstance(text, str) or not 1 <= units(text) <= length:
            yield f"{at}: 1 to {length} characters"
        elif wanted == "mrkdwn" and NOTIFYING.search(text):
            yield f"{at}: it notifies"
    yield from _children(kind, key, value, at)
    if (kind, key) == ("button", "confirm"):
        yield from _confirm(value, at)
    if (kind, key) == ("input", "element"):
        yield from _element(value, {"plain_text_input"}, at)
    if (kind, key) == ("plain_text_input", "max_length") and not 1 <= value <= 3000:
        yield at
    if (kind, key) == ("text", "text") and (not isinstance(value, str) or not value):
        yield f"{at}: empty"


def _confirm(value: Any, at: str) -> Iterator[str]:
    # A confirmation has no `type` of its own: docs.slack.dev/reference/block-kit/composition-objects
    if not isinstance(value, dict) or "type" in value:
        yield f"{at}: a confirmation has title, text, confirm and deny"
        return
    yield from _element({**value, "type": "confirm"}, {"confirm"}, at)


def _children(kind: str, key: str, value: Any, at: str) -> Iterator[str]:
    if (kind, key) in CHILDREN:
        kinds, most = CHILDREN[kind, key]
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            yield f"{at}: 1 to {most}"
            return
        for position, child in enumerate(value):
            yield from _element(child, kinds, f"{at}[{position}]")


def _values(part: Any, key: str) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == key and isinstance(value, str):
                yield value
            else:
                yield from _values(value, key)
    elif isinstance(part, list):
        for each in part:
            yield from _values(each, key)


def units(text: str) -> int:
    """Return how many UTF-16 units `text` has."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
