"""A stretch of network before an S3 server that counts its requests."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

_REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


class Counter:
    """The requests that came through, as ``GET /bucket/key``, in their order."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self.requests: list[str] = []
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._server]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """The address to use instead of the server's."""
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def close(self) -> None:
        """End all connections, and take no more."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[str]]:
        """Give the requests of a block."""
        self.requests.clear()
        yield self.requests

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._sockets.append(client)
                server = socket.create_connection(self._target)
                self._sockets.append(server)
                for source, target, is_asking in ((client, server, True), (server, client, False)):
                    self._threads.append(threading.Thread(target=self._move, args=(source, target, is_asking)))
                    self._threads[-1].start()

    def _move(self, source: socket.socket, target: socket.socket, is_asking: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                # a client sends the next request when it has the answer to the last, and so in a piece of its own
                request = _REQUEST.match(piece) if is_asking else None
                if request:
                    self.requests.append(f"{request[1].decode()} {request[2].decode()}")
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
