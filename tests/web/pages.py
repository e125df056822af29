"""A browser without a screen: it keeps cookies, reads pages, and sends the forms that it finds on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

from tests.web.site import Site


@dataclass(kw_only=True)
class FoundForm:
    """One form of a page: where it goes, and its fields."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """What stands on a page."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.answer = answer
        self.forms: list[FoundForm] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(answer.text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def buttons(self) -> list[str]:
        return [button for form in self.forms for button in form.buttons]

    def form(self, ending: str) -> FoundForm:
        return next(form for form in self.forms if form.action.endswith(ending))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "form":
            self.forms.append(FoundForm(action=found.get("action") or ""))
        elif tag in ("input", "textarea") and self.forms and found.get("name"):
            self.forms[-1].fields[str(found["name"])] = found.get("value") or ""
        elif tag == "button" and self.forms:
            self.forms[-1].buttons.append(found.get("value") or self.forms[-1].action.rpartition("/")[2])

    def handle_data(self, data: str) -> None:
        self.words.append(data)


class Browser:
    """One person's browser."""

    def __init__(self, site: Site, name: str) -> None:
        self.client = httpx.Client(
            base_url=site.base_url,
            cookies={"_token": f"login-{name}"},
            headers={"Accept": "text/html", "Origin": site.base_url, "Sec-Fetch-Site": "same-origin"},
            follow_redirects=True,
            timeout=60,
        )

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def open(self, path: str) -> Page:
        return Page(self.client.get(f"/approvals{path}"))

    def send(self, form: FoundForm, **fields: str) -> Page:
        return Page(self.client.post(form.action, data={**form.fields, **fields}))
