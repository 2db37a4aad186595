"""Turning the body of a request into staged files: raw, chunked or multipart, streamed once."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from filestored.access import Principal
from filestored.api import integrity, names
from filestored.api.exchange import Exchange
from filestored.api.intake import Intake, too_large
from filestored.api.integrity import Expected
from filestored.api.limits import MULTIPART_OVERHEAD, Limits
from filestored.api.multipart import MultipartReader, PartBegin, PartBody
from filestored.api.stalls import Stalls
from filestored.catalogue.records import UNKNOWN_TYPE, Wish, now_milliseconds
from filestored.digest import Algorithm, Digest, algorithm_of, parse_digest, require_same
from filestored.errors import BadRequest, DigestMismatch, TooLarge
from filestored.filestore import Filestore
from filestored.quantities import parse_duration
from filestored.staging import SMALL, Receiver, Staged

MAX_FIELD_BYTES = 4096
"""How long a text field of a form may be, of those that say something about the upload."""

MAX_HELD_BYTES = 1 << 20
"""How much of the small files of one form may wait in memory."""

_FORM = "application/x-www-form-urlencoded"
_SAID = ("name", "expires_in", "file_hash")

Bodies = list[tuple[Staged, Wish]]


@dataclass(slots=True)
class _Said:
    """What a request says about an upload, in its query and, for a form, in its text fields, which count for more."""

    name: str | None = None
    expires_at: int | None = None
    file_hash: Digest | None = None
    announced_by: str = "file_hash"

    def read(self, fields: Mapping[str, str]) -> None:
        """Take in ``name``, ``expires_in`` and ``file_hash``; BadRequest where one makes no sense."""
        if (name := fields.get("name")) is not None:
            self.name = names.clean_name(name)
        if (expires_in := fields.get("expires_in")) is not None:
            self.expires_at = end_of(expires_in)
        if (file_hash := fields.get("file_hash")) is not None:
            self.file_hash = parse_digest(file_hash)
            if self.file_hash is None:
                raise BadRequest(f"file_hash={file_hash[:140]!r} is not a hash: give 32, 40, 64 or 128 hex digits.")


def end_of(expires_in: str) -> int:
    """Return when a life that begins now ends, in milliseconds since 1970. Raises BadRequest."""
    try:
        seconds = parse_duration(expires_in)
    except ValueError as error:
        raise BadRequest(f"expires_in={expires_in[:60]!r}: {error}") from error
    if seconds <= 0:
        raise BadRequest("expires_in must be more than nothing, for example 3600, 90m or 7d.")
    return now_milliseconds() + int(seconds * 1000)


class Uploads:
    """Receives the bodies of uploads."""

    def __init__(self, filestore: Filestore, limits: Limits, stalls: Stalls) -> None:
        self._filestore = filestore
        self._limits = limits
        self._stalls = stalls

    async def receive(self, exchange: Exchange, principal: Principal, stack: ExitStack) -> Bodies:
        """Stage every file of a request; ``stack`` discards them unless they are committed.

        Raises BadRequest, TooLarge, DigestMismatch, OutOfSpace, RequestTimeout, ClientGone.
        """
        said = _Said()
        said.read(exchange.query)
        media_type = exchange.headers.get(b"content-type", b"").decode("latin-1").strip()
        if media_type.lower().startswith("multipart/form-data"):
            return await self._receive_form(exchange, principal, said, media_type, stack)
        staged, wish = await self._receive_raw(exchange, principal, said, media_type, stack)
        if not staged.size and not media_type:
            raise BadRequest("The request has no body. To store an empty file give a Content-Type or use a form.")
        return [(staged, wish)]

    async def receive_as(self, exchange: Exchange, principal: Principal, digest: Digest, stack: ExitStack) -> Bodies:
        """Stage a raw body that must have a digest, of the store's algorithm."""
        if len(digest) != self._filestore.algorithm.hex_length:
            raise DigestMismatch(
                f"This store names files by {self._filestore.algorithm}; {digest} is not one. POST the file to /."
            )
        said = _Said()
        said.read(exchange.query)
        if said.file_hash not in (None, digest):
            raise BadRequest("file_hash and the address name different hashes.")
        said.file_hash, said.announced_by = digest, "the address"
        media_type = exchange.headers.get(b"content-type", b"").decode("latin-1").strip()
        return [await self._receive_raw(exchange, principal, said, media_type, stack)]

    async def _receive_raw(
        self, exchange: Exchange, principal: Principal, said: _Said, media_type: str, stack: ExitStack
    ) -> tuple[Staged, Wish]:
        expected = integrity.expected_digests(exchange.headers)
        wish = self._wish(exchange.headers, said, media_type)
        others = self._others(expected, said)
        room = await self._filestore.largest_upload(principal, exchange.content_length)
        body = self._intake(exchange, least(self._limits.max_upload_size, room))
        first = await body.read()
        if len(first) <= SMALL and len(first) == exchange.content_length:
            staged = self._filestore.hold(first, others)
        else:
            async with self._filestore.receive(others) as receiver:
                piece = first
                while piece:
                    await receiver.write(piece)
                    piece = await body.read()
                staged = await receiver.finish()
        stack.enter_context(staged)
        self._verify(staged, expected, said)
        return staged, wish

    async def _receive_form(
        self, exchange: Exchange, principal: Principal, said: _Said, media_type: str, stack: ExitStack
    ) -> Bodies:
        expected = integrity.expected_digests(exchange.headers)
        limit = least(self._limits.max_upload_size, principal.quota)
        of_each = least(limit, await self._filestore.largest_upload(principal, None))
        whole = {item.algorithm: Algorithm(item.algorithm).new() for item in expected}

        def begin(announced: tuple[Expected, ...], fields: Mapping[str, str]) -> Receiver:
            by_now = replace(said)
            by_now.read(fields)
            return self._filestore.receive(self._others(announced, by_now))

        async with _Form(begin, MultipartReader(media_type), stack, of_each) as form:
            body = self._intake(exchange, None if limit is None else limit + MULTIPART_OVERHEAD)
            while piece := await body.read():
                for hash_ in whole.values():
                    hash_.update(piece)
                await form.feed(piece)
            files = form.finish()
        for item in expected:
            require_same(item.field, item.digest.hex(), whole[item.algorithm].digest().hex())
        return self._describe(files, form.fields, said)

    def _describe(self, files: list["_Part"], fields: Mapping[str, str], said: _Said) -> Bodies:
        """Add to each file of a form what is said about it."""
        if not files:
            raise BadRequest("The form has no file in it.")
        # what only may be one counts for one where there is no other
        files = [part for part in files if not part.is_doubtful] or files
        said.read(fields)
        if len(files) > 1 and (said.name is not None or said.file_hash is not None):
            raise BadRequest("name and file_hash are about one file, but the form has several.")
        return [(part.staged, self._described(part, said)) for part in files]

    def _described(self, part: "_Part", said: _Said) -> Wish:
        self._verify(part.staged, part.expected, said)
        name = said.name
        if name is None and part.begin.file_name is not None:
            name = names.clean_name(part.begin.file_name)
        return make_wish(name, part.begin.headers.get(b"content-type", b"").decode("latin-1"), said.expires_at)

    def _intake(self, exchange: Exchange, most: int | None) -> Intake:
        """Begin to read a body. Raises TooLarge or OutOfSpace where its announced size says so already."""
        intake = Intake(exchange, self._stalls.guard(self._limits.body_timeout), most, self._filestore.require_room)
        self._filestore.require_room(exchange.content_length or 0)
        return intake

    def _wish(self, headers: Mapping[bytes, bytes], said: _Said, media_type: str) -> Wish:
        """Put together what is said about one file."""
        name = said.name
        if name is None and (disposition := headers.get(b"content-disposition")) is not None:
            given = names.name_from_disposition(disposition.decode("utf-8", "replace"))
            name = None if given is None else names.clean_name(given)
        return make_wish(name, media_type, said.expires_at)

    def _others(self, expected: tuple[Expected, ...], said: _Said) -> tuple[str, ...]:
        """Return the hashes to take besides the store's own."""
        wanted = {item.algorithm for item in expected}
        if said.file_hash is not None:
            wanted.add(algorithm_of(said.file_hash, self._filestore.algorithm).value)
        return tuple(wanted - {self._filestore.algorithm.value})

    def _verify(self, staged: Staged, expected: tuple[Expected, ...], said: _Said) -> None:
        own = self._filestore.algorithm
        for item in expected:
            is_own = item.algorithm == own.value
            actual = staged.digest if is_own else staged.others[item.algorithm].hex()
            require_same(item.field, item.digest.hex(), actual)
        if said.file_hash is not None:
            algorithm = algorithm_of(said.file_hash, own)
            if algorithm is not own and algorithm.value not in staged.others:
                # afterwards it cannot be taken any more
                raise BadRequest(
                    f"A file_hash that is not by {own} has to come before the file in the form; nothing was stored."
                )
            staged.require(said.announced_by, said.file_hash)


@dataclass(slots=True)
class _Part:
    """A file of a form: its head, what its own headers announce, and its bytes."""

    begin: PartBegin
    expected: tuple[Expected, ...]
    staged: Staged

    @property
    def is_doubtful(self) -> bool:
        """Whether it may be a field of text that has a type, or one for a file in which none was chosen."""
        if self.begin.file_name is None:
            return self.begin.is_text
        # a browser says nothing else of it
        return not (self.begin.file_name or self.staged.size or self.expected)


class _Form:
    """The files and fields of a multipart body (RFC 7578), in the order they come; fields may follow the files."""

    def __init__(
        self,
        receive: Callable[[tuple[Expected, ...], Mapping[str, str]], Receiver],
        reader: MultipartReader,
        stack: ExitStack,
        limit: int | None,
    ) -> None:
        self.fields: dict[str, str] = {}
        self._receive = receive
        self._reader = reader
        self._stack = stack
        self._limit = limit
        self._files: list[_Part] = []
        self._begin: PartBegin | None = None
        self._expected: tuple[Expected, ...] = ()
        self._receiver: Receiver | None = None
        self._text = bytearray()
        self._held = 0

    async def __aenter__(self) -> "_Form":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._receiver is not None:
            await self._receiver.discard()

    async def feed(self, piece: bytes) -> None:
        """Take in more of the body."""
        for event in self._reader.feed(piece):
            if isinstance(event, PartBody):
                await self._take(event.body)
            elif isinstance(event, PartBegin):
                self._start(event)
            else:
                await self._end()

    def finish(self) -> list[_Part]:
        """Return the files. Raises BadRequest where the body ends before its closing delimiter."""
        self._reader.finish()
        return self._files

    def _start(self, begin: PartBegin) -> None:
        self._begin = begin
        self._text.clear()
        if begin.is_file:
            self._expected = integrity.expected_digests(begin.headers)
            self._receiver = self._receive(self._expected, self.fields)

    async def _take(self, body: bytes | memoryview) -> None:
        if self._receiver is not None:
            if self._limit is not None and self._receiver.size + len(body) > self._limit:
                raise too_large(self._limit)
            await self._receiver.write(body)
        elif self._begin is not None and self._begin.name in _SAID:
            self._text += body
            if len(self._text) > MAX_FIELD_BYTES:
                raise TooLarge(f"The form's field {self._begin.name} is longer than {MAX_FIELD_BYTES} bytes.")

    async def _end(self) -> None:
        begin = self._begin
        if begin is None:
            return
        if self._receiver is not None:
            staged = await self._receiver.finish(may_hold=self._held + self._receiver.size <= MAX_HELD_BYTES)
            self._stack.enter_context(staged)
            self._held += staged.size
            self._files.append(_Part(begin, self._expected, staged))
            self._receiver = None
        elif begin.name in _SAID:
            self.fields[begin.name] = self._text.decode("utf-8", "replace")
        self._begin = None


def least(*limits: int | None) -> int | None:
    """Return the lowest limit, None where there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def make_wish(name: str | None, media_type: str, expires_at: int | None) -> Wish:
    """Put together what is said of a file. Raises BadRequest.

    An empty type says nothing, and neither does the one that curl gives every body.
    """
    essence = media_type.partition(";")[0].strip().lower()
    given = names.parse_media_type(media_type) if essence not in ("", _FORM) else None
    guessed = names.guess_type(name) if name is not None else UNKNOWN_TYPE
    return Wish(name, given, guessed, expires_at)
