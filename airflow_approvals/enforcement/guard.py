"""The guard in front of Airflow's execution API: opens sealed secrets for approved tasks alone.

It is the outermost of our layers on the API server, and passes on byte for byte whatever is not about a
connection or variable. What it answers itself is decided after Airflow has checked the caller's token. The
dag processor and the triggerer ask an execution API in their own process, which no such layer sees: they get
what is stored, the seal.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from airflow_approvals.core.errors import ApprovalsError, ServiceUnavailableError
from airflow_approvals.core.guard_probe import GUARD_HEADER
from airflow_approvals.core.lending import Kind
from airflow_approvals.core.sealed import MARK, read_sealed
from airflow_approvals.enforcement.sealing import FIELDS, Vault

if TYPE_CHECKING:
    from airflow_approvals.service import Service
    from airflow_approvals.web.backend import Backend

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ASKED = re.compile(r"/execution/(connection|variable)s/(.+)", re.DOTALL)
_MARK = MARK.encode()
_LISTS_KEYS = "keys"
"""`GET /execution/variables/keys` lists names, and is no variable."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Answer:
    """An answer that is held back until it is clear who may have it."""

    start: Message = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    trailing: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.start.get("status", 500))

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    async def take(self, message: Message) -> None:
        """Keep a message of the answer: Airflow's `send`."""
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body":
            self.parts.append(message.get("body", b""))
        else:
            self.trailing.append(message)

    async def give(self, send: Send, body: bytes | None = None) -> None:
        """Send the answer on, with another body if one is given."""
        if body is not None:
            headers = [(name, value) for name, value in self.start["headers"] if name != b"content-length"]
            headers += [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
            self.start["headers"] = headers
        await send(self.start)
        await send({"type": "http.response.body", "body": self.body if body is None else body})
        for message in self.trailing:
            await send(message)


class SecretGuard:
    """ASGI middleware; `open_vault` reads the sealing keys anew, so that a rotation needs no restart."""

    def __init__(self, app: App, *, backend: Backend, open_vault: Callable[[], Vault]) -> None:
        self._app = app
        self._backend = backend
        self._open_vault = open_vault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _asked(scope)
        if asked is None:
            await self._app(scope, receive, send)
            return
        kind, name = asked
        if scope["method"] == "GET":
            await self._read(scope, receive, send, kind, name)
        else:
            await self._change(scope, receive, send, kind, name)

    async def _read(self, scope: Scope, receive: Receive, send: Send, kind: Kind, name: str) -> None:
        answer = await self._ask_airflow(scope, receive)
        # Only Airflow's own yes is looked at: it has checked the token, and that there is such a secret.
        if answer.status != 200 or not await self._is_guarded(answer.body, kind, name):
            if answer.status in (401, 403):  # by this `doctor` sees that the guard is there
                answer.start["headers"] = [*answer.start["headers"], (GUARD_HEADER.encode(), b"1")]
            await answer.give(send)
            return
        try:
            body = await self._backend.run(self._lent, task_of(scope), kind, name, answer.body)
        except ApprovalsError as refusal:
            await _refuse(send, kind, name, refusal)
        except Exception:
            # Whatever it was: a secret is never given away by a fault. The traceback is in the log.
            log.exception("%s %s could not be opened", kind, name)
            await _refuse(send, kind, name, ServiceUnavailableError(f"{kind} {name} cannot be opened now"))
        else:
            await answer.give(send, body)

    async def _change(self, scope: Scope, receive: Receive, send: Send, kind: Kind, name: str) -> None:
        # Whoever may not even read it has no token that Airflow takes, and is told so by Airflow.
        seen = await self._ask_airflow({**scope, "method": "GET"}, no_body)
        known = seen.status in (200, 404)
        if not known or not await self._is_guarded(seen.body, kind, name):
            await self._app(scope, receive, send)
            return
        ti_id, now = task_of(scope), datetime.now(UTC)
        try:
            refusal: ApprovalsError = await self._backend.run(
                lambda: self._backend.service.refuse_change(ti_id, kind, name, now=now)
            )
        except ApprovalsError as trouble:
            refusal = trouble
        await _refuse(send, kind, name, refusal)

    async def _ask_airflow(self, scope: Scope, receive: Receive) -> Answer:
        answer = Answer()
        # What is compressed could not be looked into.
        headers = [(key, value) for key, value in scope["headers"] if key.lower() != b"accept-encoding"]
        await self._app({**scope, "headers": headers}, receive, answer.take)
        return answer

    async def _is_guarded(self, body: bytes, kind: Kind, name: str) -> bool:
        if _MARK in body:
            return True
        service = self._backend.built or await self._backend.run(self._service_or_none)
        return service is not None and service.find_protection(kind, name) is not None

    def _service_or_none(self) -> Service | None:
        try:
            return self._backend.service
        except ApprovalsError as trouble:
            # Without a database or key nothing is known to be protected; what is sealed stays so.
            log.warning("protected names are not known: %s", trouble)
            return None

    def _lent(self, ti_id: str, kind: Kind, name: str, body: bytes) -> bytes:
        """Return the answer that the task may have; raise for one that may have none."""
        service, now = self._backend.service, datetime.now(UTC)
        service.lend(ti_id, kind, name, now=now)
        if _MARK not in body:
            return body  # protected and not sealed yet
        told: dict[str, Any] = json.loads(body)
        try:
            sealed = read_sealed(told["extra" if kind == "connection" else "value"], kind=kind, name=name)
            content = self._open_vault().open(sealed)
        except ApprovalsError as refusal:
            service.record_refusal(f"worker:{ti_id}", None, f"open {kind} {name}", refusal, now=now)
            raise
        if kind == "variable":
            told["value"] = content["value"]
        else:
            told.update({key: content[key] for key in FIELDS if key in told})
        return json.dumps(told).encode()


def _asked(scope: Scope) -> tuple[Kind, str] | None:
    """Return the secret that a request is about; None for any other request."""
    if scope["type"] != "http" or "/execution/" not in scope["path"]:
        return None
    found = _ASKED.fullmatch(route_path(scope))
    if found is None or (found[1] == "variable" and found[2] == _LISTS_KEYS):
        return None
    return cast(Kind, found[1]), found[2]


def route_path(scope: Scope) -> str:
    """Return the path below `[api] base_url`, as Starlette's router tells it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def task_of(scope: Scope) -> str:
    """Return the task instance that a token names, which Airflow has verified by the time this is asked."""
    import jwt

    tokens = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    if len(tokens) != 1:
        return ""  # Airflow verified the first of them, which need not be the one that is read here
    token = tokens[0].decode("latin-1").partition(" ")[2]
    try:
        claims = jwt.decode(token.strip(), options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return ""
    return str(claims.get("sub", ""))


async def _refuse(send: Send, kind: Kind, name: str, refusal: ApprovalsError) -> None:
    unavailable = isinstance(refusal, ServiceUnavailableError)
    log.warning("refused: %s", refusal)
    told = {"detail": {"reason": refusal.type, "message": str(refusal), kind: name}}
    body = json.dumps(told).encode()
    await send(
        {
            "type": "http.response.start",
            # 403 keeps Airflow's SDK from looking for the secret elsewhere; 503 lets it try again.
            "status": 503 if unavailable else 403,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def no_body() -> Message:
    """Give the body of a request that has none."""
    return {"type": "http.request", "body": b"", "more_body": False}
