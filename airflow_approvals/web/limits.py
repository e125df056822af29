"""How much a caller may send."""

from __future__ import annotations

from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_approvals.web.problems import TooLargeError, problem_of

MAX_BODY = 1 << 20
"""Bytes of one body: evidence of some thousand files fits; more belongs into fewer, larger files."""


class BodyLimit:
    """Refuses larger bodies, whether their length is stated, wrongly stated or not stated at all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen, too_large, started = 0, False, False
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > MAX_BODY:
            await _refuse(scope, receive, send)
            return

        async def counted() -> Message:
            nonlocal seen, too_large
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MAX_BODY:
                too_large = True
                return {"type": "http.disconnect"}
            return message

        async def answer(message: Message) -> None:
            nonlocal started
            if too_large and not started:
                return
            started = True
            await send(message)

        # A route that reads the body itself is told that the caller has hung up: so it has, or so we have.
        with suppress(ClientDisconnect):
            await self._app(scope, counted, answer)
        if too_large and not started:
            await _refuse(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    error = TooLargeError(f"the body is larger than {MAX_BODY} bytes; send less, or evidence of fewer files")
    await problem_of(Request(scope), error)(scope, receive, send)
