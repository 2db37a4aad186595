"""Reading the body of a request: in time, within its limit, and only whole."""

import asyncio
from collections.abc import Callable

from filestored.api.exchange import Exchange
from filestored.api.limits import DRAINED_BYTES, DRAINED_SECONDS, DRAINED_SECONDS_AT_STOP
from filestored.api.stalls import Guard, Stalled
from filestored.errors import ClientGone, RequestTimeout, TooLarge

_ROOM_CHECKED_EVERY = 1 << 20


class Intake:
    """The bytes of a request as they come: never more than ``most``, and only whole."""

    def __init__(
        self, exchange: Exchange, guard: Guard, most: int | None, require_room: Callable[[int], None] = lambda _: None
    ) -> None:
        """``require_room`` is asked now and then whether there is room for as many more bytes as it is given.

        Raises TooLarge where the announced length says so already.
        """
        announced = exchange.content_length
        if most is not None and announced is not None and announced > most:
            raise too_large(most)
        self._exchange = exchange
        self._guard = guard
        self._most = most
        self._require_room = require_room
        self._announced = announced
        self._received = 0
        self._room_checked_at = _ROOM_CHECKED_EVERY
        self._has_more = True

    async def read(self) -> bytes:
        """Return the next piece, empty at the end.

        Raises RequestTimeout where none comes in time, ClientGone where the body is cut short, TooLarge, OutOfSpace.
        """
        piece = b""
        while self._has_more and not piece:
            piece = await self._receive()
        if not piece and self._announced not in (None, self._received):
            raise ClientGone
        return piece

    async def _receive(self) -> bytes:
        try:
            with self._guard:
                message = await self._exchange.receive()
        except Stalled:
            raise RequestTimeout("The body stopped coming; nothing was stored. Send it again.") from None
        if message["type"] != "http.request":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        self._has_more = message.get("more_body", False)
        has_come = bool(piece or self._received)
        if has_come and not self._has_more and self._announced is None and not self._exchange.is_http1:
            # over HTTP/2 a stream that is reset without an error ends like one that is whole
            await self._exchange.require_not_reset()
        self._received += len(piece)
        if self._most is not None and self._received > self._most:
            raise too_large(self._most)
        if self._received >= self._room_checked_at:
            self._room_checked_at = self._received + _ROOM_CHECKED_EVERY
            self._require_room(max((self._announced or 0) - self._received, 0))
        return piece


def too_large(most: int) -> TooLarge:
    """Return the error for a body of more than ``most`` bytes."""
    return TooLarge(f"At most {most} bytes are taken here: by the server's limits, or by what a quota leaves.")


async def drain(exchange: Exchange, *, is_stopping: bool) -> None:
    """Take in the rest of a refused body, up to a bound: a connection closed on unread bytes loses the answer."""
    if exchange.headers.get(b"expect", b"").lower() == b"100-continue" and not exchange.is_body_begun:
        return
    left = DRAINED_BYTES
    try:
        async with asyncio.timeout(DRAINED_SECONDS_AT_STOP if is_stopping else DRAINED_SECONDS):
            while left > 0:
                message = await exchange.receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
