"""Sending the bytes of a blob: from the system's memory, from the disk by a thread, or from a bucket as they come."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from filestored.api.exchange import Exchange
from filestored.api.limits import Limits
from filestored.api.ranges import Span
from filestored.api.stalls import Guard, Stalled, Stalls
from filestored.blobs.store import BlobHandle
from filestored.errors import ClientGone
from filestored.filestore import Filestore

SMALL = 64 * 1024
"""Up to this many bytes a file is answered in one message."""

MIN_PIECE = 16 * 1024
# several pieces of each stream wait in the server until the client allows more; larger ones are not faster
_HTTP2_PIECE = 64 * 1024
_IN_FLIGHT = 8 << 20
_ASKED_EVERY = 1 << 20


@dataclass(slots=True)
class Begun:
    """A span that is coming from a bucket, with its first piece."""

    pieces: AsyncGenerator[bytes, None]
    first: bytes


class Sender:
    """Sends spans of blobs to clients that take them at their own speed."""

    def __init__(self, filestore: Filestore, limits: Limits, stalls: Stalls) -> None:
        self._filestore = filestore
        self._limits = limits
        self._stalls = stalls
        self._streams = 0
        # every read that does not wait goes through this one: a new one each time would have to be cleared first
        self._buffer = memoryview(bytearray(max(limits.buffer, SMALL)))

    async def begin(self, blob: BlobHandle, span: Span) -> Begun | None:
        """Have the first bytes of a span come, before the head of the answer is out; None for a file held open.

        Raises BlobStoreError where a bucket does not give them.
        """
        pieces = blob.stream(span.start, span.stop, self._piece(self._streams + 1))
        if pieces is None:
            return None
        try:
            return Begun(pieces, await anext(pieces, b""))
        except BaseException:
            await pieces.aclose()
            raise

    async def send(
        self, exchange: Exchange, blob: BlobHandle, span: Span, begun: Begun | None = None, *, more: bool = False
    ) -> None:
        """Send a span of a blob; ``more`` says that other bytes follow it.

        Raises ClientGone, and OSError or BlobStoreError where the bytes cannot be read on.
        """
        self._streams += 1
        try:
            with self._stalls.guard(self._limits.send_timeout) as guard:
                begun = begun or await self.begin(blob, span)
                if begun is None:
                    await self._send_file(exchange, blob, span, guard, more=more)
                else:
                    await self._pass_on(exchange, begun, span, guard, more=more)
        except Stalled:
            raise ClientGone from None
        finally:
            self._streams -= 1
            if begun is not None:
                await begun.pieces.aclose()

    async def _send_file(self, exchange: Exchange, blob: BlobHandle, span: Span, guard: Guard, *, more: bool) -> None:
        start, stop = span
        asked_at = start
        most = self._limits.buffer if exchange.is_http1 else _HTTP2_PIECE
        while start < stop:
            end = min(start + min(most, self._piece(self._streams)), stop)
            piece = self.read_cached(blob, start, end)
            if not piece:
                piece = await self._filestore.in_thread(blob.read, start, end)
            start += len(piece)
            await exchange.write(piece, more=more or start < stop)
            guard.moved()
            if start - asked_at >= _ASKED_EVERY and start < stop:
                asked_at = start
                await exchange.require_client()

    async def _pass_on(self, exchange: Exchange, begun: Begun, span: Span, guard: Guard, *, more: bool) -> None:
        start, stop = span
        asked_at = start
        piece = begun.first
        while piece:
            guard.moved()
            start += len(piece)
            await exchange.write(piece, more=more or start < stop)
            guard.moved()
            if start - asked_at >= _ASKED_EVERY and start < stop:
                asked_at = start
                await exchange.require_client()
            piece = await anext(begun.pieces, b"")

    def _piece(self, streams: int) -> int:
        """Return how many bytes are read at a time: many slow readers share what one fast reader may have in memory."""
        return max(MIN_PIECE, min(self._limits.buffer, _IN_FLIGHT // streams))

    def read_cached(self, blob: BlobHandle, start: int, stop: int) -> bytes:
        """Return what is in memory already of a span, without waiting for the disk; empty where nothing is."""
        return blob.read_cached(start, stop, self._buffer)
