"""What stands before an S3 server and misbehaves: knows no bucket, breaks connections off, or answers otherwise."""

import contextlib
import socket
import struct
from collections.abc import Callable

from tests.blobs.stretches import Stretch

_NOT_FOUND = b"404 page not found\n"
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Front(Stretch):
    """Passes requests on, unless it is told otherwise. Each comes in a piece of its own."""

    def __init__(self, endpoint: str) -> None:
        self.is_lost = False
        """Answer everything by a 404 of one's own, which is no answer of the server's."""
        self.resets: bytes | None = None
        """Pass on what begins with this, and reset the connection at once instead of waiting for the answer."""
        self.replaces: Callable[[bytes], bytes | None] = lambda head: None
        """Return for the beginning of a request what to answer without passing it on, or None.

        The answer ends the connection, and has to say so.
        """
        super().__init__(endpoint)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                if self.is_lost:
                    body = b"" if piece.startswith(b"HEAD") else _NOT_FOUND
                    client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(_NOT_FOUND) + body)
                    continue
                instead = self.replaces(piece)
                if instead is not None:
                    client.sendall(instead)
                    client.shutdown(socket.SHUT_WR)
                    # a reset would overtake the answer
                    while client.recv(1 << 16):
                        pass
                    break
                server.sendall(piece)
                if self.resets is not None and piece.startswith(self.resets):
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                    client.close()
                    return
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)
