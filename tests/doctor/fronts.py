"""What stands before an S3 server and changes what is asked or answered: a clock, a firewall, a rule of the bucket."""

import contextlib
import re
import socket
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime

from tests.blobs.stretches import Stretch

Change = Callable[[bytes], bytes]

_DATE = re.compile(rb"(?im)^(date: )([^\r\n]+)")


class Front(Stretch):
    """Passes requests on as one function changes them, and answers as another does; each comes in pieces."""

    def __init__(self, endpoint: str, *, asked: Change = bytes, answered: Change = bytes) -> None:
        self.refuses: bytes | None = None
        """What has this in it is answered 403."""
        self.has_no_rules = False
        """Whether it says that the bucket has no lifecycle rules."""
        self._asked, self._answered = asked, answered
        super().__init__(endpoint)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                if self.refuses is not None and self.refuses in piece:
                    client.sendall(_answer(b"403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"))
                elif self.has_no_rules and b"lifecycle=" in piece:
                    client.sendall(_answer(b"404 Not Found", b"<Code>NoSuchLifecycleConfiguration</Code>"))
                else:
                    server.sendall(self._asked(piece))
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(1 << 16):
                client.sendall(self._answered(piece))
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)


def _answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def dated(ahead: timedelta) -> Change:
    """Return what has answers say a later date, or an earlier one."""

    def change(piece: bytes) -> bytes:
        return _DATE.sub(lambda found: found[1] + _moved(found[2].decode(), ahead).encode(), piece)

    return change


def _moved(date: str, ahead: timedelta) -> str:
    return format_datetime(parsedate_to_datetime(date) + ahead, usegmt=True)
