"""Ports that tests give to servers."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.ports import free_port

BOUND = "import socket, sys; socket.socket().bind(('127.0.0.1', int(sys.argv[1])))"


def test_a_port_is_kept_for_the_server_that_is_to_have_it() -> None:
    port = free_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for _ in ("started", "and started again"):
        with (
            socket.create_server(("127.0.0.1", port)) as server,
            pytest.raises(OSError, match="already in use"),
        ):
            socket.create_server(server.getsockname())
    other = subprocess.run([sys.executable, "-c", BOUND, str(port)], capture_output=True, text=True)
    assert "Address already in use" in other.stderr
