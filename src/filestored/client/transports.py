"""How requests go out: what an httpx client is given, and what it raises in the client's own words."""

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx

from filestored import __version__
from filestored.client.errors import shown
from filestored.client.steps import Answer, Broken, Request, not_filestored

_READ_BYTES = 256 << 10
_ERROR_BYTES = 64 * 1024
_ANSWER_BYTES = 64 << 20
_SLICE_BYTES = 256 << 10
_CONNECT_SECONDS = 10.0


class LargeReads:
    """A network backend of httpcore whose streams read up to 256 KiB at a time instead of 64.

    It makes large downloads about twice as fast: what costs is the way of each piece through the layers.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def connect_tcp(self, *where: Any, **how: Any) -> Any:
        """Connect as the backend does; of an asynchronous one an awaitable comes back."""
        return _enlarged(self._backend.connect_tcp(*where, **how))


def _enlarged(connected: Any) -> Any:
    if hasattr(connected, "__await__"):
        return _enlarged_later(connected)
    return LargeStream(connected)


async def _enlarged_later(connecting: Any) -> Any:
    return LargeStream(await connecting)


class LargeStream:
    """A stream of httpcore that reads more at a time than it is asked for."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, max_bytes: int, timeout: float | None = None) -> Any:
        """Read what is there; of an asynchronous stream an awaitable comes back."""
        return self._stream.read(max(max_bytes, _READ_BYTES), timeout)

    def start_tls(self, *how: Any, **more: Any) -> Any:
        """Speak TLS from here on."""
        return _enlarged(self._stream.start_tls(*how, **more))


def enlarge_reads(client: httpx.Client | httpx.AsyncClient) -> None:
    """Make a client read in large pieces. Where httpx is built otherwise than today, it stays as it was."""
    transports = [client._transport, *client._mounts.values()]
    for transport in transports:
        pool = getattr(transport, "_pool", None)
        backend = getattr(pool, "_network_backend", None)
        if backend is not None:
            pool._network_backend = LargeReads(backend)  # type: ignore[union-attr]


def client_options(
    token: str | None, verify: bool | str | os.PathLike[str], timeout: float, connections: int
) -> dict[str, Any]:
    """Return what both kinds of httpx client are made with. Raises OSError where the CA file cannot be read."""
    # a hash is of the bytes as they are, and what is packed may unpack to anything
    headers = {"User-Agent": f"filestored/{__version__}", "Accept-Encoding": "identity"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return {
        "headers": headers,
        "verify": verify if isinstance(verify, bool) else ssl.create_default_context(cafile=os.fspath(verify)),
        # one that waits for a free connection waits for transfers of its own
        "timeout": httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS), pool=None),
        "limits": httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    }


def sending_options(request: Request, timeout: float) -> dict[str, Any]:
    """Return what a request is built with, but for its body. Raises Broken where its time is over."""
    options: dict[str, Any] = {"headers": dict(request.headers)}
    if request.content is not None:
        options["headers"]["Content-Length"] = str(len(request.content))
    left = timeout if request.timeout is None else request.timeout
    if request.end is not None:
        left = min(left, request.end - time.monotonic())
        if left <= 0:
            raise _too_late()
    pool = left if request.end is not None or request.timeout is not None else None
    options["timeout"] = httpx.Timeout(left, connect=min(left, _CONNECT_SECONDS), pool=pool)
    return options


def body_of(request: Request) -> Iterator[bytes] | bytes | None:
    """Return the body of a request; a long one in slices, which httpx would otherwise copy anew for each send."""
    if request.pieces is not None:
        return request.pieces()
    content = request.content
    if content is None or len(content) <= _SLICE_BYTES:
        return content
    return (content[at : at + _SLICE_BYTES] for at in range(0, len(content), _SLICE_BYTES))


def require_time(request: Request) -> None:
    """Raise Broken where the time of a request is over, however much its answer still brings."""
    if request.end is not None and time.monotonic() > request.end:
        raise _too_late()


def _too_late() -> Broken:
    return Broken("it took too long", was_sent=True)


class Beginning:
    """The body of an answer that goes into memory, within a bound; one of an error is cut there."""

    def __init__(self, response: httpx.Response, request: Request) -> None:
        self._is_error = response.status_code >= 300
        self._request = request
        self._content = bytearray()

    def take(self, piece: bytes) -> bool:
        """Take a piece; tell whether more is wanted."""
        require_time(self._request)
        self._content += piece
        if self._is_error:
            return len(self._content) < _ERROR_BYTES
        if len(self._content) > _ANSWER_BYTES:
            raise not_filestored()
        return True

    def answer(self, response: httpx.Response) -> Answer:
        """Return the whole answer."""
        return answer_of(response, bytes(self._content))


def redirection(response: httpx.Response, request: Request) -> httpx.Request | None:
    """Return the request that follows an answer to a download that sends elsewhere, without the token if far."""
    return response.next_request if request.method in ("GET", "HEAD") else None


MOST_REDIRECTIONS = 5
"""How often a download may be sent elsewhere."""


def answer_of(response: httpx.Response, content: bytes = b"") -> Answer:
    """Return a response in the client's own words."""
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, content)


FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError)
"""What httpx raises where a request gets no whole answer."""


def broken(error: Exception) -> Broken:
    """Say why a request got no whole answer."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError):
        return _unconnected(error)
    if isinstance(error, httpx.TimeoutException):
        return Broken("nothing came for too long", was_sent=True)
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.StreamError):
        return Broken("the connection broke off", was_sent=True)
    return Broken(shown(str(error)[:200]) or type(error).__name__, was_sent=False, is_final=True)


def _unconnected(error: Exception) -> Broken:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = f"its certificate is not trusted: {cause.verify_message}"
            return Broken(reason, was_sent=False, is_final=True)
        if isinstance(cause, ssl.SSLError):
            reason = f"no TLS connection came about ({cause.reason or cause}): does it speak TLS? if not, try http://"
            return Broken(reason, was_sent=False, is_final=True)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectTimeout):
        return Broken("no connection came about in time", was_sent=False)
    text = str(error)
    with suppress(IndexError):
        text = text.split("] ", 1)[1] if text.startswith("[Errno") else text
    return Broken(f"cannot connect: {text or 'no connection came about'}", was_sent=False)
