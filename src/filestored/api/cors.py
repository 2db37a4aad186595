"""Cross-origin requests: which pages of other sites may use this server (Fetch, 3.2)."""

from collections.abc import Iterable

from filestored.api.exchange import Exchange, Headers
from filestored.errors import Forbidden

_MAX_AGE_SECONDS = 86400
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_EXPOSED = (
    b"Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Filestored-Hash, Last-Modified, "
    b"Location, Repr-Digest, Retry-After, Sunset, Tus-Checksum-Algorithm, Tus-Extension, Tus-Max-Size, Tus-Resumable, "
    b"Tus-Version, Upload-Concat, Upload-Defer-Length, Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset"
)
_VARY = (b"vary", b"Origin")


class Cors:
    """The origins that are let in: those named, or all (``*``)."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)
        self._is_open = "*" in self._origins

    @property
    def is_on(self) -> bool:
        """Whether any origin is let in, so that answers differ by who asks."""
        return bool(self._origins)

    def allows(self, origin: bytes) -> bool:
        """Tell whether pages of this origin may use the server."""
        return self._is_open or origin.decode("latin-1").lower() in self._origins

    def mark(self, exchange: Exchange) -> None:
        """Have the answer say that the page that asks may read it."""
        if not self._origins:
            return
        origin = exchange.headers.get(b"origin")
        if origin is not None and self.allows(origin):
            exchange.added_headers = [*self._allowed(origin), (b"access-control-expose-headers", _EXPOSED)]
        elif not self._is_open:
            exchange.added_headers = [_VARY]

    def is_preflight(self, exchange: Exchange) -> bool:
        """Tell whether a browser asks beforehand what it may send; never where no origin is let in."""
        return (
            bool(self._origins)
            and exchange.method == "OPTIONS"
            and b"origin" in exchange.headers
            and b"access-control-request-method" in exchange.headers
        )

    async def answer_preflight(self, exchange: Exchange) -> None:
        """Say what a page may send. Raises Forbidden where its origin is not let in."""
        origin = exchange.headers[b"origin"]
        if not self.allows(origin):
            raise Forbidden("Pages of this origin may not use the server; the operator can add it to --cors-origin.")
        exchange.added_headers = []
        headers = [
            *self._allowed(origin),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", b"%d" % _MAX_AGE_SECONDS),
            (b"cache-control", b"no-store"),
        ]
        wanted = exchange.headers.get(b"access-control-request-headers")
        if wanted:
            # whatever it is: what this server does not know it does not look at
            headers.append((b"access-control-allow-headers", wanted))
        await exchange.start(204, headers)
        await exchange.write(b"", more=False)

    def _allowed(self, origin: bytes) -> Headers:
        if self._is_open:
            return [(b"access-control-allow-origin", b"*")]
        return [(b"access-control-allow-origin", origin), _VARY]
