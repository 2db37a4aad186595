"""One HTTP request and its answer, as thin as the hot path needs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from filestored.access import Connection
from filestored.errors import BadRequest, ClientGone

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_QUERY_FIELDS = 32
_RESET_HEARD_SECONDS = 0.05
_PROXY_HEADERS = (b"forwarded", b"x-forwarded-for", b"via")
_LISTS = frozenset({
    b"if-match", b"if-none-match", b"accept", b"accept-encoding", b"repr-digest", b"content-digest", b"forwarded",
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host",
})  # fmt: skip


class Exchange:
    """A request (``method``, ``path``, ``headers``, ``query``) and what has been answered to it so far."""

    __slots__ = (
        "_gone", "_has_body", "_query", "_receive", "_send", "added_headers", "began", "client", "digest", "headers",
        "host", "is_body_begun", "is_from_trusted", "is_http1", "is_last", "is_passed_on",
        "is_proxied", "lines", "method",
        "path", "query_string", "received", "route", "scheme", "sent", "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began = time.monotonic()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query_string: bytes = scope["query_string"]
        self.scheme: str = scope["scheme"]
        self.client: str = scope["client"][0] if scope["client"] else ""
        self.lines: Headers = scope["headers"]
        """The header fields as they came, one after the other."""
        self.headers = _header_map(self.lines)
        self.is_http1 = scope["http_version"][0] == "1"
        self.host = self.headers.get(b"host", b"").decode("latin-1")
        """What the request calls this server."""
        self.is_proxied = any(name in self.headers for name in _PROXY_HEADERS)
        self.is_from_trusted = False
        """Whether it was passed on by a proxy whose word is taken."""
        self.is_passed_on = False
        """Whether another daemon has passed it on to this one."""
        self.is_last = False
        """Whether the connection is to be closed after the answer."""
        self.is_body_begun = False
        self.added_headers: Headers = []
        """Sent with every answer to this request."""
        self.received = 0
        self._receive = receive
        self._has_body = self.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self.headers
        self.status = 0
        self.sent = 0
        self.digest = ""
        self.route = ""
        """The address in the table of routes that the path was found to be; empty where it is none."""
        self._send = send
        self._query: dict[str, str] | None = None
        self._gone: asyncio.Future[None] | None = None

    @property
    def query(self) -> dict[str, str]:
        """The query's fields. Raises BadRequest where one is given twice or there are more than 32."""
        if self._query is None:
            self._query = _parse_query(self.query_string)
        return self._query

    @property
    def content_length(self) -> int | None:
        """The announced size of the body in bytes; None where it is not known beforehand."""
        value = self.headers.get(b"content-length")
        return int(value) if value is not None and value.isdigit() else None

    @property
    def connection(self) -> Connection:
        """Where the request comes from."""
        return Connection(self.client, self.is_proxied, self.host)

    @property
    def is_body_pending(self) -> bool:
        """Whether the client may still be sending a body that nobody has read to its end."""
        return self._has_body

    async def receive(self) -> Message:
        """Wait for the next piece of the body, or for the news that the client is gone."""
        self.is_body_begun = True
        message = await self._receive()
        self.received += len(message.get("body", b""))
        if not message.get("more_body", False) or self.received == self.content_length:
            self._has_body = False
        return message

    async def require_client(self) -> None:
        """Raise ClientGone where the client has closed the connection, and let others run.

        What is sent to a client that has gone is taken and thrown away; only asking tells. A client that takes
        everything at once would keep all others, and that news, from being heard.
        """
        gone = self._listen()
        await asyncio.sleep(0)
        if gone.done():
            raise ClientGone

    async def require_not_reset(self) -> None:
        """Raise ClientGone where the client has reset the stream whose body seemed to end (RFC 9113, 5.4.2).

        That it did so comes a moment after that end; that it did not never comes.
        """
        gone = self._listen()
        await asyncio.wait({gone}, timeout=_RESET_HEARD_SECONDS)
        if gone.done():
            raise ClientGone

    def _listen(self) -> "asyncio.Future[None]":
        """Return what is done once the client has gone."""
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._wait_gone())
        return self._gone

    async def _wait_gone(self) -> None:
        while (await self._receive())["type"] == "http.request":
            pass

    def close(self) -> None:
        """Stop listening to the client."""
        if self._gone is not None:
            self._gone.cancel()

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        self.status = status
        if self.added_headers:
            headers = [*headers, *self.added_headers]
        if (self._has_body or self.is_last) and self.is_http1:
            # the server closes a connection on which part of a request is left; the client is to know
            headers = [*headers, (b"connection", b"close")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the answer's body; returns when the connection can take the next."""
        self.sent += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Send a whole answer. To a HEAD request only its head goes out."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.write(b"" if self.method == "HEAD" else body, more=False)


def _header_map(pairs: Headers) -> dict[bytes, bytes]:
    headers = dict(pairs)
    if len(headers) != len(pairs):
        for name in _LISTS & headers.keys():
            # several lines of a list are one list (RFC 9110, 5.3); of anything else the last counts
            headers[name] = b", ".join(value for key, value in pairs if key == name)
    return headers


def _parse_query(query_string: bytes) -> dict[str, str]:
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(
            query_string.decode("utf-8", "replace"),
            keep_blank_values=True,
            max_num_fields=MAX_QUERY_FIELDS,
            errors="replace",
        )
    except ValueError as error:
        raise BadRequest(f"The query has more than {MAX_QUERY_FIELDS} fields.") from error
    query = dict(pairs)
    if len(query) != len(pairs):
        raise BadRequest("The query gives a parameter twice; give each once.")
    return query
