"""The ASGI application: every request comes in here, finds its route, and leaves one line in the log."""

import asyncio
import re
import time
from itertools import count
from typing import Protocol

from loguru import logger

from filestored.access import ANONYMOUS, Access
from filestored.api import health
from filestored.api.bodies import Uploads
from filestored.api.downloads import Download, Downloads
from filestored.api.exchange import Exchange, Message, Receive, Scope, Send
from filestored.api.files import FileRoutes
from filestored.api.gate import Gate
from filestored.api.limits import DRAINED_BYTES, DRAINED_SECONDS, Limits
from filestored.api.problems import problem
from filestored.api.root import RootRoutes
from filestored.api.stalls import Stalls, drop_stalled_readers
from filestored.digest import parse_digest
from filestored.errors import (
    BadRequest,
    ClientGone,
    HeadersTooLarge,
    NotFound,
    OutOfSpace,
    RequestError,
    StorageFault,
    is_full,
)
from filestored.filestore import Filestore

MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 * 1024

_FILE_PATH = re.compile(r"/([0-9A-Fa-f]{32,128})(?:/([^/]*))?")
_SWEEP_SECONDS = 1.0
_EMPTY: Message = {"type": "http.response.body", "body": b"", "more_body": False}
# what a plain download may carry without being looked at closely
_NOTABLE = frozenset({
    b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since",
    b"authorization", b"forwarded", b"x-forwarded-for", b"via", b"host",
})  # fmt: skip

AccessEntry = tuple[float, int, str, str, str, str, int, int, float]


class RequestLog(Protocol):
    """Where the line about each request goes."""

    @property
    def enabled(self) -> bool:
        """Whether anybody reads it."""

    def add(self, entry: AccessEntry) -> None:
        """Note (Unix time, request number, client, method, path, hash, status, bytes sent, seconds)."""


class Application:
    """The daemon's face: an ASGI 3 callable with lifespan."""

    def __init__(self, filestore: Filestore, access: Access, limits: Limits, log: RequestLog) -> None:
        self._filestore = filestore
        self._stalls = Stalls()
        self._gate = Gate(access, limits, filestore.shared)
        self._downloads = Downloads(filestore, limits, self._stalls)
        uploads = Uploads(filestore, limits, self._stalls)
        self._root = RootRoutes(filestore, self._gate, uploads, self._downloads)
        self._files = FileRoutes(filestore, self._gate, uploads, self._downloads)
        self._send_timeout = limits.send_timeout
        self._log = log
        self._is_logging = log.enabled
        self._numbers = count(1)
        self._hot = self._downloads.hot
        self._sweeper: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the process."""
        if scope["type"] != "http":
            await self._live(receive, send)
            return
        began = time.monotonic()
        if scope["method"] == "GET" and not scope["query_string"]:
            key = ANONYMOUS + scope["path"]
            download = self._hot.get(key)
            if download is not None and (messages := self._plain(scope, key, download)) is not None:
                start, body = messages
                await send(start)
                await send(body)
                if self._is_logging:
                    digest = download.file.digest
                    self._note(scope, digest, start["status"], len(body["body"]), began)
                return
        exchange = Exchange(scope, receive, send)
        try:
            await self._serve(exchange)
        finally:
            exchange.close()
            if self._is_logging:
                self._note(scope, exchange.digest, exchange.status, exchange.sent, began)

    def _note(self, scope: Scope, digest: str, status: int, sent: int, began: float) -> None:
        client = scope["client"]
        self._log.add((
            time.time(), next(self._numbers), client[0] if client else "", scope["method"], scope["path"],
            digest, status, sent, time.monotonic() - began,
        ))  # fmt: skip

    def _plain(self, scope: Scope, key: str, download: Download) -> tuple[Message, Message] | None:
        """Return the answer to a plain GET of a remembered file; None where the request needs a closer look."""
        host, tag, ranges = b"", None, None
        for name, value in scope["headers"]:
            if name in _NOTABLE:
                if name == b"host":
                    host = value
                elif name == b"if-none-match":
                    tag = value
                elif name == b"range":
                    ranges = value
                else:
                    return None
        client = scope["client"]
        if not self._gate.may_read_plainly(client[0] if client else "", host):
            return None
        if not self._downloads.renew(key, download):
            return None
        if tag is not None:
            return (download.not_modified, _EMPTY) if tag == download.etag else None
        if ranges is not None:
            return self._downloads.plain_part(download, ranges)
        return None if download.body is None else (download.start, download.body)

    async def _serve(self, exchange: Exchange) -> None:
        """Answer a request, whatever goes wrong."""
        try:
            await self._route(exchange)
        except RequestError as error:
            await self._refuse(exchange, error)
        except ClientGone:
            await self._refuse(exchange, BadRequest("The body ended before its announced end; nothing was stored."))
        except OSError as error:
            if is_full(error):
                await self._refuse(exchange, OutOfSpace("The disk is full; nothing was stored. Free some space."))
            else:
                await self._fail(exchange, error)
        except Exception as error:
            await self._fail(exchange, error)

    async def _route(self, exchange: Exchange) -> None:
        _require_bounded_headers(exchange)
        path = exchange.path
        if path in health.PATHS:
            await health.answer(exchange, self._filestore)
            return
        principal = self._gate.admit(exchange)
        if path == "/":
            await self._root.answer(exchange, principal)
            return
        match = _FILE_PATH.fullmatch(path)
        digest = parse_digest(match[1]) if match else None
        if match is None or digest is None:
            raise NotFound("There is nothing at this address. Files are at /{hash}.")
        await self._files.answer(exchange, principal, digest, match[2] or None)

    async def _fail(self, exchange: Exchange, error: Exception) -> None:
        logger.opt(exception=error).error("{} {} failed", exchange.method, exchange.path[:200])
        await self._refuse(exchange, StorageFault("The server failed; nothing was changed. Its log says why."))

    async def _refuse(self, exchange: Exchange, error: RequestError) -> None:
        """Tell the client of an error, and see to it that the answer arrives."""
        if exchange.status:
            # the head is out: an answer left before its announced end makes the server close the connection
            return
        status, headers, body = problem(error)
        if exchange.is_body_pending:
            if exchange.is_http1:
                headers.append((b"connection", b"close"))
            await exchange.answer(status, headers, body)
            await _drain(exchange)
        else:
            await exchange.answer(status, headers, body)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Follow the life of the process (ASGI lifespan)."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                # the server opens its port only after this answer
                asyncio.get_running_loop().call_later(_SWEEP_SECONDS, drop_stalled_readers, self._send_timeout)
                self._sweep()
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._sweeper is not None:
                    self._sweeper.cancel()
                self._stalls.close()
                self._filestore.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _sweep(self) -> None:
        """Let go of files that were deleted or not asked for lately: an open one keeps its space on the disk."""
        self._downloads.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)


def _require_bounded_headers(exchange: Exchange) -> None:
    headers = exchange.headers
    if len(headers) > MAX_HEADERS or sum(map(len, headers.values())) > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"At most {MAX_HEADERS} header fields of {MAX_HEADER_BYTES} bytes in all are taken.")


async def _drain(exchange: Exchange) -> None:
    """Take in the rest of a refused body, up to a bound: a connection closed on unread bytes loses the answer."""
    if exchange.headers.get(b"expect", b"").lower() == b"100-continue" and not exchange.is_body_begun:
        return
    left = DRAINED_BYTES
    try:
        async with asyncio.timeout(DRAINED_SECONDS):
            while left > 0:
                message = await exchange.receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
