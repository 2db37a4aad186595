"""``/v1/uploads``: uploads that can be resumed, by tus 1.0.0 with its extensions."""

from contextlib import suppress
from email.utils import formatdate
from functools import partial

from filestored.access import Permission, Principal
from filestored.api import tus
from filestored.api.bodies import least
from filestored.api.exchange import Exchange, Headers
from filestored.api.forwarding import AWAY_RETRY_SECONDS, Forwarding
from filestored.api.gate import Gate
from filestored.api.intake import Intake, too_large
from filestored.api.limits import Limits
from filestored.api.representations import NO_STORE
from filestored.api.routes import CHUNK, OPEN, Answer, Parameter, Route, Target
from filestored.api.stalls import Stalls
from filestored.api.tus import Checksum, Details
from filestored.catalogue.records import UploadRecord
from filestored.cluster.connection import PeerAway
from filestored.continuation import Continuation
from filestored.errors import (
    BadRequest,
    Busy,
    ChecksumMismatch,
    ClientGone,
    Conflict,
    DigestMismatch,
    FilestoredError,
    Locked,
    MethodNotAllowed,
    NotFound,
    OutOfSpace,
    RequestError,
    RequestTimeout,
    TooLarge,
    UnknownVersion,
    UnsupportedMediaType,
)
from filestored.filestore import Filestore
from filestored.joining import MAX_PARTS, Joined

COLLECTION = "/v1/uploads"
ONE = "/v1/uploads/{upload}"

_RESUMABLE = (b"tus-resumable", tus.VERSION)
_OVERRIDE = b"x-http-method-override"
_MAX_CONCAT_TOLD = 4096
_RESTART_SECONDS = 2

_SIZE = {"type": "integer", "minimum": 0, "maximum": tus.MAX_LENGTH}
_VERSIONED = Parameter("Tus-Resumable", "the version of the protocol", {"type": "string", "const": "1.0.0"}, True)
_CHECKSUM = Parameter(
    "Upload-Checksum", "sha1, sha256 or md5, a space, and that of the body in base64",
    {"type": "string", "pattern": tus.CHECKSUM_PATTERN},
)  # fmt: skip
_LENGTH = Parameter("Upload-Length", "bytes of the whole upload", _SIZE)
_OFFSET = Parameter("Upload-Offset", "from where the body goes on", _SIZE, True)
_ACTS = {"type": "string", "enum": ["PATCH", "DELETE", "HEAD"]}
_OVERRIDDEN = (
    _VERSIONED,
    Parameter("X-HTTP-Method-Override", "the method that is meant", _ACTS, True),
    Parameter("Upload-Offset", "from where the body goes on, for PATCH", _SIZE),
    _LENGTH,
    _CHECKSUM,
)
_CREATION = (
    _VERSIONED, _LENGTH,
    Parameter("Upload-Defer-Length", "the length is told later", {"type": "string", "const": "1"}),
    Parameter(
        "Upload-Metadata",
        f"pairs of key and base64: filename, filetype, hash, expires_in; at most {tus.MAX_DETAILS_BYTES} bytes",
        {"type": "string", "pattern": tus.METADATA_PATTERN},
    ),
    Parameter(
        "Upload-Concat", "partial, or final; and the addresses of the parts",
        {"type": "string", "pattern": tus.CONCAT_PATTERN},
    ),
    _CHECKSUM,
)  # fmt: skip
_SHARED_ERRORS = (BadRequest, NotFound, UnknownVersion)
_BODY_ERRORS = (RequestTimeout, TooLarge, UnsupportedMediaType, DigestMismatch, ChecksumMismatch, Busy, OutOfSpace)
_APPEND_ERRORS = (*_SHARED_ERRORS, *_BODY_ERRORS, Conflict, Locked)
# whose bytes are lost is ended by whoever finds that out
_TELL_ERRORS = (*_SHARED_ERRORS, Busy, OutOfSpace)
_PROGRESS = ("Upload-Offset", "Upload-Expires", "Filestored-Hash")
_BEGUN_WITH = ("Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Concat")
_ABILITIES = ("Tus-Version", "Tus-Extension", "Tus-Checksum-Algorithm", "Tus-Max-Size")


class UploadRoutes:
    """Begin, ask, go on, end, join."""

    def __init__(
        self, filestore: Filestore, gate: Gate, limits: Limits, stalls: Stalls, forwarding: Forwarding | None = None
    ) -> None:
        """``forwarding`` is what passes on what is another daemon's to answer."""
        self._forwarding = forwarding
        self._filestore = filestore
        self._uploads = filestore.uploads
        self._gate = gate
        self._limits = limits
        self._stalls = stalls

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes."""
        write, always = Permission.WRITE, (_RESUMABLE,)
        able = Answer("What is possible.", None, _ABILITIES)
        told = {200: Answer("Where it is.", None, (*_PROGRESS, *_BEGUN_WITH))}
        appended = {204: Answer("The bytes are there.", None, _PROGRESS)}
        return [
            Route(
                "OPTIONS", COLLECTION, OPEN, self._discover, "Ask what resumable uploads can do", {204: able},
                always=always,
            ),
            Route(
                "POST", COLLECTION, write, self._begin, "Begin a resumable upload, or join parts",
                {201: Answer("It is begun; with what came, it may be complete.", None, ("Location", *_PROGRESS))},
                (), CHUNK, is_body_required=False, errors=_APPEND_ERRORS, always=always, headers=_CREATION,
            ),
            Route(
                "OPTIONS", ONE, OPEN, self._discover, "Ask what resumable uploads can do", {204: able}, always=always
            ),
            Route(
                "HEAD", ONE, write, self._tell, "Ask how far an upload has come", told,
                errors=_TELL_ERRORS, always=always, headers=(_VERSIONED,),
            ),
            Route(
                "PATCH", ONE, write, self._append, "Go on with an upload", appended, (), CHUNK, errors=_APPEND_ERRORS,
                always=always, headers=(_VERSIONED, _OFFSET, _LENGTH, _CHECKSUM),
            ),
            Route(
                "POST", ONE, write, self._act, "Do what another method does, where that does not pass",
                told | appended, (), CHUNK, is_body_required=False, errors=(*_APPEND_ERRORS, MethodNotAllowed),
                always=always, headers=_OVERRIDDEN,
            ),
            Route(
                "DELETE", ONE, write, self._end, "Give an upload up",
                {204: Answer("It is gone; a file that came of it stays.")},
                errors=(*_TELL_ERRORS, Conflict, Locked), always=always, headers=(_VERSIONED,),
            ),
        ]  # fmt: skip

    async def _pass_on(self, exchange: Exchange, principal: Principal, target: Target) -> bool:
        """Have a request answered by the daemon that has the upload; False where this one has to.

        Raises Busy where that one is away.
        """
        upload = await self._find_elsewhere(principal, target)
        if upload is None or self._forwarding is None:
            return False
        try:
            await self._forwarding.pass_on(exchange, upload)
        except PeerAway as error:
            raise Busy(
                "The machine that has the bytes of this upload is away; try again, or begin a new one.",
                retry_after=AWAY_RETRY_SECONDS,
            ) from error
        return True

    async def _find_elsewhere(self, principal: Principal, target: Target) -> UploadRecord | None:
        """Return an upload that another daemon has, None where it is this one's. Raises NotFound."""
        if self._forwarding is None:
            return None
        upload = await self._uploads.find(principal, tus.id_in(target.text))
        return upload if self._uploads.is_elsewhere(upload) else None

    async def _discover(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        headers = [
            (b"tus-version", tus.VERSION),
            (b"tus-extension", tus.EXTENSIONS),
            (b"tus-checksum-algorithm", ",".join(tus.CHECKSUMS).encode()),
        ]
        if self._limits.max_upload_size is not None:
            headers.append((b"tus-max-size", b"%d" % self._limits.max_upload_size))
        await _answer(exchange, 204, headers)

    async def _begin(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        headers = exchange.headers
        tus.require_version(headers)
        text = headers.get(b"upload-metadata", b"").decode("latin-1")
        details = tus.details_in(text)
        concat = tus.concat_in(headers)
        parts = tus.parts_in(concat)
        if parts is not None:
            assert concat is not None
            await self._join(exchange, principal, parts, Joined(text, concat, *details, self._limits.max_upload_size))
            return
        length = tus.length_in(headers)
        self._require_allowed(length)
        self._filestore.require_room(length or 0)
        if has_body := tus.has_body(exchange):
            tus.require_chunk(exchange)
        checksum = tus.checksum_in(headers)
        with self._gate.upload(exchange):
            upload = await self._uploads.begin(principal, length, text, concat)
            if has_body or length == 0:
                try:
                    upload = await self._receive(exchange, principal, upload, checksum, None, details)
                except Exception:
                    # nobody has been told its address
                    await self._uploads.give_up(upload)
                    raise
        await _answer(exchange, 201, [(b"location", f"{COLLECTION}/{upload.id}".encode()), *_progress(upload)])

    async def _join(self, exchange: Exchange, principal: Principal, parts: list[str], joined: Joined) -> None:
        if len(parts) > MAX_PARTS:
            raise BadRequest(f"{len(parts)} parts are named; at most {MAX_PARTS} are joined at once.")
        if b"upload-length" in exchange.headers or b"upload-defer-length" in exchange.headers:
            raise BadRequest("The length of a final upload is that of its parts: leave Upload-Length out.")
        with self._gate.upload(exchange):
            fetch = partial(self._forwarding.fetch, exchange) if self._forwarding else None
            upload = await self._filestore.parts.join(principal, parts, joined, self._filestore.require_room, fetch)
        exchange.digest = upload.digest or ""
        await _answer(exchange, 201, [(b"location", f"{COLLECTION}/{upload.id}".encode()), *_progress(upload)])

    def _require_allowed(self, length: int | None) -> None:
        most = self._limits.max_upload_size
        if most is not None and length is not None and length > most:
            raise too_large(most)

    async def _tell(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        tus.require_version(exchange.headers)
        elsewhere = await self._find_elsewhere(principal, target)
        if elsewhere and self._forwarding:
            # where that cannot be asked, the catalogue knows how far it had come when it was noted last
            with suppress(PeerAway):
                await self._forwarding.pass_on(exchange, elsewhere)
                return
        upload = elsewhere or await self._uploads.find_settled(principal, tus.id_in(target.text))
        if not elsewhere and upload.is_whole and not upload.is_complete:
            # a crash came between beginning an empty upload and finishing it; where that fails, it is as it was
            with suppress(RequestError):
                upload = await self._receive(exchange, principal, upload, None, None, tus.details_in(upload.details))
        exchange.digest = upload.digest or ""
        headers = _progress(upload)
        headers.append(
            (b"upload-defer-length", b"1") if upload.length is None else (b"upload-length", b"%d" % upload.length)
        )
        if upload.details:
            headers.append((b"upload-metadata", upload.details.encode("latin-1")))
        # longer ones would break proxies that take few bytes of headers
        if upload.concat is not None and len(upload.concat) <= _MAX_CONCAT_TOLD:
            headers.append((b"upload-concat", upload.concat.encode("latin-1")))
        await _answer(exchange, 200, headers)

    async def _act(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        """Do what the method means that a client names but cannot use itself (tus 1.0.0, X-HTTP-Method-Override)."""
        acts = {b"PATCH": self._append, b"DELETE": self._end, b"HEAD": self._tell}
        act = acts.get(exchange.headers.get(_OVERRIDE, b"").upper())
        if act is None:
            raise MethodNotAllowed(
                "POST without X-HTTP-Method-Override: PATCH, DELETE or HEAD", "OPTIONS, HEAD, PATCH, DELETE"
            )
        await act(exchange, principal, target)

    async def _end(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        tus.require_version(exchange.headers)
        if await self._pass_on(exchange, principal, target):
            return
        await self._uploads.end(principal, tus.id_in(target.text))
        await _answer(exchange, 204, [])

    async def _append(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        headers = exchange.headers
        tus.require_version(headers)
        tus.require_chunk(exchange)
        offset = tus.size_in(headers, "Upload-Offset")
        if offset is None:
            raise BadRequest("Say with Upload-Offset from where the body goes on.")
        length = tus.size_in(headers, "Upload-Length")
        self._require_allowed(length)
        checksum = tus.checksum_in(headers)
        with self._gate.upload(exchange):
            if await self._pass_on(exchange, principal, target):
                return
            upload = await self._uploads.find(principal, tus.id_in(target.text))
            if upload.is_complete:
                tus.require_nothing_to_add(upload, offset, exchange)
            else:
                details = tus.details_in(upload.details)
                upload = await self._receive(exchange, principal, upload, checksum, length, details, offset)
        exchange.digest = upload.digest or ""
        await _answer(exchange, 204, _progress(upload))

    async def _receive(
        self, exchange: Exchange, principal: Principal, upload: UploadRecord, checksum: Checksum | None,
        length: int | None, details: Details, offset: int = 0,
    ) -> UploadRecord:  # fmt: skip
        """Add the body of a request to an upload; return it as it is then. What a broken body brought is kept."""
        uploads = self._uploads
        async with await uploads.resume(principal, upload.id, offset, details.expected) as writing:
            if length is not None:
                writing.set_length(length)
            body = await self._intake(exchange, principal, writing)
            try:
                if checksum is None:
                    await self._copy(exchange, principal, body, writing)
                else:
                    await _copy_checked(body, writing, checksum)
                await writing.settle()
            except (ClientGone, RequestTimeout, TooLarge, OutOfSpace) as error:
                if checksum is None:
                    await _settle_rest(writing, error)
                    await self._close(exchange, writing, principal, details)
                raise self._explained(error, writing.upload) from error
            return await self._close(exchange, writing, principal, details)

    async def _copy(self, exchange: Exchange, principal: Principal, body: Intake, writing: Continuation) -> None:
        """Take a body in; note now and then how far it has come."""
        while piece := await body.read():
            await writing.write(piece)
            if writing.is_due:
                # a token that is revoked meanwhile adds nothing any more
                await self._gate.admit_again(exchange, principal)
                await writing.settle()
                if not writing.is_whole:
                    await writing.keep()

    async def _close(
        self, exchange: Exchange, writing: Continuation, principal: Principal, details: Details
    ) -> UploadRecord:
        principal = await self._gate.admit_again(exchange, principal)
        if writing.is_whole and not writing.upload.is_part:
            await writing.finish(principal, details.wish)
        else:
            await writing.keep()
        return writing.upload

    async def _intake(self, exchange: Exchange, principal: Principal, writing: Continuation) -> Intake:
        upload = writing.upload
        room = await self._uploads.room(principal, upload)
        left = None if upload.length is None else upload.length - upload.flushed
        if left is not None and (exchange.content_length or 0) > left:
            raise TooLarge(f"The upload has {left} bytes to come, and Content-Length is {exchange.content_length}.")
        most = self._limits.max_upload_size
        allowed = None if most is None else most - upload.flushed
        guard = self._stalls.guard(self._limits.body_timeout, writing.has_to_end)
        intake = Intake(exchange, guard, least(left, allowed, room), self._filestore.require_room)
        self._filestore.require_room(exchange.content_length or 0)
        return intake

    def _explained(self, error: FilestoredError, upload: UploadRecord) -> RequestError:
        """Return what a client is told whose body broke off: how much of the upload is there."""
        kept = f"{upload.flushed} bytes of the upload are there; go on from those."
        match error:
            case ClientGone():
                return BadRequest(f"The body ended before its announced end; {kept}")
            case RequestTimeout() if self._filestore.shared.is_stopping:
                return Busy(f"The server stops; {kept}", retry_after=_RESTART_SECONDS)
            case RequestTimeout():
                return RequestTimeout(f"The body stopped coming; {kept}")
            case OutOfSpace():
                return OutOfSpace(f"The disk is full; {kept} Free some space first.")
        assert isinstance(error, RequestError)
        return error


async def _settle_rest(writing: Continuation, error: FilestoredError) -> None:
    """Bring to the disk what came before a body broke off, as far as the disk takes it."""
    # where the disk is full the first attempt finds that out, and the second flushes what it has taken
    with suppress(OutOfSpace):
        await writing.settle()
    await writing.settle()
    if isinstance(error, OutOfSpace):
        await writing.give_back()


async def _copy_checked(body: Intake, writing: Continuation, checksum: Checksum) -> None:
    """Take a body in only where it is what its checksum says. Raises ChecksumMismatch."""
    taken = checksum.begin()

    while piece := await body.read():
        taken.update(piece)
        await writing.write(piece)
    if taken.digest() != checksum.digest:
        raise ChecksumMismatch("The body is not what Upload-Checksum says; none of it was kept. Send it again.")


def _progress(upload: UploadRecord) -> Headers:
    headers = [(b"upload-offset", b"%d" % upload.flushed)]
    if upload.digest is not None:
        headers.append((b"filestored-hash", upload.digest.encode()))
    else:
        headers.append((b"upload-expires", formatdate(upload.expires_at // 1000, usegmt=True).encode()))
    return headers


async def _answer(exchange: Exchange, status: int, headers: Headers) -> None:
    if status == 204:
        await exchange.start(204, [*headers, NO_STORE])
        await exchange.write(b"", more=False)
    else:
        await exchange.answer(status, [*headers, NO_STORE])
