"""The fake Slack on loopback: its Web API under `/api`, its sockets, and a page where a person can click."""

from __future__ import annotations

import asyncio
import contextlib
import json
from urllib.parse import parse_qs, quote

from anyio import to_thread
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, JSONResponse

from tests.fake_slack.page import CHANNEL, HOME, page_of
from tests.fake_slack.people import FakeSlack, Socket
from tests.fake_slack.workspace import APP, READING, Json


def create_fake_app(slack: FakeSlack) -> FastAPI:
    """Return the app; it is to be served at `slack.address`."""
    app = FastAPI(openapi_url=None)
    _add_web_api(app, slack)
    _add_sockets(app, slack)
    _add_page(app, slack)
    return app


def _add_web_api(app: FastAPI, slack: FakeSlack) -> None:
    @app.post("/api/{method}")
    async def _call(method: str, request: Request) -> Response:
        body = await request.body()
        while method in slack.held:
            await asyncio.sleep(0.02)
            if await request.is_disconnected():
                slack.given_up += 1
                return Response(status_code=499)  # nobody is there any more, and nothing is done
        if slack.is_down:
            slack.turned_away += 1
            return Response(status_code=503)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        is_json = request.headers.get("content-type", "").startswith("application/json")
        if is_json and method in READING and body not in (b"", b"{}"):
            return JSONResponse({"ok": False, "error": "invalid_form_data"})
        arguments = (
            json.loads(body or b"{}") if is_json else {k: v[0] for k, v in parse_qs(body.decode()).items()}
        )
        arguments = {**dict(request.query_params), **arguments}
        status, answer, headers = slack.call(method, arguments, token)
        return JSONResponse(answer, status_code=status, headers=headers)

    @app.post("/response/{token}")
    async def _respond(token: str, request: Request) -> Response:
        if slack.is_down:
            return Response(status_code=503)
        status, told = slack.respond(token, await request.json())
        return Response(told, status_code=status)


def _add_sockets(app: FastAPI, slack: FakeSlack) -> None:
    @app.websocket("/socket")
    async def _socket(websocket: WebSocket, ticket: str = "") -> None:
        if slack.is_down or ticket not in slack.tickets:
            await websocket.close(code=1008)
            return
        slack.tickets.remove(ticket)
        socket = Socket(asyncio.get_running_loop(), asyncio.Queue())
        slack.sockets.append(socket)  # before it is accepted: who is connected is told from then on
        try:
            await _converse(websocket, socket, len(slack.sockets))
        finally:
            slack.sockets.remove(socket)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it is closed already
            await websocket.close()


async def _converse(websocket: WebSocket, socket: Socket, number: int) -> None:
    """Say hello, then send and take until either side has enough."""
    await websocket.accept()
    about = {"connection_info": {"app_id": APP}, "num_connections": number}
    await websocket.send_json({"type": "hello", "debug_info": {"host": "fake"}, **about})
    reading = asyncio.create_task(_read(websocket, socket))
    sending = asyncio.create_task(_send(websocket, socket))
    _, rest = await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()


async def _read(websocket: WebSocket, socket: Socket) -> None:
    """Take acknowledgements until the other side goes."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            message: Json = await websocket.receive_json()
            waiting = socket.waiting.get(message.get("envelope_id", ""))
            if waiting is not None and not waiting.done():
                waiting.set_result(None)


async def _send(websocket: WebSocket, socket: Socket) -> None:
    while (message := await socket.outgoing.get()) is not None:
        await websocket.send_json(message)


def _add_page(app: FastAPI, slack: FakeSlack) -> None:
    @app.get("/")
    def _page(user: str = "", view: str = CHANNEL) -> HTMLResponse:
        return HTMLResponse(page_of(slack, user, view))

    @app.get("/home")
    def _home(user: str) -> Response:
        slack.open_home(user)
        return _back(user, HOME)

    @app.post("/do/click")
    async def _click(request: Request) -> Response:
        form = await _form(request)
        user, action = form["user"], form["action_id"]
        if form.get("channel"):
            message = slack.find(form["channel"], form["ts"])
            if message is None:
                return Response("no such message", status_code=404)
            await to_thread.run_sync(lambda: slack.click(user, message, action))
        else:
            await to_thread.run_sync(lambda: slack.click_at_home(user, action, form["request"]))
        await _settled(slack, user)
        return _back(user, CHANNEL if form.get("channel") else HOME)

    @app.post("/do/submit")
    async def _submit(request: Request) -> Response:
        form = await _form(request)
        user, text = form["user"], form.get("text")
        await to_thread.run_sync(lambda: slack.submit(user, text))
        slack.views = [each for each in slack.views if each["user"] != user]
        await _settled(slack, user)
        return _back(user, form.get("view", CHANNEL))

    @app.post("/do/close")
    async def _close(request: Request) -> Response:
        form = await _form(request)
        with contextlib.suppress(LookupError):
            await to_thread.run_sync(lambda: slack.close(form["user"]))
        return _back(form["user"], form.get("view", CHANNEL))


async def _settled(slack: FakeSlack, user: str) -> None:
    """Wait a moment for what a click leads to, so that the page which follows shows it."""
    before = _seen(slack, user)
    for _ in range(20):
        await asyncio.sleep(0.05)
        if _seen(slack, user) != before:
            return


def _seen(slack: FakeSlack, user: str) -> tuple[int, ...]:
    edits = sum(message.edits for message in slack.messages)
    return len(slack.notes), len(slack.views), len(slack.messages), edits, id(slack.homes.get(user))


async def _form(request: Request) -> dict[str, str]:
    return {key: value[0] for key, value in parse_qs((await request.body()).decode()).items()}


def _back(user: str, view: str) -> Response:
    return Response(status_code=303, headers={"Location": f"/?user={quote(user)}&view={quote(view)}"})
