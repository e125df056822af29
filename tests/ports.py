"""Ports of loopback for servers that are about to start.

`python -m tests.ports COUNT` prints as many, and holds them until its input ends.
"""

from __future__ import annotations

import socket
import sys
from collections import deque

MOST = 256  # open files of a test process are not endless
_held: deque[socket.socket] = deque()


def free_port() -> int:
    """Return a port that is this process's for its next `MOST` calls, whether or not something listens there.

    The kernel gives a bound port to nobody else, neither to who asks for any nor to who connects. A server
    that means to reuse addresses, as servers do, may still listen on one on which nothing does.
    """
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.append(holder)
    if len(_held) > MOST:
        _held.popleft().close()
    return int(holder.getsockname()[1])


if __name__ == "__main__":
    sys.stdout.write(" ".join(str(free_port()) for _ in range(int(sys.argv[1]))) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
