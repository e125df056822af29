"""Templates into pages: everything that is put into one is escaped and made visible first."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from airflow_approvals.web.pages import words

MOUNT = "/approvals"
_PACKAGE = "airflow_approvals.web"
_CLOCK = re.compile(r"(?<=>)[^<>]*(?=</time>)")
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}


def render(request: Request, template: str, facts: Mapping[str, Any], *, status: int = 200) -> HTMLResponse:
    """Return the page that `template` makes of `facts`."""
    page = _environment().get_template(template)
    return HTMLResponse(page.render(root=root_of(request), assets=assets(), **facts), status_code=status)


def root_of(request: Request) -> str:
    """Return the path under which this app is reached, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def airflow_root_of(request: Request) -> str:
    """Return the path of the Airflow that has mounted this app."""
    return root_of(request).removesuffix(MOUNT)


@cache
def assets() -> dict[str, str]:
    """Return every file of the pages by name, with the digest that makes its address new when it changes."""
    return {name: hashlib.sha256(body).hexdigest()[:12] for name, (body, _) in _static().items()}


def asset(name: str) -> tuple[bytes, str] | None:
    """Return body and media type of one file of the pages; None for a name that is not one of them."""
    return _static().get(name)


@cache
def _static() -> dict[str, tuple[bytes, str]]:
    found = {}
    for each in files(_PACKAGE).joinpath("static").iterdir():
        kind = _TYPES.get(each.name.rpartition(".")[2])
        if kind is not None:
            found[each.name] = (each.read_bytes(), f"{kind}; charset=utf-8")
    return found


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        short=words.short,
        size=words.size,
        count=words.count,
        utc=words.utc,
        span=words.span,
        stamp=_stamp,
    )
    environment.globals["ago"] = words.ago
    return environment


def _stamp(content: str) -> str:
    """Return a digest of a part of a page that stays the same while only its clocks go on."""
    return hashlib.sha256(_CLOCK.sub("", str(content)).encode()).hexdigest()[:16]
