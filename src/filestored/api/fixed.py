"""Documents that stay as they are while the program runs: read once, kept, told apart by a tag, sent in pieces.

They are sent packed (gzip) to whoever can unpack them. They hold no secret that its length could tell of.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from filestored.api import preconditions
from filestored.api.exchange import Exchange, Headers
from filestored.api.representations import NO_SNIFF, accepts
from filestored.api.routes import Answer
from filestored.api.stalls import Stalled, Stalls
from filestored.errors import ClientGone
from filestored.filestore import Filestore

ASKED_AGAIN = (b"cache-control", b"no-cache")
"""For what may be another document tomorrow: it is kept, and asked after by its tag."""

SAME = Answer("It is the one that If-None-Match names.", None, ("ETag",))

_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".png": b"image/png",
    ".svg": b"image/svg+xml",
}
_NO_REFERRER = (b"referrer-policy", b"no-referrer")
_VARY = (b"vary", b"Accept-Encoding")
_PACKED = (b"content-encoding", b"gzip")
_PIECE = 64 * 1024
_CONDITIONS = (b"if-match", b"if-none-match")

Load = Callable[[str], tuple[bytes, Headers]]


@dataclass(frozen=True, slots=True)
class _Document:
    """One form of something to be shown: its bytes, its tag, and the headers of its answers."""

    body: bytes
    etag: bytes
    headers: Headers


class FixedDocuments:
    """Answers with documents by their names, to everybody."""

    def __init__(self, filestore: Filestore, stalls: Stalls, send_timeout: float, load: Load) -> None:
        """``load`` returns the bytes of a name, and what its headers have beside type and tag; it may block."""
        self._filestore = filestore
        self._stalls = stalls
        self._send_timeout = send_timeout
        self._load = load
        self._documents: dict[str, tuple[_Document, _Document]] = {}

    async def answer(self, exchange: Exchange, name: str) -> None:
        """Answer a GET or HEAD with a document. Raises PreconditionFailed."""
        if name not in self._documents:
            self._documents[name] = await self._filestore.in_thread(self._read, name)
        plain, packed = self._documents[name]
        document = packed if accepts(exchange.headers.get(b"accept-encoding", b""), b"gzip") else plain
        conditions = {key: exchange.headers[key] for key in _CONDITIONS if key in exchange.headers}
        if preconditions.not_modified(conditions, document.etag, 0):
            await exchange.start(304, document.headers)
            await exchange.write(b"", more=False)
        elif exchange.method == "HEAD":
            await exchange.answer(200, document.headers, document.body)
        else:
            await self._send(exchange, document)

    async def _send(self, exchange: Exchange, document: _Document) -> None:
        """Send it in pieces: however many strangers take it slowly, little of it waits in memory for each."""
        size = len(document.body)
        await exchange.start(200, [*document.headers, (b"content-length", b"%d" % size)])
        try:
            with self._stalls.guard(self._send_timeout) as guard:
                for start in range(0, size, _PIECE):
                    await exchange.write(document.body[start : start + _PIECE], more=start + _PIECE < size)
                    guard.moved()
        except Stalled:
            raise ClientGone from None

    def _read(self, name: str) -> tuple[_Document, _Document]:
        """Return a document as it is, and packed. Blocks."""
        body, headers = self._load(name)
        shown = [(b"content-type", _TYPES[Path(name).suffix]), NO_SNIFF, _NO_REFERRER, _VARY, *headers]
        return _document(body, shown), _document(gzip.compress(body, mtime=0), [*shown, _PACKED])


def _document(body: bytes, headers: Headers) -> _Document:
    etag = b'"%s"' % sha256(body).hexdigest()[:32].encode()
    return _Document(body, etag, [(b"etag", etag), *headers])
