"""`slack-listen`: takes clicks from Slack in Socket Mode, beside the API server, on its database."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from airflow_approvals.channels.joined import Channels
from airflow_approvals.channels.slack.groups import keep_fresh
from airflow_approvals.channels.slack.listening import Listener
from airflow_approvals.channels.slack.send import KIND
from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.output import print_line
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.service import Service

log = logging.getLogger(__name__)


def listen(_: Namespace) -> int:
    """Listen for every Slack workspace that the policy file names, until it is told to stop."""
    # Connections come from the metadata database too: as in Airflow's own commands (connection_command.py).
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    try:
        from airflow_approvals.settings import read_settings

        settings = read_settings()
    except ImportError as error:
        raise ConfigurationError(
            "slack-listen works on Airflow's metadata database: run it where Airflow is installed and "
            "configured like the API server"
        ) from error
    from airflow_approvals.wiring import build_channels, build_service

    service = build_service(settings)
    channels = build_channels(service, settings)
    asyncio.run(_listen(channels, _connections(service, channels)))
    return Exit.OK


def _connections(service: Service, channels: Channels) -> Sequence[str]:
    """Return the connections that can listen; raise `ConfigurationError` when there is none."""
    named = {each.conn_id for each in service.policies.current().channels.values() if each.kind == KIND}
    found = [conn_id for conn_id in sorted(filter(None, named)) if channels.workspaces.get(conn_id).app_token]
    if not found:
        raise ConfigurationError(
            f"no connection of a Slack channel ({', '.join(sorted(filter(None, named))) or 'none is named'}) "
            "has an app_token in its extra; make an app-level token with connections:write in the Slack app"
        )
    return found


async def _listen(channels: Channels, conn_ids: Sequence[str]) -> None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    listeners = [
        Listener(
            answers=channels.answers,
            deliveries=channels.deliveries,
            workspaces=channels.workspaces,
            conn_id=conn_id,
            clock=lambda: datetime.now(UTC),
            new_lease=lambda: str(uuid4()),
        )
        for conn_id in conn_ids
    ]
    fresh = asyncio.create_task(keep_fresh(lambda: channels.groups))
    try:
        async with asyncio.TaskGroup() as group:
            for listener in listeners:
                group.create_task(_listen_to(listener, stopped))
    finally:
        fresh.cancel()


async def _listen_to(listener: Listener, stopped: asyncio.Event) -> None:
    def say() -> None:
        print_line(f"connection {listener.conn_id}: listening to Slack in Socket Mode; Ctrl-C ends it")

    await listener.listen(stopped, say)
