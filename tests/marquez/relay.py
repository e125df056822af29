"""A door in front of a lineage backend: while it is shut, the backend is away."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import httpx

from tests.marquez.local import LocalHandler, LocalServer


class _Handler(LocalHandler, BaseHTTPRequestHandler):
    site: Relay

    def do_POST(self) -> None:
        self._pass("POST")

    def do_PUT(self) -> None:
        self._pass("PUT")

    def _pass(self, method: str) -> None:
        body = self.body()
        if not self.site.is_open:
            self.site.refused += 1
            self.say(503)
            return
        answer = httpx.request(
            method,
            f"{self.site.target}{self.path}",
            content=body,
            headers={"Content-Type": "application/json"},
            timeout=60,
        )
        self.say(answer.status_code, answer.content)


class Relay(LocalServer):
    """Passes every call on to `url` while it is open, and answers 503 while it is not."""

    def __init__(self, url: str) -> None:
        super().__init__(_Handler)
        self.target = url
        self.is_open = False
        self.refused = 0
