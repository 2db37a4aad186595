"""What stands before an S3 server and misbehaves: a balancer that knows no bucket, or breaks connections off."""

import contextlib
import socket
import struct
import threading
from urllib.parse import urlsplit

_NOT_FOUND = b"404 page not found\n"
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Front:
    """Passes requests on, unless it is told otherwise. Each comes in a piece of its own."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self.is_lost = False
        """Answer everything by a 404 of one's own, which is no answer of the server's."""
        self.resets: bytes | None = None
        """Pass on what begins with this, and reset the connection at once instead of waiting for the answer."""
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

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for work in (self._pass_on, self._answer):
                    self._threads.append(threading.Thread(target=work, args=(client, server)))
                    self._threads[-1].start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                if self.is_lost:
                    body = b"" if piece.startswith(b"HEAD") else _NOT_FOUND
                    client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(_NOT_FOUND) + body)
                    continue
                server.sendall(piece)
                if self.resets is not None and piece.startswith(self.resets):
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                    client.close()
                    return
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(1 << 16):
                client.sendall(piece)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
