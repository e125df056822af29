"""The pictures in docs/img: pages and the Slack prompt as an approver sees them, and an auditor's report."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from airflow_approvals.channels.slack.message import prompt_of
from airflow_approvals.channels.slack.send import compared, standing_of
from tests.browser.chromium import chromium
from tests.browser.gallery import Gallery, hang
from tests.evidence.conftest import package_of_a_busy_day
from tests.fake_slack.people import FakeSlack
from tests.fake_slack.server import create_fake_app
from tests.fake_slack.workspace import TOKEN
from tests.web.site import free_port, mounted, serving

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "img"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One page in one setting."""

    path: str
    person: str = "alice"
    width: int = 1280
    height: int = 800
    dark: bool = False
    says: str = ""  # a reason to type, and to approve with: the page that asks once more


def pictures_of(gallery: Gallery) -> dict[str, Picture]:
    """Return the pictures by the names of their files."""
    return {
        "inbox": Picture(path="/?view=open", height=680),
        "request": Picture(path=f"/requests/{gallery.pending.id}", height=1130),
    }


def phones_of(gallery: Gallery) -> tuple[Picture, ...]:
    """Return what an approver sees at night, side by side."""
    risky = f"/requests/{gallery.high_risk.id}"
    narrow: dict[str, Any] = {"width": 360, "height": 1120, "dark": True}
    return (
        Picture(path="/", person="carol", **narrow),
        Picture(path=f"/requests/{gallery.emergency.id}", person="carol", **narrow),
        Picture(path=risky, says="Checked with finance.", **narrow),
    )


def take(browser: Browser, base_url: str, picture: Picture) -> bytes:
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="dark" if picture.dark else "light",
    )
    context.add_cookies([{"name": "_token", "value": f"login-{picture.person}", "url": base_url}])
    page = context.new_page()
    page.goto(f"{base_url}/approvals{picture.path}")
    if picture.says:
        page.get_by_label("Reason").fill(picture.says)
        page.get_by_role("button", name="Approve").click()
        page.get_by_role("button", name="Not yet").wait_for()
    page.wait_for_timeout(300)  # for the first look at the clocks
    taken = page.screenshot()
    context.close()
    return taken


def beside(browser: Browser, pictures: Sequence[bytes]) -> bytes:
    """Return one picture of several, side by side."""
    page = browser.new_page(viewport={"width": 1140, "height": 1150})
    shown = "".join(f'<img src="data:image/png;base64,{b64encode(each).decode()}">' for each in pictures)
    page.set_content(f'<body style="margin:15px;display:flex;gap:15px;background:#3a4250">{shown}</body>')
    taken = page.screenshot()
    page.close()
    return taken


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


def take_evidence(browser: Browser, folder: Path) -> None:
    """Take the head of an auditor's report of a day on which much went well and some did not."""
    home = folder / "evidence"
    home.mkdir()
    page = browser.new_page(viewport={"width": 1100, "height": 1430})
    page.goto((package_of_a_busy_day(home) / "index.html").as_uri())
    page.screenshot(path=FOLDER / "evidence.png")
    print("docs/img/evidence.png")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        gallery = hang(Path(folder))
        with serving(mounted(gallery.site.app), gallery.site.port):
            base_url = gallery.site.base_url
            taken = {name: take(browser, base_url, each) for name, each in pictures_of(gallery).items()}
            taken["phones"] = beside(browser, [take(browser, base_url, each) for each in phones_of(gallery)])
        for name, picture in taken.items():
            (FOLDER / f"{name}.png").write_bytes(picture)
            print(f"docs/img/{name}.png")
        take_slack(browser, gallery)
        take_evidence(browser, Path(folder))
        gallery.site.store.close()


if __name__ == "__main__":
    main()
