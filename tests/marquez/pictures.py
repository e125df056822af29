"""The pictures of Marquez in docs/img: its own web page, after the demo's DAG has run in a whole Airflow.

    MARQUEZ_JAR=... tools/with-marquez python -m tests.marquez.pictures WEB ROOT

WEB is the `web` folder of Marquez's sources, its page built (`npm ci && npm run build`); ROOT is an empty
folder with a short path, because the page cuts the names of datasets after 15 letters.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import httpx
from playwright.sync_api import Browser, FloatRect

from airflow_approvals.core.model import Verdict
from demo.calls import Stage
from demo.embedded import EmbeddedAirflow
from demo.places import CHECKOUT
from tests.browser.chromium import chromium
from tests.lineage.world import ROLES, Marquez, Run, lay_out, openlineage_env, wait_for_quiet
from tests.web.site import free_port

FOLDER = CHECKOUT / "docs" / "img"
DAG_ID = "customer_export"
WIDTH, HEADER = 1600, 68


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One page of Marquez's, what is clicked in it, and how much of it is kept."""

    name: str
    path: str
    height: int
    clicks: tuple[str, ...] = ()
    left: int = 0  # where the kept part begins


def pictures_of(data: Path) -> tuple[Picture, ...]:
    """Return what there is to see of the DAG's run over the data in this folder."""
    job = f"{DAG_ID}.export"
    staged, masked = (str(data / folder / "customers.parquet") for folder in ("staged", "masked"))
    return (
        Picture(
            name="marquez-graph",
            path=f"lineage/job/default/{job}?depth=10",
            height=560,
        ),
        Picture(
            name="marquez-approval",
            path=f"lineage/job/default/{job}?{_drawer(f'job:default:approval.{job}')}",
            height=1360,
            clicks=('text="votes"', "text=0:"),
            left=800,
        ),
        Picture(
            name="marquez-columns",
            path=f"datasets/column-level/file/{quote(masked, safe='')}?depth=5",
            height=900,
        ),
        Picture(
            name="marquez-tags",
            path=f"lineage/dataset/file/{quote(staged, safe='')}?{_drawer(f'dataset:file:{staged}')}",
            height=850,
            clicks=("text=Show Field Tags",),
            left=800,
        ),
    )


def main() -> None:
    """Run the DAG, have it approved, stop Airflow, and look at what Marquez shows of it."""
    web, root = map(Path, sys.argv[1:])
    marquez = Marquez(url=os.environ["APPROVALS_TEST_MARQUEZ"], stand_in=None)
    _run_the_dag(root, marquez)
    with _served(web, marquez.url) as address, chromium() as browser:
        for picture in pictures_of(root / "data"):
            _take(browser, address, picture)


def _run_the_dag(root: Path, marquez: Marquez) -> None:
    places = lay_out(root)
    folders = {"dags": CHECKOUT / "dags"}
    env = openlineage_env(marquez.url)
    with EmbeddedAirflow(places, roles=ROLES, dag_folders=folders, env=env) as airflow:
        run = Run(Stage(airflow), DAG_ID, "monday")
        run.trigger({})
        run.wait_until_settled()
        run.answer(Verdict.APPROVE)
        run.wait_until_over()
        wait_for_quiet(marquez)


def _drawer(node: str) -> str:
    return urlencode({"depth": 10, "tableLevelNode": node})


@contextmanager
def _served(web: Path, marquez: str) -> Iterator[str]:
    """Serve the built page as Marquez's own image does."""
    host, _, port = marquez.removeprefix("http://").partition(":")
    own = free_port()
    env = os.environ | {"MARQUEZ_HOST": host, "MARQUEZ_PORT": port, "WEB_PORT": str(own)}
    with subprocess.Popen(["node", "setupProxy.js"], cwd=web, env=env, stdout=subprocess.DEVNULL) as server:
        try:
            address = f"http://127.0.0.1:{own}"
            for _ in range(600):
                with suppress(httpx.TransportError):
                    httpx.get(f"{address}/healthcheck", timeout=60)
                    break
                time.sleep(0.1)
            yield address
        finally:
            server.terminate()


def _take(browser: Browser, address: str, picture: Picture) -> None:
    page = browser.new_context(viewport={"width": WIDTH, "height": picture.height}).new_page()
    page.goto(f"{address}/{picture.path}")
    page.wait_for_timeout(4_000)  # the graph is laid out, and then moves into place
    for each in picture.clicks:
        page.locator(each).first.click()
        page.wait_for_timeout(500)
    width, top = WIDTH - picture.left, HEADER if picture.left else 0
    clip: FloatRect = {"x": picture.left, "y": top, "width": width, "height": picture.height - top}
    page.screenshot(path=FOLDER / f"{picture.name}.png", clip=clip)
    print(f"docs/img/{picture.name}.png")
    page.close()


if __name__ == "__main__":
    main()
