"""A request to another daemon, by HTTP/1.1: sent piece by piece, while its answer may come at any time.

h11 says what the bytes mean, asyncio moves them. A library for clients would send the body to its end before it looks
for the answer, which may come long before: that somebody else is writing, or that the daemon stops.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filestored.cluster.address import host_and_port
from filestored.errors import BadRequest, FilestoredError

if TYPE_CHECKING:
    import h11

CONNECT_SECONDS = 2.0
"""How long another daemon may take to accept a connection."""

SILENT_SECONDS = 15
"""How long the other machine may acknowledge nothing before the system ends the connection."""

_READ_BYTES = 256 * 1024
_SENT_AHEAD_BYTES = 1 << 20
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 2))
_END_OF_CERTIFICATE = "-----END CERTIFICATE-----"


class PeerAway(FilestoredError):
    """Another daemon cannot be reached, or has ended before it has answered."""


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """The head of an answer: its status and headers, their names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, empty where it is not there."""
        return next((value for key, value in self.headers if key == name), b"")


class PeerConnection:
    """One request to another daemon and its answer. One task may send while another waits for the answer."""

    def __init__(self, url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # only here: a daemon without others needs no library to speak with them
        import h11

        self._h11 = h11
        self._host = urlsplit(url).netloc.encode()
        self._reader = reader
        self._writer = writer
        self._protocol = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, url: str, certificate: Path | None) -> "PeerConnection":
        """Connect to a daemon; ``certificate`` is this one's own, if any. Raises PeerAway."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await _connect(url, certificate)
        except (OSError, TimeoutError, ValueError, OverflowError) as error:
            # the last two: what another has registered is no address at all
            raise PeerAway(f"the daemon at {url} cannot be reached: {error or 'it does not answer'}") from error
        _set_up(writer.get_extra_info("socket"))
        writer.transport.set_write_buffer_limits(_SENT_AHEAD_BYTES)
        return cls(url, reader, writer)

    async def begin(self, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head. Raises PeerAway; BadRequest, and nothing is sent, where it has what no head may have."""
        named = [(b"host", self._host), (b"connection", b"close"), *headers]
        try:
            request = self._h11.Request(method=method, target=path, headers=named)
        except (self._h11.LocalProtocolError, ValueError) as error:
            raise BadRequest("This request cannot be passed on to the machine that has the upload.") from error
        await self._send(request)

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body; returns when the next may follow. Raises PeerAway."""
        await self._send(self._h11.Data(data=piece))

    async def finish(self) -> None:
        """Send what ends the request. Raises PeerAway."""
        await self._send(self._h11.EndOfMessage())

    async def _send(self, event: "h11.Event") -> None:
        try:
            data = self._protocol.send(event)
            if data:
                self._writer.write(data)
                await self._writer.drain()
        except OSError as error:
            raise PeerAway(f"another daemon has ended the connection: {error}") from error
        except self._h11.LocalProtocolError as error:
            raise BadRequest("The body of this request has another length than the request says.") from error

    async def answer(self) -> PeerAnswer:
        """Wait for the head of the answer, for as long as the connection lasts. Raises PeerAway."""
        while True:
            event = await self._next()
            if isinstance(event, self._h11.Response):
                return PeerAnswer(event.status_code, [(name.lower(), value) for name, value in event.headers])
            if not isinstance(event, self._h11.InformationalResponse):
                raise PeerAway("another daemon has ended the connection before it has answered")

    async def body(self) -> AsyncIterator[bytes]:
        """Return the body of the answer as it comes. Raises PeerAway where it breaks off."""
        while isinstance(event := await self._next(), self._h11.Data):
            yield bytes(event.data)

    async def _next(self) -> object:
        try:
            while (event := self._protocol.next_event()) is self._h11.NEED_DATA:
                self._protocol.receive_data(await self._reader.read(_READ_BYTES))
        except (OSError, self._h11.RemoteProtocolError) as error:
            raise PeerAway(f"the answer of another daemon broke off: {error}") from error
        return event

    def close(self) -> None:
        """End the connection; what was sent is sent to its end first."""
        with contextlib.suppress(OSError):
            self._writer.close()


async def _connect(url: str, certificate: Path | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port, is_tls = host_and_port(url)
    if not is_tls:
        return await asyncio.open_connection(host, port)
    if certificate is not None:
        # the daemons behind one name have one certificate, as a rule, and it is not for their machines' addresses
        with contextlib.suppress(ssl.SSLCertVerificationError):
            return await asyncio.open_connection(host, port, ssl=_same_certificate(certificate))
    return await asyncio.open_connection(host, port, ssl=_known_authorities())


@lru_cache(1)
def _known_authorities() -> ssl.SSLContext:
    """Return what takes certificates for the name in the address, of authorities that the system trusts."""
    return ssl.create_default_context()


@lru_cache(1)
def _same_certificate(path: Path) -> ssl.SSLContext:
    """Return what takes the very certificate of a file, and what it has signed, for any address.

    Only the first of a chain counts: the others have signed certificates of strangers, too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    first, end, _ = path.read_text().partition(_END_OF_CERTIFICATE)
    context.load_verify_locations(cadata=first[first.find("-----BEGIN") :] + end)
    return context


def _set_up(connection: socket.socket) -> None:
    """Have the system notice within some seconds that the other machine is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)
