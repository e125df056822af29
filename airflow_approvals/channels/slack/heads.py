"""The ledger's signed head as a line in a Slack channel, where whoever owns the database cannot change it."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_approvals.channels.outbox import Outbox
from airflow_approvals.channels.slack.workspace import Workspaces
from airflow_approvals.core.canonical import sha256_hex
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.heads import Head


def post_head(
    workspaces: Workspaces, outbox: Outbox, address: str, head: Head, *, interval: float, now: datetime
) -> None:
    """Post the head to `slack://CONN_ID/CHANNEL`, unless another process has within this interval.

    Raises `ConfigurationError` for another address, and `SendError` when Slack does not take it.
    """
    conn_id, slash, channel = address.partition("://")[2].partition("/")
    if not (conn_id and slash and channel) or "/" in channel:
        raise ConfigurationError(
            f"[approvals] witness: {address}: expected slack://CONN_ID/CHANNEL, like "
            "slack://slack_approvals/C0123456"
        )
    workspace = workspaces.get(conn_id)
    turn = int(now.timestamp() // max(interval, 1.0))
    digest = sha256_hex(f"witness {address} {turn}".encode())
    if not outbox.is_first_use(digest, now=now, within=timedelta(seconds=interval)):
        return
    # As code: nothing in it becomes a link.
    text = f"`{head.line}`"
    workspace.call("chat.postMessage", now=now, channel=channel, text=text, unfurl_links=False)
