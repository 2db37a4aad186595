"""HTTP/2 by hand (RFC 9113): the frames that a test needs to say what no client library would."""

import socket
import struct
from collections.abc import Iterable
from urllib.parse import urlsplit

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
NO_ERROR, CANCEL = 0, 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def fields(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Return a header block, nothing in it indexed or compressed (RFC 7541, 6.2.2); values below 127 bytes."""
    block = b""
    for name, value in pairs:
        block += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def reset(stream: int, code: int) -> bytes:
    """Return the frame that ends a stream at once."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def request(method: str, path: str, stream: int = 1, *more: tuple[str, str], ends: bool = False) -> bytes:
    """Return the head of a request to localhost."""
    pairs = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost"), *more]
    return frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, fields(pairs))


def connect(url: str) -> socket.socket:
    """Open a connection without TLS on which HTTP/2 is spoken from the beginning."""
    parts = urlsplit(url)
    connection = socket.create_connection((str(parts.hostname), int(parts.port or 80)), timeout=30)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return connection
