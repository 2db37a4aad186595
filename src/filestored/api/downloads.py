"""Answering with a stored file: preconditions, ranges, headers (RFC 9110), streamed from an open handle."""

import asyncio
import secrets
import time
from functools import lru_cache

from filestored.access import Principal
from filestored.api import integrity, names, preconditions
from filestored.api.elsewhere import Detours, Elsewhere
from filestored.api.exchange import Exchange, Headers, Message
from filestored.api.hot import HotFiles
from filestored.api.limits import Limits
from filestored.api.ranges import Span, content_range, multipart_framing, parse_range
from filestored.api.sending import SMALL, Begun, Sender
from filestored.api.stalls import Stalls
from filestored.catalogue.records import UNKNOWN_TYPE, FileRecord
from filestored.digest import Digest
from filestored.errors import PreconditionFailed, RangeNotSatisfiable
from filestored.filestore import Filestore
from filestored.reading import OpenFile
from filestored.shared import slot_of

_CONDITIONS = frozenset({b"if-match", b"if-none-match", b"if-unmodified-since"})
# what a file that is held open counts for, so that at most 256 are
_OPEN_COST = 256 * 1024
_UNUSED_SECONDS = 5
_TRUSTED_SECONDS = 1.0
_CONTENT_POLICY = (b"content-security-policy", b"sandbox; default-src 'none'")
_RANGES = (b"accept-ranges", b"bytes")
_NO_SNIFF = (b"x-content-type-options", b"nosniff")


class Download:
    """A file together with the headers of its answers, made once and used for every request."""

    __slots__ = (
        "body", "confirming", "etag", "file", "generation", "modified", "not_modified", "representation", "slot",
        "start", "valid_until",
    )  # fmt: skip

    def __init__(self, file: OpenFile, headers: Headers, cached: Headers, body: bytes | None, modified: int) -> None:
        self.file = file
        self.modified = modified
        """Since when it is what it is, in seconds since 1970."""
        self.etag = entity_tag(file.digest)
        self.representation = headers
        self.body: Message | None = None
        self.start: Message = _start(200, [*headers, _pair(b"content-length", b"%d" % file.blob.size)])
        self.not_modified: Message = _start(304, cached)
        if body is not None:
            self.body = {"type": "http.response.body", "body": body, "more_body": False}
        self.slot = slot_of(file.digest)
        self.generation = file.generation
        self.valid_until = 0.0
        """Until when (monotonic seconds) it needs no look at disk and clock, or at the catalogue."""
        self.confirming: asyncio.Task[bool] | None = None
        """The look at the catalogue that is under way."""

    @property
    def cost(self) -> int:
        """Bytes of memory it takes up, nearly."""
        return _OPEN_COST if self.body is None else 2048 + len(self.body["body"])


def entity_tag(digest: Digest) -> bytes:
    """Return a file's strong tag (RFC 9110, 8.8.3): its digest."""
    return b'"%s"' % digest.encode()


@lru_cache(4096)
def _pair(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return one object for headers that many files have alike: less memory, and less of it to be fetched."""
    return name, value


def _start(status: int, headers: Headers) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


class Downloads:
    """Finds files and answers with them."""

    def __init__(self, filestore: Filestore, limits: Limits, stalls: Stalls, detours: Detours | None = None) -> None:
        self.hot: HotFiles[Download] = HotFiles()
        self._filestore = filestore
        self._limits = limits
        self._sender = Sender(filestore, limits, stalls)
        self._elsewhere = Elsewhere(filestore, detours) if detours else None
        self._generations = filestore.shared.generations
        self._has_others = filestore.has_others

    async def answer(self, exchange: Exchange, principal: Principal, digest: Digest, name: str | None = None) -> None:
        """Answer GET or HEAD with a file; ``name`` is the one its address gives it.

        Raises NotFound, PreconditionFailed, RangeNotSatisfiable.
        """
        exchange.digest = digest
        download = await self.find(principal, digest)
        headers = exchange.headers
        if preconditions.not_modified(headers, download.etag, download.modified):
            exchange.status = 304
            await exchange.start(304, download.not_modified["headers"])
            await exchange.write(b"", more=False)
            return
        spans = self._spans(exchange, download)
        representation = self._representation(exchange, download, name)
        if self._elsewhere and await self._elsewhere.answer(
            exchange, download.file, representation, spans, principal.expires_at
        ):
            return
        if spans is None:
            await self._whole(exchange, download, representation)
        elif len(spans) == 1:
            await self._part(exchange, download, representation, spans[0])
        else:
            await self._parts(exchange, download, representation, spans)

    async def require_preconditions(self, exchange: Exchange, principal: Principal, digest: Digest) -> None:
        """Raise PreconditionFailed where a request to change a file sets a condition that does not hold.

        RFC 9110, 13.1: If-Match and If-None-Match, and the dates, count for all methods.
        """
        if _CONDITIONS.isdisjoint(exchange.headers):
            return
        stored = await self._filestore.find_stored(principal, digest)
        if stored is None:
            if b"if-match" in exchange.headers:
                raise PreconditionFailed("If-Match asks for a file that is not stored.")
            return
        # If-Modified-Since is about reading only (RFC 9110, 13.1.3)
        headers = {name: value for name, value in exchange.headers.items() if name != b"if-modified-since"}
        if preconditions.not_modified(headers, entity_tag(digest), _modified(stored.blob.modified, stored.record)):
            raise PreconditionFailed("The file is stored already, which If-None-Match excludes.")

    async def find(self, principal: Principal, digest: Digest) -> Download:
        """Return a file ready to be answered with, from memory where it was asked for lately.

        Raises NotFound, Forbidden, Unauthorized.
        """
        principal.require_reading(digest)
        key = f"{principal.owner}/{digest}"
        download = self.hot.get(key)
        if download is not None and (self.renew(key, download) or await self._confirm(key, principal, download)):
            return download
        began = time.monotonic()
        file = await self._filestore.open(principal, digest)
        body = file.blob.body
        if body is None and file.blob.size <= SMALL:
            body = await self._filestore.in_thread(file.blob.read, 0, file.blob.size)
            file.blob.close()
        download = self._make(file, body)
        if self._has_others:
            download.valid_until = began + _TRUSTED_SECONDS
        # the headers of what will expire are right only now
        if file.expires_at is None:
            self.hot.keep(key, download)
        return download

    def renew(self, key: str, download: Download) -> bool:
        """Tell whether a remembered file still is what is stored; forget it where it is not."""
        monotonic = time.monotonic()
        if self._generations[download.slot] == download.generation:
            if monotonic < download.valid_until:
                return True
            if self._has_others:
                # only the catalogue can tell
                return False
            if self._filestore.is_in_place(download.file):
                download.valid_until = monotonic + _TRUSTED_SECONDS
                return True
        self.hot.drop(key)
        return False

    async def _confirm(self, key: str, principal: Principal, download: Download) -> bool:
        """Ask the catalogue whether a remembered file still is what is stored, once for all who want it at a time."""
        if self.hot.get(key) is not download:
            return False
        began = time.monotonic()
        # a look that took long may have begun before a change that this request has to see
        while download.valid_until <= began:
            if download.confirming is None or download.confirming.done():
                download.confirming = asyncio.ensure_future(self._look(principal, download))
                download.confirming.add_done_callback(lambda looking: _end_confirming(download, looking))
            if not await asyncio.shield(download.confirming):
                self.hot.drop(key)
                return False
        return True

    async def _look(self, principal: Principal, download: Download) -> bool:
        asked = time.monotonic()
        if not await self._filestore.is_still(principal, download.file):
            return False
        download.valid_until = asked + _TRUSTED_SECONDS
        return self._filestore.is_in_place(download.file)

    def sweep(self) -> None:
        """Forget files held open that were deleted, or not asked for during the last seconds."""
        now = time.monotonic()
        for key, download in self.hot.items():
            if download.body is None and (
                now > download.valid_until + _UNUSED_SECONDS or self._generations[download.slot] != download.generation
            ):
                self.hot.drop(key)

    def plain_part(self, download: Download, ranges: bytes) -> tuple[Message, Message] | None:
        """Return the answer to one short range, where it is in memory; None where that needs more work."""
        blob = download.file.blob
        try:
            spans = parse_range(ranges, blob.size)
        except RangeNotSatisfiable:
            return None
        if spans is None or len(spans) != 1:
            return None
        start, stop = spans[0]
        length = stop - start
        if length > SMALL:
            return None
        piece = download.body["body"][start:stop] if download.body else self._sender.read_cached(blob, start, stop)
        if len(piece) != length:
            return None
        own = [(b"content-range", content_range(spans[0], blob.size)), (b"content-length", b"%d" % length)]
        return (
            _start(206, [*download.representation, *own]),
            {"type": "http.response.body", "body": piece, "more_body": False},
        )

    def _make(self, file: OpenFile, body: bytes | None) -> Download:
        record = file.record
        media_type = record.media_type if record else UNKNOWN_TYPE
        modified = _modified(file.blob.modified, record)
        cached: Headers = [
            (b"etag", entity_tag(file.digest)),
            _pair(b"cache-control", self._cache_control(file)),
            _pair(b"last-modified", preconditions.http_date(modified)),
        ]
        if file.expires_at is not None:
            cached.append((b"sunset", preconditions.http_date(file.expires_at // 1000)))
        headers = [
            *cached,
            _pair(b"content-type", media_type.encode("latin-1")),
            _pair(b"content-disposition", _disposition(file, record.name if record else None, forced=False)),
            _RANGES,
            _NO_SNIFF,
            _CONTENT_POLICY,
        ]
        repr_digest = integrity.repr_digest(file.algorithm, file.digest) if file.algorithm else None
        if repr_digest is not None:
            headers.append((b"repr-digest", repr_digest))
        return Download(file, headers, cached, body, modified)

    def _cache_control(self, file: OpenFile) -> bytes:
        """Return the header of the settings, which must not outlive the file itself."""
        if file.expires_at is None:
            return self._limits.cache_control.encode("latin-1")
        left = max(0, file.expires_at // 1000 - int(time.time()))
        directives = [part.strip() for part in self._limits.cache_control.split(",")]
        kept = [part for part in directives if part != "immutable" and not part.startswith("max-age=")]
        return ", ".join([*kept, f"max-age={left}"] if kept != directives else kept).encode("latin-1")

    def _representation(self, exchange: Exchange, download: Download, name: str | None) -> Headers:
        """Return the headers that describe the file, as this address and query want it named."""
        forced = "download" in exchange.query
        if name is None and not forced:
            return download.representation
        record = download.file.record
        shown = names.clean_name(name) if name else None
        disposition = _disposition(download.file, shown or (record.name if record else None), forced=forced)
        return [
            (key, disposition if key == b"content-disposition" else value) for key, value in download.representation
        ]

    def _spans(self, exchange: Exchange, download: Download) -> list[Span] | None:
        """Return the spans asked for, None for the whole file. Only GET has ranges (RFC 9110, 14.2)."""
        header = exchange.headers.get(b"range")
        if header is None or exchange.method != "GET":
            return None
        if_range = exchange.headers.get(b"if-range")
        if if_range is not None and not preconditions.range_applies(if_range, download.etag, download.modified):
            return None
        return parse_range(header, download.file.blob.size)

    async def _whole(self, exchange: Exchange, download: Download, headers: Headers) -> None:
        size = download.file.blob.size
        is_head = exchange.method == "HEAD"
        begun = None if is_head else await self._begin(download, Span(0, size))
        await exchange.start(200, [*headers, (b"content-length", b"%d" % size)])
        if is_head:
            await exchange.write(b"", more=False)
        else:
            await self._send(exchange, download, Span(0, size), begun)

    async def _part(self, exchange: Exchange, download: Download, headers: Headers, span: Span) -> None:
        length = span.stop - span.start
        own = [
            (b"content-range", content_range(span, download.file.blob.size)),
            (b"content-length", b"%d" % length),
        ]
        begun = await self._begin(download, span)
        await exchange.start(206, [*headers, *own])
        await self._send(exchange, download, span, begun)

    async def _parts(self, exchange: Exchange, download: Download, headers: Headers, spans: list[Span]) -> None:
        boundary = secrets.token_hex(16).encode()
        media_type = next(value for key, value in headers if key == b"content-type")
        heads, closing, length = multipart_framing(spans, download.file.blob.size, media_type, boundary)
        own = [
            (b"content-type", b"multipart/byteranges; boundary=" + boundary),
            (b"content-length", b"%d" % length),
        ]
        begun = await self._begin(download, spans[0])
        await exchange.start(206, [*(pair for pair in headers if pair[0] != b"content-type"), *own])
        for head, span in zip(heads, spans, strict=True):
            await exchange.write(head, more=True)
            await self._send(exchange, download, span, begun, more=True)
            begun = None
        await exchange.write(closing, more=False)

    async def _begin(self, download: Download, span: Span) -> Begun | None:
        """Have the first bytes come, so that what is wrong with a bucket shows before the head of the answer is out."""
        return None if download.body is not None else await self._sender.begin(download.file.blob, span)

    async def _send(
        self, exchange: Exchange, download: Download, span: Span, begun: Begun | None = None, *, more: bool = False
    ) -> None:
        """Send a span of a file; ``more`` says that other bytes follow it. Raises ClientGone."""
        if download.body is not None:
            await exchange.write(download.body["body"][span.start : span.stop], more=more)
        else:
            await self._sender.send(exchange, download.file.blob, span, begun, more=more)


def _modified(of_blob: int, record: FileRecord | None) -> int:
    """Return the time of a file that all daemons tell alike, never later than now (RFC 9110, 8.8.2.1).

    The clock of a bucket may be ahead, and what it says changes when bytes are brought there again.
    """
    return min(of_blob, record.created_at // 1000 if record else int(time.time()))


def _end_confirming(download: Download, looking: "asyncio.Task[bool]") -> None:
    if download.confirming is looking:
        download.confirming = None
    if not looking.cancelled():
        # whoever waits for it is told; where nobody does any more nobody needs to be
        looking.exception()


def _disposition(file: OpenFile, name: str | None, *, forced: bool) -> bytes:
    is_inline = file.record is not None and not forced and names.is_harmless_inline(file.record.media_type)
    return names.content_disposition("inline" if is_inline else "attachment", name)
