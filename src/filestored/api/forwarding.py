"""Passing a request on to the daemon that has the bytes it is about, and taking in what others pass on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

from loguru import logger

from filestored.api.exchange import Exchange, Headers
from filestored.api.intake import Intake, drain
from filestored.api.stalls import Guard, Stalled, Stalls
from filestored.catalogue.records import UploadRecord
from filestored.cluster.connection import PeerAnswer, PeerAway, PeerConnection
from filestored.cluster.daemons import Daemons, Peer
from filestored.cluster.lease import uptime
from filestored.cluster.passes import HEADER, Origin, Passes, Request
from filestored.errors import BadRequest, Busy, CatalogueError, ClientGone, Forbidden, Locked, NotFound, RequestTimeout
from filestored.metrics import FORWARDED_REQUESTS
from filestored.shared import Shared
from filestored.signing import Signer

PARTS = "/v1/peers/parts"
"""Where a daemon gives the bytes of a part to another that joins it. There is nothing for anybody else."""

AWAY_RETRY_SECONDS = 5
"""When a client is to ask again whose upload lies on a daemon that is away."""

_LOOKED_AT_EVERY_SECONDS = 3.0
# the other daemon decides when a body has stopped coming: it can say how much is there
_BEHIND_SECONDS = 5.0
_ANSWER_SECONDS = 3600.0
# running requests have some 30 s
_ANSWER_SECONDS_AT_STOP = 8.0
_NOT_MINE = (HEADER, b"refused")
_LONGEST_HOST = 255
_LONGEST_BODY = 64 * 1024
_OWN_HEADERS = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"date", b"server"})
_WITH_BODY = frozenset({"PATCH", "POST"})


class FreshenKey(Protocol):
    """Has the key read where it is old."""

    async def __call__(self, *, again: bool = False) -> None:
        """With ``again`` it is read in any case. Raises CatalogueError."""


class Forwarding:
    """Requests that come to one daemon of a cluster and are another's to answer."""

    def __init__(
        self, daemons: Daemons, signer: Signer, freshen_key: FreshenKey, shared: Shared, stalls: Stalls,
        body_timeout: float, certificate: Path | None,
    ) -> None:  # fmt: skip
        """``freshen_key`` has the signer's key read where it is old; ``certificate`` is this daemon's, if any."""
        self._daemons = daemons
        self._passes = Passes(signer)
        self._freshen_key = freshen_key
        self._shared = shared
        self._stalls = stalls
        self._body_timeout = body_timeout
        self._certificate = certificate

    # what others pass on

    async def accept(self, exchange: Exchange) -> None:
        """Give a request that another daemon passes on the client, scheme and host it came from.

        Does nothing where none claims to. Raises Forbidden where the pass is wrong.
        """
        text = exchange.headers.get(HEADER)
        if text is None:
            return
        request = Request(exchange.method, _target_of(exchange), exchange.headers)
        origin = None
        await self._freshen_key()
        if not self._passes.is_signed(text, request):
            # the other one may have a new key that this one has not read yet
            await self._freshen_key(again=True)
        # a stranger must not have the database asked each time
        if self._passes.is_signed(text, request):
            origin = self._passes.read(text, request, self._daemons.own, await self._daemons.clock())
        if origin is None:
            raise Forbidden(
                "Filestored-Peer is for the daemons of a cluster, and this is none of theirs.", headers=(_NOT_MINE,)
            )
        exchange.client, exchange.is_proxied = origin.client, origin.is_proxied
        exchange.scheme, exchange.host = origin.scheme, origin.host
        exchange.is_passed_on = True

    async def _make_pass(self, exchange: Exchange, request: Request, peer: Peer) -> bytes:
        await self._freshen_key()
        return self._passes.make(request, _origin_of(exchange), peer.id, await self._daemons.clock())

    # what is passed on to others

    async def pass_on(self, exchange: Exchange, upload: UploadRecord) -> None:
        """Have a request about an upload answered by the daemon that has it.

        Raises PeerAway, before anything is answered, where that cannot be reached or ends; Busy, RequestTimeout,
        BadRequest where the client goes away.
        """
        peer = await self._find(exchange, upload)
        self._shared.counters[FORWARDED_REQUESTS] += 1
        connection = await PeerConnection.open(peer.url, self._certificate)
        try:
            answer = await self._exchange(exchange, connection, peer)
            _require_right_daemon(answer, peer)
            body = await self._read_body(connection)
            await _give_back(exchange, answer, body)
        except ClientGone as error:
            raise BadRequest(
                "The body ended before its announced end; ask with HEAD how far the upload has come."
            ) from error
        finally:
            connection.close()
        if exchange.is_body_pending:
            await drain(exchange, is_stopping=self._shared.is_stopping)

    async def _find(self, exchange: Exchange, upload: UploadRecord) -> Peer:
        if exchange.is_passed_on:
            raise Busy("Another daemon takes this one for the one that has the upload; try again.")
        assert upload.daemon is not None
        peer = await self._daemons.find(upload.daemon)
        if peer is None or peer.is_away:
            raise PeerAway("the daemon that has the upload is away")
        return peer

    async def _exchange(self, exchange: Exchange, connection: PeerConnection, peer: Peer) -> PeerAnswer:
        """Send the request for as long as it comes, until the answer does."""
        wait = _Wait()
        sending = asyncio.ensure_future(self._send(exchange, connection, peer, wait))
        answering = asyncio.ensure_future(connection.answer())
        waiting: set[asyncio.Future[Any]] = {sending, answering}
        try:
            while not answering.done():
                await asyncio.wait(waiting, timeout=_LOOKED_AT_EVERY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if sending.done() and sending in waiting:
                    _require_no_answer(sending, answering)
                    waiting.discard(sending)
                if not answering.done():
                    wait.require_time(is_stopping=self._shared.is_stopping)
                    await self._require_there(peer)
            return answering.result()
        finally:
            sending.cancel()
            answering.cancel()
            await asyncio.gather(sending, answering, return_exceptions=True)
            # what is raised here knows this frame: it must not know it in turn, or the body would never be let go
            del sending, answering, waiting

    async def _read_body(self, connection: PeerConnection) -> bytes:
        body = b""
        try:
            with self._stalls.guard(self._body_timeout, self._has_to_stop):
                async for piece in connection.body():
                    body += piece
                    if len(body) > _LONGEST_BODY:
                        raise PeerAway("the answer of another daemon is no answer about an upload")
        except Stalled:
            raise PeerAway("the answer of another daemon does not end") from None
        return body

    def _has_to_stop(self, silent: float) -> bool:
        return self._shared.is_stopping and silent >= _ANSWER_SECONDS_AT_STOP

    async def _require_there(self, peer: Peer) -> None:
        """Raise PeerAway where nothing has been heard of a daemon for long: it is not waited for."""
        known = None
        # as long as the catalogue cannot be asked it is waited for
        with suppress(CatalogueError):
            known = await self._daemons.find(peer.id)
        if known is not None and known.is_away:
            raise PeerAway("the daemon that has the upload is silent")

    async def _send(self, exchange: Exchange, connection: PeerConnection, peer: Peer, wait: "_Wait") -> None:
        """Pass on the head and the body as it comes, then wait until the client is gone: to whom else would it matter.

        What comes as a body where the method has none is not passed on. Raises BadRequest, PeerAway, ClientGone,
        RequestTimeout, Busy.
        """
        target = _target_of(exchange)
        has_body = exchange.method in _WITH_BODY
        said = {name: value for name, value in exchange.headers.items() if has_body or name != b"content-length"}
        request = Request(exchange.method, target, said)
        passed = await self._make_pass(exchange, request, peer)
        headers = [*request.passed(), (HEADER, passed)]
        if has_body and b"content-length" not in said:
            headers.append((b"transfer-encoding", b"chunked"))
        await connection.begin(exchange.method, target, headers)
        if has_body:
            await self._send_body(exchange, connection)
        await connection.finish()
        wait.sent()
        while (await exchange.receive())["type"] == "http.request":
            pass
        raise ClientGone

    async def _send_body(self, exchange: Exchange, connection: PeerConnection) -> None:
        guard = self._stalls.guard(self._body_timeout + _BEHIND_SECONDS, lambda _: self._shared.is_stopping)
        body = Intake(exchange, guard, None)
        try:
            while piece := await body.read():
                await connection.send(piece)
        except RequestTimeout:
            if self._shared.is_stopping:
                raise Busy("The server stops; ask with HEAD how far the upload has come, and go on.") from None
            raise RequestTimeout("The body stopped coming; ask with HEAD how far the upload has come.") from None
        finally:
            guard.forget()

    async def fetch(self, exchange: Exchange, part: UploadRecord) -> AsyncIterator[bytes]:
        """Return the bytes of a whole part that another daemon has, in the name of who asked this one.

        Raises Busy where that cannot be reached, Locked, NotFound.
        """
        try:
            peer = await self._find(exchange, part)
            connection = await PeerConnection.open(peer.url, self._certificate)
            guard = self._stalls.guard(self._body_timeout, self._has_to_stop)
            try:
                with guard:
                    await self._ask_for(exchange, connection, peer, part)
                pieces = connection.body()
                while piece := await _next(pieces, guard):
                    yield piece
            finally:
                connection.close()
        except (PeerAway, Stalled) as error:
            raise Busy(
                f"The part {part.id} lies on a machine that is away; try again.", retry_after=AWAY_RETRY_SECONDS
            ) from error

    async def _ask_for(self, exchange: Exchange, connection: PeerConnection, peer: Peer, part: UploadRecord) -> None:
        target = f"{PARTS}/{part.id}"
        named = {name: exchange.headers[name] for name in (b"authorization",) if name in exchange.headers}
        request = Request("GET", target, named)
        passed = await self._make_pass(exchange, request, peer)
        await connection.begin("GET", target, [*request.passed(), (HEADER, passed)])
        await connection.finish()
        answer = await connection.answer()
        _require_right_daemon(answer, peer)
        if answer.status != 200:
            _refuse(answer, part)


class _Wait:
    """How long an answer may take: long, since a large file is brought to its bucket first, and not for a stop."""

    def __init__(self) -> None:
        self._ends = float("inf")

    def sent(self) -> None:
        """Note that the request is sent to its end."""
        self._ends = min(self._ends, uptime() + _ANSWER_SECONDS)

    def require_time(self, *, is_stopping: bool) -> None:
        """Raise PeerAway where it has taken too long; Busy where it has, for a daemon that stops."""
        if is_stopping:
            self._ends = min(self._ends, uptime() + _ANSWER_SECONDS_AT_STOP)
        if uptime() < self._ends:
            return
        if is_stopping:
            raise Busy("The server stops; ask with HEAD how far the upload has come, and go on.")
        raise PeerAway("another daemon does not answer")


async def _next(pieces: AsyncIterator[bytes], guard: Guard) -> bytes:
    with guard:
        return await anext(pieces, b"")


def _origin_of(exchange: Exchange) -> Origin:
    # names are shorter, and whatever is longer is no address of this machine either
    return Origin(exchange.client, exchange.is_proxied, exchange.scheme, exchange.host[:_LONGEST_HOST])


def _target_of(exchange: Exchange) -> str:
    query = exchange.query_string.decode("latin-1")
    return f"{exchange.path}?{query}" if query else exchange.path


def _require_no_answer(sending: "asyncio.Future[None]", answering: "asyncio.Future[PeerAnswer]") -> None:
    """Raise what has ended the sending, unless there is an answer all the same: it says more."""
    # it may have closed the connection after an answer that has not been read yet
    if isinstance(sending.exception(), PeerAway) or answering.done():
        return
    try:
        sending.result()
    finally:
        # see above
        del sending, answering


def _require_right_daemon(answer: PeerAnswer, peer: Peer) -> None:
    if answer.header(HEADER):
        logger.error(
            "the daemon at {} does not take what is passed on to it: either another one is at that address, see "
            "--peer-url, or its clock or catalogue is not this one's", peer.url,
        )  # fmt: skip
        raise PeerAway("who is at its address takes nothing from here")


async def _give_back(exchange: Exchange, answer: PeerAnswer, body: bytes) -> None:
    """Answer with what another daemon has answered."""
    own = _OWN_HEADERS | {name for name, _ in exchange.added_headers}
    headers: Headers = [(name, value) for name, value in answer.headers if name not in own]
    exchange.digest = answer.header(b"filestored-hash").decode("latin-1")
    await exchange.start(answer.status, headers)
    await exchange.write(body, more=False)


def _refuse(answer: PeerAnswer, part: UploadRecord) -> NoReturn:
    if answer.status == 423:
        raise Locked("A part is just being joined, or ended, by another request.")
    if answer.status == 404:
        raise NotFound(f"The part {part.id} is not there any more.")
    raise Busy(f"The machine that has the part {part.id} cannot give it at the moment; try again.")
