"""Other people's servers: one takes POSTs, one takes mail; each on loopback, each with its moods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from fastapi import FastAPI, Request, Response

from tests.web.site import LOADED, free_port, serving


@dataclass(kw_only=True)
class Call:
    """One POST as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(kw_only=True)
class Receiver:
    """Takes every POST; answers with `moods` first, one each, and then with 202."""

    port: int = field(default_factory=free_port)
    calls: list[Call] = field(default_factory=list)
    moods: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/{path:path}")
        async def take(request: Request, path: str) -> Response:
            headers = dict(request.headers.items())
            self.calls.append(Call(path=path, headers=headers, body=await request.body()))
            status, more = self.moods.pop(0) if self.moods else (202, {})
            return Response(status_code=status, headers=more)

        return app


@contextmanager
def receiving(receiver: Receiver) -> Iterator[Receiver]:
    with serving(receiver.app(), receiver.port):
        yield receiver


class Mailbox:
    """Keeps what the mail server was given; `refusal` is what it says instead of taking it."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.refusal: str | None = None
        self.unknown: set[str] = set()  # addresses that it does not take

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address in self.unknown:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 known"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        if self.refusal is not None:
            return self.refusal
        mail = message_from_bytes(envelope.content, policy=default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 taken"


@contextmanager
def mail_server(port: int) -> Iterator[Mailbox]:
    from aiosmtpd.controller import Controller

    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, ready_timeout=LOADED)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
