"""Downloads whose bytes another program sends: the bucket itself, or nginx before a store on disk.

Who may have the file is decided here as ever; only then the client is sent to a presigned address (``307``), or nginx
told the file's name (``X-Accel-Redirect``).
"""

import time
from dataclasses import dataclass

from filestored.api.exchange import Exchange, Headers
from filestored.api.ranges import Span
from filestored.filestore import Filestore
from filestored.reading import OpenFile

SMALLEST = 64 * 1024
"""Up to this many bytes a file is answered from memory, which costs less than a way around."""

ADDRESS_SECONDS = 60
"""How long a presigned address can be gone to. A download that has begun goes on."""

_CONDITIONS = frozenset({b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"})
_SAID_BY_BUCKET = (b"content-type", b"content-disposition", b"cache-control")
_PICTURES = b"image/"


@dataclass(frozen=True, slots=True)
class Detours:
    """Which downloads go elsewhere."""

    redirect_from: int | None = None
    """Files of more bytes than this are fetched from the bucket by the client; None for never."""

    accel_prefix: str | None = None
    """Where nginx has the store's folder, without a slash at its end; None for never."""


class Elsewhere:
    """Sends downloads elsewhere where that is right."""

    def __init__(self, filestore: Filestore, detours: Detours) -> None:
        self._filestore = filestore
        self._detours = detours

    async def answer(
        self, exchange: Exchange, file: OpenFile, representation: Headers, spans: list[Span] | None,
        admitted_until: int | None,
    ) -> bool:  # fmt: skip
        """Answer with where the bytes are; False where they are to be sent from here.

        ``admitted_until`` is when the link or the token ends that lets the client in (milliseconds since 1970).
        Conditions are judged here, by our own tags: neither the bucket nor nginx knows those.
        """
        if exchange.method != "GET" or not _CONDITIONS.isdisjoint(exchange.headers):
            return False
        if self._detours.accel_prefix is not None:
            return await self._accelerate(exchange, file, representation)
        ends = [end for end in (file.expires_at, admitted_until) if end is not None]
        seconds = min([ADDRESS_SECONDS, *map(_seconds_left, ends)])
        return await self._redirect(exchange, file, representation, spans, seconds)

    async def _accelerate(self, exchange: Exchange, file: OpenFile, representation: Headers) -> bool:
        """Have nginx send the file, ranges and all. Anybody else would get an empty answer."""
        if not exchange.is_from_trusted or file.blob.size <= SMALLEST:
            return False
        path = f"{self._detours.accel_prefix}/{file.digest[:2]}/{file.digest}"
        # nginx says by itself which ranges it has
        said = [(name, value) for name, value in representation if name != b"accept-ranges"]
        await exchange.answer(200, [*said, (b"x-accel-redirect", path.encode("ascii"))])
        return True

    async def _redirect(
        self, exchange: Exchange, file: OpenFile, representation: Headers, spans: list[Span] | None,
        seconds: float,
    ) -> bool:  # fmt: skip
        """Send the client to the bucket, which knows one range at a time, by an address good for ``seconds``."""
        smallest = self._detours.redirect_from
        if smallest is None or file.blob.size <= smallest or (spans and len(spans) > 1) or _is_of_page(exchange):
            return False
        if seconds < 1:
            return False
        said = {name.decode(): value.decode("latin-1") for name, value in representation if name in _SAID_BY_BUCKET}
        found = await self._filestore.presigned(file.digest, seconds, said)
        if found is None:
            return False
        url, says_all = found
        if not says_all and b"sec-fetch-mode" in exchange.headers:
            # a browser would save it under its hash, and as nothing in particular
            return False
        await exchange.answer(307, [(b"location", url.encode("ascii")), (b"cache-control", b"no-store")])
        return True


def _is_of_page(exchange: Exchange) -> bool:
    """Tell whether a page asks, whose policy and origin know this server alone, and not a browser that goes there."""
    headers = exchange.headers
    mode = headers.get(b"sec-fetch-mode", b"navigate")
    return mode != b"navigate" or b"origin" in headers or headers.get(b"accept", b"").startswith(_PICTURES)


def _seconds_left(expires_at: int) -> float:
    return expires_at / 1000 - time.time()
