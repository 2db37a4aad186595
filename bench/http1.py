"""Just enough HTTP/1.1 (RFC 9112) to measure with: requests over a plain socket, answers counted, not kept."""

import http.client
import socket
from collections.abc import Mapping
from typing import NamedTuple

RAW = "application/octet-stream"
"""The media type of every raw upload."""

_HEAD_LIMIT = 64 * 1024


class Answer(NamedTuple):
    """A whole answer, kept in memory; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def connect(port: int, timeout: float = 60) -> socket.socket:
    """Connect to a server of this machine; ``timeout`` seconds bound every later step as well."""
    return socket.create_connection(("127.0.0.1", port), timeout)


def call(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send one request over a connection of its own and read the whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        received = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, received)
    finally:
        connection.close()


def head(method: str, path: str, headers: Mapping[str, str], length: int | None = None) -> bytes:
    """Return the head of a request; ``length`` becomes its Content-Length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def drain_answer(connection: socket.socket, buffer: bytearray) -> tuple[int, int]:
    """Read one answer and return its status and the length of its body.

    Raises OSError where the connection ends early, or the answer does not tell its length: both servers
    do, and a generator that had to look for the end of a body would measure itself.
    """
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(_HEAD_LIMIT)
        if not part or len(received) > _HEAD_LIMIT:
            raise OSError(f"no whole answer: {received[:80]!r}")
        received += part
    top, _, rest = received.partition(b"\r\n\r\n")
    status, length = _read_head(top)
    missing = length - len(rest)
    while missing > 0:
        count = connection.recv_into(buffer, min(missing, len(buffer)))
        if not count:
            raise OSError("the body ended early")
        missing -= count
    return status, length


def _read_head(top: bytes) -> tuple[int, int]:
    first, *lines = top.decode("latin-1").split("\r\n")
    status = int(first.split(" ", 2)[1])
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            return status, int(value)
    if status in (204, 304):
        return status, 0
    raise OSError(f"an answer without Content-Length: {first}")
