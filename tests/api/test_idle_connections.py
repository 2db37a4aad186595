"""Clients of TLS and HTTP/2 that say or take nothing, or all too slowly; and those that are only slow, or rest."""

import contextlib
import os
import re
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Daemon, StartDaemon, require_program

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS = 1, 4
ACK = 1
SHORT = ("--workers", "1", "--header-timeout", "2", "--send-timeout", "2", "--body-timeout", "2")
GET, POST = b"\x82", b"\x83"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(method: bytes, path: str, scheme: str) -> bytes:
    """Return the fields of a request, by the static table of HPACK and without Huffman's code."""
    fields = method + (b"\x87" if scheme == "https" else b"\x86")
    for index, value in ((4, path), (1, "localhost")):
        fields += bytes((index, len(value))) + value.encode()
    return fields


class Http2:
    """A client of HTTP/2 that does what a test tells it, and no more."""

    def __init__(self, connection: socket.socket, scheme: str) -> None:
        self.connection = connection
        self.scheme = scheme
        self.pending = b""
        self.connection.sendall(PREFACE + frame(SETTINGS))

    def ask(self, stream: int, path: str, method: bytes = GET, *, ends: bool = True) -> None:
        flags = END_HEADERS | (END_STREAM if ends else 0)
        self.connection.sendall(frame(HEADERS, flags, stream, head(method, path, self.scheme)))

    def allow(self, stream: int, size: int) -> None:
        self.connection.sendall(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size)))

    def next_frame(self) -> tuple[int, int, int, bytes]:
        """Wait for a frame: kind, flags, stream, payload. Raises ConnectionError where the connection ends."""
        while len(self.pending) < 9 or len(self.pending) < 9 + int.from_bytes(self.pending[:3], "big"):
            data = self.connection.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self.pending += data
        size = int.from_bytes(self.pending[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", self.pending[3:9])
        payload, self.pending = self.pending[9 : 9 + size], self.pending[9 + size :]
        if kind == SETTINGS and not flags & ACK:
            self.connection.sendall(frame(SETTINGS, ACK))
        return kind, flags, stream, payload

    def listen(self, seconds: float) -> None:
        """Let come what comes, for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.connection.settimeout(left)
            with contextlib.suppress(TimeoutError):
                data = self.connection.recv(65536)
                if not data:
                    raise ConnectionError("closed")
                self.pending += data
        self.connection.settimeout(30)

    def take(self, stream: int) -> bytes:
        """Read the answer of a stream to its end."""
        body = b""
        while True:
            kind, flags, at, payload = self.next_frame()
            if at == stream:
                assert kind != RST_STREAM
                body += payload if kind == DATA else b""
                if kind in (DATA, HEADERS) and flags & END_STREAM:
                    return body


class Server:
    """A daemon, and how to reach it."""

    def __init__(self, daemon: Daemon, context: ssl.SSLContext | None) -> None:
        self.daemon = daemon
        self.scheme = "https" if context else "http"
        self._context = context
        self._opened = contextlib.ExitStack()

    def connect(self, *protocols: str) -> socket.socket:
        bare = socket.create_connection(self.daemon.address, 30)
        if self._context is None:
            return self._opened.enter_context(bare)
        self._context.set_alpn_protocols(list(protocols))
        return self._opened.enter_context(self._context.wrap_socket(bare, server_hostname="localhost"))

    def close(self) -> None:
        self._opened.close()

    def speak(self) -> Http2:
        return Http2(self.connect("h2"), self.scheme)

    def keep(self, body: bytes) -> str:
        return httpx.post(self.daemon.url, content=body, verify=False).text


@pytest.fixture(params=["tls", "always"])
def server(request: pytest.FixtureRequest, start_daemon: StartDaemon, tmp_path: Path) -> Iterator[Server]:
    """A daemon with short timeouts that takes HTTP/2, over TLS or without."""
    context, flags = (None, ["--http2", "always"]) if request.param == "always" else with_certificate(tmp_path)
    with contextlib.closing(Server(start_daemon(*SHORT, *flags), context)) as server:
        yield server


def with_certificate(folder: Path) -> tuple[ssl.SSLContext, list[str]]:
    """Make a certificate; return what a client and a daemon need."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            require_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost",
        ],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context, ["--tls-cert", str(certificate), "--tls-key", str(key)]


def has_ended(connection: socket.socket, seconds: float) -> bool:
    """Wait for the other side to close; tell whether it did."""
    connection.settimeout(seconds)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if connection.recv(65536) == b"":
                return True
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def test_who_asks_nothing_is_closed(server: Server) -> None:
    begun = PREFACE + frame(SETTINGS)
    said = {
        "nothing": b"",
        "a preface": PREFACE,
        "settings": begun,
        "half a frame": begun + b"\x00\x00",
        "half a header": begun + frame(HEADERS, END_STREAM, 1, head(GET, "/healthz", server.scheme)),
        "pings": begun + frame(PING, payload=b"12345678"),
    }
    connections = {}
    for name, data in said.items():
        connections[name] = server.connect("h2")
        connections[name].sendall(data)
    if server.scheme == "https":
        connections["nothing, by no protocol"] = server.connect()
        connections["nothing, by HTTP/1"] = server.connect("http/1.1")
    time.sleep(1)
    assert not any(has_ended(connection, 0.01) for connection in connections.values())
    assert [name for name, connection in connections.items() if not has_ended(connection, 15)] == []


def test_a_request_that_comes_for_ever_is_closed(server: Server) -> None:
    connection = server.connect("h2")
    header = frame(HEADERS, END_STREAM | END_HEADERS, 1, bytes(16_000))
    connection.sendall(PREFACE + frame(SETTINGS) + header[:9])
    began = time.monotonic()
    with contextlib.suppress(OSError):
        for at in range(9, 9 + 100):
            connection.sendall(header[at : at + 1])
            if has_ended(connection, 0.2):
                break
    assert 1 < time.monotonic() - began < 17


def test_who_rests_between_requests_stays(server: Server) -> None:
    digests = [server.keep(os.urandom(size)) for size in (100, 200_000)]
    clients = [server.speak() for _ in range(3)]
    paths = [*(f"/{digest}" for digest in digests), "/healthz"]
    sizes = []
    for stream in (1, 3):
        for client, path in zip(clients, paths, strict=True):
            client.allow(0, 1 << 20)
            client.ask(stream, path)
            client.allow(stream, 1 << 20)
            sizes.append(len(client.take(stream)))
        if stream == 1:
            time.sleep(8)
    assert sizes[:2] == [100, 200_000]
    assert sizes[:3] == sizes[3:]


def test_who_takes_nothing_is_closed(server: Server) -> None:
    digest = server.keep(os.urandom(8 << 20))
    client = server.speak()
    for stream in (1, 3, 5):
        client.ask(stream, f"/{digest}")
    time.sleep(1)
    assert not has_ended(client.connection, 0.01)
    assert has_ended(client.connection, 20)
    handed_over = re.findall(rf"GET /{digest} .* bytes=(\d+)", server.daemon.read_log())
    assert len(handed_over) == 3
    assert max(map(int, handed_over)) < 800_000


def test_who_is_only_slow_is_not_closed(server: Server) -> None:
    """One connection takes little by little, beside a stream that takes nothing; another sends so."""
    size = 8 << 20
    digest = server.keep(os.urandom(size))
    reader, writer = server.speak(), server.speak()
    reader.allow(0, 1 << 30)
    for stream in (1, 3):
        reader.ask(stream, f"/{digest}")
    writer.ask(1, "/", POST, ends=False)
    for _ in range(20):
        reader.allow(3, 100_000)
        writer.connection.sendall(frame(DATA, 0, 1, b"x"))
        reader.listen(0.4)
    reader.allow(3, size)
    writer.connection.sendall(frame(DATA, END_STREAM, 1, b"x"))
    assert len(reader.take(3)) == size
    assert len(writer.take(1)) == 64
