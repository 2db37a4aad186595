"""A stretch of network before an S3 server that counts its requests."""

import contextlib
import re
import socket
from collections.abc import Iterator

from tests.blobs.stretches import Stretch

_REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


class Counter(Stretch):
    """The requests that came through, as ``GET /bucket/key``, in their order."""

    def __init__(self, endpoint: str) -> None:
        self.requests: list[str] = []
        super().__init__(endpoint)

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[str]]:
        """Give the requests of a block."""
        self.requests.clear()
        yield self.requests

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                # a client sends the next request when it has the answer to the last, and so in a piece of its own
                request = _REQUEST.match(piece)
                if request:
                    self.requests.append(f"{request[1].decode()} {request[2].decode()}")
                server.sendall(piece)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)
