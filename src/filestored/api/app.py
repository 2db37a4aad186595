"""The ASGI application: every request comes in here, finds its route, and leaves one line in the log."""

import asyncio
import contextlib
import gc
import time
from itertools import count
from typing import Protocol

from loguru import logger
from prometheus_client import CollectorRegistry

from filestored.access import NOBODY_AT_ALL, Access, Principal
from filestored.api import framing
from filestored.api.arrivals import Arrivals
from filestored.api.bodies import Uploads
from filestored.api.connections import Connections
from filestored.api.cors import Cors
from filestored.api.documents import DocumentRoutes
from filestored.api.downloads import Download, Downloads
from filestored.api.elsewhere import Detours
from filestored.api.exchange import Exchange, Message, Receive, Scope, Send
from filestored.api.exposition import Measurements, MetricsRoutes
from filestored.api.files import FileRoutes
from filestored.api.forwarding import Forwarding
from filestored.api.gate import Gate
from filestored.api.health import HealthRoutes
from filestored.api.intake import drain
from filestored.api.limits import DRAINED_SECONDS_AT_STOP, Limits
from filestored.api.page import PageRoutes
from filestored.api.parts import PartRoutes
from filestored.api.problems import problem
from filestored.api.proxies import Proxies
from filestored.api.representations import accepts
from filestored.api.root import RootRoutes
from filestored.api.routes import OPEN, Route, Router, Target
from filestored.api.stalls import Stalls, drop_stalled_readers
from filestored.api.uploads import UploadRoutes
from filestored.api.v1 import V1Routes
from filestored.errors import (
    BadRequest,
    BlobStoreError,
    CatalogueError,
    ClientGone,
    MethodNotAllowed,
    NotFound,
    OutOfSpace,
    RequestError,
    StorageFault,
    is_full,
)
from filestored.filestore import Filestore
from filestored.metrics import RequestCounts
from filestored.upkeep import Upkeep

_SWEEP_SECONDS = 1.0
# what is drained at a stop, and a little more
_LAST_CALLS_SECONDS = DRAINED_SECONDS_AT_STOP + 2
_VARY_ACCEPT = (b"vary", b"Accept")
_EMPTY: Message = {"type": "http.response.body", "body": b"", "more_body": False}
# what a plain download may carry without being looked at closely
_NOTABLE = frozenset({
    b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since",
    b"authorization", b"forwarded", b"x-forwarded-for", b"via", b"host", b"origin",
})  # fmt: skip
# whoever sends more than a browser does is looked at closely
_PLAIN_HEADER_BYTES = 16 * 1024

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

    def __init__(
        self, filestore: Filestore, access: Access, limits: Limits, log: RequestLog, proxies: Proxies, cors: Cors,
        detours: Detours | None = None, connections: Connections | None = None,
    ) -> None:  # fmt: skip
        self._filestore = filestore
        self._proxies = proxies
        self._cors = cors
        self._stalls = Stalls()
        signer = filestore.signer()
        self._gate = Gate(access, limits, filestore, signer, proxies, cors)
        self._downloads = Downloads(filestore, limits, self._stalls, detours)
        arrivals = Arrivals(filestore, self._gate, Uploads(filestore, limits, self._stalls))
        files = FileRoutes(filestore, arrivals, self._downloads)
        self._forwarding = None
        if filestore.daemons is not None:
            self._forwarding = Forwarding(
                filestore.daemons, signer, self._gate.freshen_key, filestore.shared, self._stalls,
                limits.body_timeout, limits.certificate,
            )  # fmt: skip
        uploads = UploadRoutes(filestore, self._gate, limits, self._stalls, self._forwarding)
        registry = CollectorRegistry()
        documents = DocumentRoutes(
            filestore, self._stalls, limits.send_timeout, lambda: self._router.routes, access.anonymous_grant
        )
        page = PageRoutes(filestore, self._stalls, limits.send_timeout)
        self._router = Router(
            [
                *RootRoutes(filestore, arrivals, self._downloads, page.show).routes(),
                *files.routes(),
                *V1Routes(
                    filestore, self._gate, arrivals, files, self._downloads, signer, limits.body_timeout, self._stalls
                ).routes(),
                *uploads.routes(),
                *HealthRoutes(filestore).routes(),
                *MetricsRoutes(filestore, registry).routes(),
                *documents.routes(),
                *page.routes(),
            ]
        )
        self._peer_router = Router(PartRoutes(filestore, limits, self._stalls).routes())
        table = [(route.path, route.method) for route in self._router.routes]
        self._requests = RequestCounts(filestore.shared.counters, table)
        self._plain_line = self._requests.line("/{hash}", "GET")
        registry.register(Measurements(filestore, self._requests))
        self._send_timeout = limits.send_timeout
        self._log = log
        self._is_logging = log.enabled
        self._answers_plainly = not cors.is_on
        self._numbers = count(1)
        self._hot = self._downloads.hot
        self._sweeper: asyncio.TimerHandle | None = None
        self._connections = connections
        self._watcher: asyncio.Task[None] | None = None
        self._upkeep = Upkeep(filestore)
        self._running = 0
        self._at_rest: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the process."""
        if scope["type"] != "http":
            await self._live(receive, send)
            return
        began = time.monotonic()
        if scope["method"] == "GET" and not scope["query_string"] and self._answers_plainly:
            plain = self._plain(scope, began)
            if plain is not None:
                download, start, body = plain
                if self._connections is not None:
                    self._connections.note(scope["client"], began)
                await send(start)
                await send(body)
                status, sent, seconds = start["status"], len(body["body"]), time.monotonic() - began
                self._requests.count(self._plain_line, status, seconds, sent)
                if self._is_logging:
                    self._note(scope, scope["client"][0], download.file.digest, status, sent, seconds)
                return
        exchange = Exchange(scope, receive, send)
        exchange.is_last = self._filestore.shared.is_leaving
        self._proxies.unwrap(exchange)
        self._cors.mark(exchange)
        self._running += 1
        if self._connections is not None:
            self._connections.begin(scope["client"], began)
        try:
            await self._serve(exchange)
        finally:
            exchange.close()
            if self._connections is not None:
                self._end_on_connection(scope, exchange, self._connections)
            seconds = time.monotonic() - began
            self._count(exchange, seconds)
            if self._is_logging:
                self._note(scope, exchange.client, exchange.digest, exchange.status, exchange.sent, seconds)
            self._running -= 1
            if not self._running and self._at_rest is not None:
                self._at_rest.set()

    def _end_on_connection(self, scope: Scope, exchange: Exchange, connections: Connections) -> None:
        has_stalled = asyncio.current_task() in self._stalls.stalled
        connections.end(scope["client"], time.monotonic(), is_stuck=has_stalled and exchange.status < 400)

    def _count(self, exchange: Exchange, seconds: float) -> None:
        line = self._requests.line(exchange.route, exchange.method)
        self._requests.count(line, exchange.status, seconds, exchange.sent)
        self._requests.count_received(exchange.received)

    def _note(self, scope: Scope, client: str, digest: str, status: int, sent: int, seconds: float) -> None:
        self._log.add((
            time.time(), next(self._numbers), client, scope["method"], scope["path"], digest, status, sent, seconds,
        ))  # fmt: skip

    def _plain(self, scope: Scope, now: float) -> tuple[Download, Message, Message] | None:
        """Return the answer to a plain GET of a remembered file; None where the request needs a closer look."""
        host, tag, ranges, authorization = b"", None, None, None
        size = 0
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name in _NOTABLE:
                if name == b"host" and not host:
                    host = value
                elif name == b"authorization" and authorization is None:
                    authorization = value
                elif name == b"if-none-match":
                    tag = value
                elif name == b"range":
                    ranges = value
                else:
                    return None
        client = scope["client"]
        if not client or not host or size > _PLAIN_HEADER_BYTES:
            return None
        owner = self._gate.plain_reader(client[0], host, authorization, now)
        if owner is None:
            return None
        key = owner + scope["path"]
        download = self._hot.get(key)
        if download is None or not self._downloads.renew(key, download):
            return None
        if tag is not None:
            return (download, download.not_modified, _EMPTY) if tag == download.etag else None
        if ranges is not None:
            part = self._downloads.plain_part(download, ranges)
            return None if part is None else (download, *part)
        return None if download.body is None else (download, download.start, download.body)

    async def _serve(self, exchange: Exchange) -> None:
        """Answer a request, whatever goes wrong."""
        try:
            await self._route(exchange)
        except RequestError as error:
            await self._refuse(exchange, error)
        except (CatalogueError, BlobStoreError) as error:
            await self._refuse(exchange, self._explained(exchange, error))
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
        """Find who answers, see that the caller may ask it, and have it answered."""
        framing.require_sound_head(exchange)
        if self._cors.is_preflight(exchange):
            await self._cors.answer_preflight(exchange)
            return
        if self._forwarding is not None:
            await self._forwarding.accept(exchange)
        found = self._peer_router.find(exchange.path) if exchange.is_passed_on else None
        found = found or self._router.find(exchange.path)
        resource, target = found or (None, Target())
        exchange.route = resource.path if resource else ""
        route = resource.methods.get(exchange.method) if resource else None
        if route is not None and route.page is not None and not exchange.query_string:
            exchange.added_headers = [*exchange.added_headers, _VARY_ACCEPT]
            if accepts(exchange.headers.get(b"accept", b""), b"text/html"):
                await route.page(exchange, NOBODY_AT_ALL, target)
                return
        if resource is not None and resource.always:
            exchange.added_headers = [*exchange.added_headers, *resource.always]
        is_open = resource is not None and (route.needs is OPEN if route else resource.is_open)
        if not is_open:
            principal = await self._admit(exchange, route, target)
        else:
            principal = NOBODY_AT_ALL
        if resource is None:
            raise NotFound("There is nothing at this address. Files are at /{hash}.")
        if route is None:
            raise MethodNotAllowed(exchange.method, resource.allow)
        if route.needs is not OPEN:
            route.require(principal)
        exchange.digest = target.digest or ""
        await route.handle(exchange, principal, target)

    async def _admit(self, exchange: Exchange, route: Route | None, target: Target) -> Principal:
        is_by_link = route is not None and route.takes_link and "signature" in exchange.query
        if is_by_link and target.digest is not None and b"authorization" not in exchange.headers:
            return await self._gate.admit_by_link(exchange, target.digest)
        return await self._gate.admit(exchange)

    def _explained(self, exchange: Exchange, error: CatalogueError | BlobStoreError) -> RequestError:
        """Return what the client is told; the log says why, unless it passes by itself."""
        if not error.is_passing:
            logger.opt(exception=error).error("{} {} failed", exchange.method, exchange.path[:200])
        return error.told()

    async def _fail(self, exchange: Exchange, error: Exception) -> None:
        logger.opt(exception=error).error("{} {} failed", exchange.method, exchange.path[:200])
        await self._refuse(exchange, StorageFault("The server failed; nothing was changed. Its log says why."))

    async def _refuse(self, exchange: Exchange, error: RequestError) -> None:
        """Tell the client of an error, and see to it that the answer arrives."""
        if exchange.status:
            # the head is out: an answer left before its announced end makes the server close the connection
            return
        status, headers, body = problem(error)
        if status == 401 and exchange.headers.get(b"sec-fetch-mode", b"navigate") != b"navigate":
            # a browser would answer this one itself, by a dialogue, and the script that asks would never hear of it
            headers = [header for header in headers if not header[1].startswith(b"Basic ")]
        if exchange.is_body_pending:
            await exchange.answer(status, headers, body)
            await drain(exchange, is_stopping=self._filestore.shared.is_stopping)
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
                if self._connections is not None:
                    self._watcher = asyncio.create_task(self._connections.watch())
                if self._filestore.daemons is not None:
                    self._filestore.daemons.start()
                self._upkeep.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._wait_for_calls()
                if self._sweeper is not None:
                    self._sweeper.cancel()
                if self._watcher is not None:
                    self._watcher.cancel()
                self._stalls.close()
                await self._upkeep.stop()
                if self._filestore.daemons is not None:
                    await self._filestore.daemons.stop()
                self._filestore.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _wait_for_calls(self) -> None:
        """Wait until what is left of requests has ended: their connections may have before."""
        if self._running:
            self._at_rest = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._at_rest.wait(), _LAST_CALLS_SECONDS)

    def _sweep(self) -> None:
        """Let go of files that were deleted or not asked for lately: an open one keeps its space on the disk."""
        self._downloads.sweep()
        if self._filestore.shared.is_stopping:
            # the server waits for requests whose bodies something still holds, if only a cycle
            gc.collect()
        if self._filestore.shared.is_leaving:
            # these answers are made beforehand, and do not say that the connection ends
            self._answers_plainly = False
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
