"""A door in front of a lineage backend: while it is shut, the backend is away."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx


class Relay:
    """Passes every call on to `url` while it is open, and answers 503 while it is not."""

    def __init__(self, url: str) -> None:
        self.target = url
        self.is_open = False
        self.refused = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"relay": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    relay: Relay

    def do_POST(self) -> None:
        self._pass("POST")

    def do_PUT(self) -> None:
        self._pass("PUT")

    def _pass(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.relay.is_open:
            self.relay.refused += 1
            self._say(503, b"")
            return
        answer = httpx.request(
            method,
            f"{self.relay.target}{self.path}",
            content=body,
            headers={"Content-Type": "application/json"},
            timeout=60,
        )
        self._say(answer.status_code, answer.content)

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
