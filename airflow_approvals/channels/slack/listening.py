"""Socket Mode: clicks come through a connection that is made from here, so that nothing has to be open.

https://docs.slack.dev/apis/events-api/using-socket-mode
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_approvals.channels.connections import check_address
from airflow_approvals.channels.outbox import Deliveries, SendError
from airflow_approvals.channels.slack.acting import carry_out, intent_for
from airflow_approvals.channels.slack.answers import Answers
from airflow_approvals.channels.slack.interactive import Doing
from airflow_approvals.channels.slack.signature import SignatureRefusedError
from airflow_approvals.channels.slack.workspace import TIMEOUT, Workspace, Workspaces
from airflow_approvals.core.errors import ConfigurationError

if TYPE_CHECKING:
    from slack_sdk.socket_mode.aiohttp import SocketModeClient
    from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
    from slack_sdk.socket_mode.request import SocketModeRequest

PING = 5.0
"""Seconds between two looks whether the connection lives; a dead one is made anew."""

_AGAIN = 5.0  # seconds, while Slack cannot be reached at all
_LAST = 20.0  # seconds for what is being carried out when it is time to stop

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Takes what comes through the socket of one workspace; several processes may listen side by side."""

    answers: Answers
    deliveries: Deliveries
    workspaces: Workspaces
    conn_id: str
    clock: Callable[[], datetime]
    new_lease: Callable[[], str]

    async def listen(self, stopped: asyncio.Event, connected: Callable[[], object] = lambda: None) -> None:
        """Listen until `stopped`; `connected` is called once the first connection stands.

        Raises `ConfigurationError` when Slack does not take the app token: slack_sdk would try for ever.
        """
        from slack_sdk.socket_mode.response import SocketModeResponse

        client = await self._open(stopped)
        if client is None:
            return
        acting: set[asyncio.Task[None]] = set()

        async def heard(_: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
            # What cannot be acknowledged is not done either: Slack tells the person that it failed.
            await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
            task = asyncio.create_task(asyncio.to_thread(self.take, request.envelope_id, request.payload))
            acting.add(task)
            task.add_done_callback(acting.discard)

        client.socket_mode_request_listeners.append(heard)
        try:
            await client.connect()  # type: ignore[no-untyped-call]  # slack_sdk's
            log.info("connection %s: listening in Socket Mode", self.conn_id)
            connected()
            await stopped.wait()
        finally:
            await client.close()  # type: ignore[no-untyped-call]  # slack_sdk's
            if acting:
                await asyncio.wait(acting, timeout=_LAST)

    def take(self, envelope_id: str, payload: Mapping[str, Any]) -> None:
        """Carry out what an envelope asks for, once, whoever gets it; never raises."""
        digest = hashlib.sha256(f"{self.conn_id}:{envelope_id}".encode()).hexdigest()
        try:
            if not self.deliveries.outbox.is_first_use(digest, now=self.clock()):
                log.info("an envelope came before")
                return
            workspace = self.workspaces.get(self.conn_id)
            intent = intent_for(payload, workspace)
        except (SignatureRefusedError, ConfigurationError) as refusal:
            log.warning("an envelope was refused: %s", refusal)
            return
        except Exception:
            # The next envelope may fare better; the traceback is in the log, and the person can click again.
            log.exception("an envelope was not read")
            return
        if isinstance(intent, Doing):
            carry_out(
                self.answers,
                self.deliveries,
                intent,
                workspace,
                clock=self.clock,
                new_lease=self.new_lease,
            )

    async def _open(self, stopped: asyncio.Event) -> SocketModeClient | None:
        """Return a client that has an address to connect to; None when it was stopped before."""
        while not stopped.is_set():
            workspace = await asyncio.to_thread(self.workspaces.get, self.conn_id)
            try:
                url = await asyncio.to_thread(workspace.socket_url, now=self.clock())
            except SendError as trouble:
                if trouble.refused:
                    raise ConfigurationError(
                        f"connection {self.conn_id}: {trouble}; its extra needs an app_token (xapp-...) with "
                        "the scope connections:write, and Socket Mode must be on in the Slack app"
                    ) from trouble
                log.warning("connection %s: %s; trying again", self.conn_id, trouble)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), _AGAIN)
            else:
                return _client_of(workspace, url)
        return None


def _client_of(workspace: Workspace, url: str) -> SocketModeClient:
    """Return slack_sdk's client: it makes dead connections anew, and comes again when Slack asks for it."""
    from slack_sdk.socket_mode.aiohttp import SocketModeClient
    from slack_sdk.web.async_client import AsyncWebClient

    class Encrypted(SocketModeClient):
        async def issue_new_wss_url(self) -> str:
            return checked(await super().issue_new_wss_url())

    def checked(address: str) -> str:
        check_address(workspace.conn_id, address, kind="ws")
        return address

    web = AsyncWebClient(base_url=workspace.base_url, proxy=workspace.proxy, timeout=TIMEOUT)
    client = Encrypted(
        app_token=workspace.app_token, web_client=web, proxy=workspace.proxy, ping_interval=PING
    )
    client.wss_uri = checked(url)
    return client
