"""The pictures in docs/img: the pages as an approver sees them, light and dark, wide and narrow."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser

from tests.browser.chromium import chromium
from tests.browser.gallery import Gallery, hang
from tests.web.site import mounted, serving

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


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        gallery = hang(Path(folder))
        with serving(mounted(gallery.site.app), gallery.site.port):
            for picture in pictures_of(gallery):
                take(browser, gallery.site.base_url, picture)
                print(f"docs/img/{picture.name}.png")
        gallery.site.store.close()


if __name__ == "__main__":
    main()
