"""The pictures in docs/img: pages and the Slack prompt as an approver sees them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser

from airflow_approvals.channels.slack.message import prompt_of
from airflow_approvals.channels.slack.send import compared, standing_of
from tests.browser.chromium import chromium
from tests.browser.gallery import Gallery, hang
from tests.fake_slack.people import FakeSlack
from tests.fake_slack.server import create_fake_app
from tests.fake_slack.workspace import TOKEN
from tests.web.site import free_port, mounted, serving

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "img"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One page in one setting."""

    name: str
    path: str
    person: str = "alice"
    width: int = 1280
    height: int = 800
    dark: bool = False


def pictures_of(gallery: Gallery) -> tuple[Picture, ...]:
    pending, completed = f"/requests/{gallery.pending.id}", f"/requests/{gallery.completed.id}"
    return (
        Picture(name="inbox", path="/?view=open", height=420),
        Picture(name="request", path=pending, height=1130),
        Picture(name="request-dark", path=pending, height=1130, dark=True),
        Picture(name="request-completed", path=completed, height=1130),
        Picture(name="inbox-narrow", path="/?view=open", width=360),
        Picture(name="request-narrow", path=pending, person="engineer", width=360, height=1130),
    )


def take(browser: Browser, base_url: str, picture: Picture) -> None:
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="dark" if picture.dark else "light",
    )
    context.add_cookies([{"name": "_token", "value": f"login-{picture.person}", "url": base_url}])
    page = context.new_page()
    page.goto(f"{base_url}/approvals{picture.path}")
    page.wait_for_timeout(300)  # for the first look at the clocks
    page.screenshot(path=FOLDER / f"{picture.name}.png")
    context.close()


def take_slack(browser: Browser, gallery: Gallery) -> None:
    """Take the prompt as it stands in the fake Slack's channel."""
    port, service = free_port(), gallery.site.service
    slack = FakeSlack(address=f"http://127.0.0.1:{port}")
    for name in ("alice", "carol", "engineer"):
        slack.add_user(f"U0{name.upper()}", name)
    request = gallery.pending
    standing = standing_of(service, request, "https://airflow.example.com")
    prompt = prompt_of(request, compared(service, request, standing))
    _, answer, _ = slack.call("chat.postMessage", {"channel": "C0DATA", **prompt}, TOKEN)
    if not answer["ok"]:
        raise RuntimeError(f"the fake Slack did not take the prompt: {answer}")
    with serving(create_fake_app(slack), port):
        page = browser.new_context(viewport={"width": 1100, "height": 780}).new_page()
        page.goto(f"{slack.address}/?user=U0ALICE")
        page.screenshot(path=FOLDER / "slack.png")
    print("docs/img/slack.png")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        gallery = hang(Path(folder))
        with serving(mounted(gallery.site.app), gallery.site.port):
            for picture in pictures_of(gallery):
                take(browser, gallery.site.base_url, picture)
                print(f"docs/img/{picture.name}.png")
        take_slack(browser, gallery)
        gallery.site.store.close()


if __name__ == "__main__":
    main()
