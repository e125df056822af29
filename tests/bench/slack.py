"""Slack at a busy hour: 1,000 prompts to 50 channels, then clicks, in two real API servers on PostgreSQL.

The fake Slack takes one message a second and channel and answers 429 beyond that. A click is timed from its
signed call to the 200, and to the prompt that has lost its buttons, both as the fake Slack sees them.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

from airflow_approvals.client.api import ApprovalsClient
from airflow_approvals.client.tokens import login_token
from tests.channels.real import ACCOUNTS, ALICE, RealSite, eventually
from tests.databases import empty_database
from tests.fake_slack.people import FakeSlack
from tests.fake_slack.server import create_fake_app
from tests.fake_slack.workspace import Message
from tests.provider.site import free_port, login, start, stop, wait_until_healthy
from tests.web.site import an_opening, serving

WARM_UP = 10
OPENERS = 8


def figures(*, prompts: int = 1_000, channels: int = 50, clicks: int = 200) -> dict[str, float]:
    """Return milliseconds of a click, and what became of the prompts."""
    with ExitStack() as stack:
        url = stack.enter_context(empty_database(os.environ["APPROVALS_TEST_POSTGRES"], "slack_bench"))
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slack-bench-")))
        slack = stack.enter_context(_slack(channels))
        site = RealSite(home, url, slack)
        (home / "policy.yaml").write_text(_policy(channels))
        site.migrate()
        servers = [stack.enter_context(_server(site, port)) for port in (site.port, free_port())]
        for server in servers:
            wait_until_healthy(server)
        site.link_all()
        slack.per_second = True
        began = time.monotonic()
        opened = _open(servers, prompts, channels)
        found = _wait_for_prompts(slack, opened)
        seconds = max(message.posted_at for each in found.values() for message in each) - began
        taken = [_click(site, found[request_id][0]) for request_id in opened[: WARM_UP + clicks]][WARM_UP:]
    return {
        "click_ms_p99": _p99([answered for answered, _ in taken]),
        "freeze_ms_p99": _p99([frozen for _, frozen in taken]),
        "click_ms_p50": _percentile([answered for answered, _ in taken], 0.5),
        "freeze_ms_p50": _percentile([frozen for _, frozen in taken], 0.5),
        "lost": float(sum(not found[request_id] for request_id in opened)),
        "doubled": float(sum(max(0, len(found[request_id]) - 1) for request_id in opened)),
        "rate_limited": float(slack.limited),
        "seconds_to_post_all": seconds,
        "prompts": float(prompts),
    }


@contextmanager
def _slack(channels: int) -> Iterator[FakeSlack]:
    port = free_port()
    slack = FakeSlack(
        address=f"http://127.0.0.1:{port}", channels={_channel(number): set() for number in range(channels)}
    )
    for account, name in ACCOUNTS.items():
        slack.add_user(account, name)
    with serving(create_fake_app(slack), port):
        yield slack


@contextmanager
def _server(site: RealSite, port: int) -> Iterator[str]:
    process = start(site.home, site.env, "api-server", "--host", "127.0.0.1", "--port", str(port))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def _open(servers: list[str], prompts: int, channels: int) -> list[str]:
    """Open requests as engineer, at both servers side by side; return their ids."""
    tokens = {server: login(server, "engineer") for server in servers}
    turns = cycle(servers)
    clients = [
        ApprovalsClient(server, login_token(tokens[server]), 60.0)
        for server in (next(turns) for _ in range(OPENERS))
    ]

    def open_one(number: int) -> str:
        name = f"feed-{number}"
        opening = an_opening(name, folder=f"{number % channels}/")
        request, _ = clients[number % OPENERS].open_request(opening, idempotency_key=name)
        return request.id

    with ThreadPoolExecutor(OPENERS) as pool:
        return list(pool.map(open_one, range(prompts)))


def _wait_for_prompts(slack: FakeSlack, opened: list[str]) -> dict[str, list[Message]]:
    """Return the messages about each request, once every request has one, or long after it should have."""
    deadline = time.monotonic() + 60 + 3 * len(opened) / len(slack.channels)
    while len(slack.messages) < len(opened) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)  # whatever is sent twice, is sent soon
    found: dict[str, list[Message]] = {request_id: [] for request_id in opened}
    for message in slack.messages:
        buttons = (block["elements"][0] for block in message.blocks if block["type"] == "actions")
        for button in buttons:
            found[json.loads(button["value"])[0]].append(message)
    return found


def _click(site: RealSite, message: Message) -> tuple[float, float]:
    """Return milliseconds from a click on Approve to its answer, and to the prompt without buttons."""
    edits = message.edits
    began = time.monotonic()
    answer = site.slack.click(ALICE, message, "approvals.approve")
    answered = time.monotonic()
    if answer.status_code != 200:
        raise RuntimeError(f"a click was answered with {answer.status_code}")
    eventually(lambda: message.edits > edits and "actions" not in {each["type"] for each in message.blocks})
    return 1000 * (answered - began), 1000 * (message.edited_at - began)


def _policy(channels: int) -> str:
    named = [
        f"  c{number}: {{kind: slack, conn_id: slack_approvals, channel: {_channel(number)}}}"
        for number in range(channels)
    ]
    policies = [
        f"  - name: export-{number}\n"
        f'    match: {{action: [export], destination: ["file:///outbox/{number}/**"]}}\n'
        "    require: [{group: data-stewards}]\n"
        f"    notify: [c{number}]"
        for number in range(channels)
    ]
    groups = "groups:\n  data-stewards: {users: [alice, bob]}"
    return "\n".join(["version: 1", groups, "channels:", *named, "policies:", *policies, ""])


def _channel(number: int) -> str:
    return f"C{number:04d}"


def _p99(values: list[float]) -> float:
    return _percentile(values, 0.99)


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
