"""The root: POST a file, get its hash; GET it by the hash; DELETE it by the hash."""

from filestored.access import Permission, Principal
from filestored.api.arrivals import Arrivals
from filestored.api.downloads import Downloads
from filestored.api.exchange import Exchange
from filestored.api.models import DURATION_PATTERN, HASH_PATTERN, Uploaded, UploadForm
from filestored.api.representations import NO_STORE, PLAIN, answer_with_hashes
from filestored.api.routes import ANY, BYTES, TEXT, Answer, Handler, Parameter, Route, Target
from filestored.digest import Digest, parse_digest
from filestored.errors import (
    BadRequest,
    Busy,
    DigestMismatch,
    NotFound,
    OutOfSpace,
    PreconditionFailed,
    RangeNotSatisfiable,
    RequestTimeout,
    TooLarge,
)
from filestored.filestore import Filestore
from filestored.reading import not_found

PUT_PARAMETERS = (
    Parameter("name", "the file's name", {"type": "string"}),
    Parameter(
        "expires_in", "how long it is to be kept, at most a hundred years: 3600, 90m, 12h, 7d",
        {"type": "string", "pattern": DURATION_PATTERN},
    ),
)  # fmt: skip
"""What an upload may say in its query where its address names the hash."""

UPLOAD_PARAMETERS = (
    *PUT_PARAMETERS,
    Parameter("file_hash", "the hash it must have", {"type": "string", "pattern": HASH_PATTERN}),
)
"""What other uploads may say in their query."""

_CACHED_HEADERS = ("ETag", "Cache-Control", "Last-Modified", "Sunset")
CONTENT_HEADERS = (*_CACHED_HEADERS, "Content-Disposition", "Accept-Ranges", "Repr-Digest")
CONTENT = Answer("The bytes.", ANY, CONTENT_HEADERS)
NOT_MODIFIED = Answer(
    "The file is the one that If-None-Match names, or has not changed since If-Modified-Since.", None, _CACHED_HEADERS
)
ELSEWHERE = Answer(
    "With --redirect-downloads: where the bucket has the file, for a minute.", None, ("Location", "Cache-Control")
)
PART = Answer(
    "The part that Range asks for, or several as multipart/byteranges.", ANY, (*CONTENT_HEADERS, "Content-Range")
)
DELETED = Answer("The file is gone.", TEXT)

UPLOAD_ERRORS = (BadRequest, RequestTimeout, TooLarge, DigestMismatch, Busy, OutOfSpace)
READ_ERRORS = (BadRequest, NotFound, PreconditionFailed, RangeNotSatisfiable)
DELETE_ERRORS = (NotFound, PreconditionFailed, Busy, OutOfSpace)

_NAMED = Parameter("file_hash", "the hash that the upload answered", {"type": "string", "minLength": 1}, True)
DOWNLOAD = Parameter("download", "have a browser save it, whatever its type", {"type": "string"})


class RootRoutes:
    """``/``: three methods, nothing else; and a page for browsers."""

    def __init__(self, filestore: Filestore, arrivals: Arrivals, downloads: Downloads, page: Handler) -> None:
        self._filestore = filestore
        self._arrivals = arrivals
        self._downloads = downloads
        self._page = page

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes."""
        return [
            Route(
                "GET", "/", Permission.READ, self._read, "Download a file by its hash",
                {200: CONTENT, 206: PART, 304: NOT_MODIFIED, 307: ELSEWHERE}, (_NAMED, DOWNLOAD), errors=READ_ERRORS,
                page=self._page,
            ),
            Route(
                "POST", "/", Permission.WRITE, self._add, "Upload a file, get its hash",
                {
                    200: Answer(
                        "The hash and nothing else; one a line for several files of a form.", TEXT, (), Uploaded
                    )
                },
                UPLOAD_PARAMETERS, BYTES, form=UploadForm, errors=UPLOAD_ERRORS,
            ),
            Route(
                "DELETE", "/", Permission.DELETE, self._delete, "Delete a file by its hash",
                {200: DELETED}, (_NAMED,), errors=(BadRequest, *DELETE_ERRORS),
            ),
        ]  # fmt: skip

    async def _read(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await self._downloads.answer(exchange, principal, _named(exchange))

    async def _add(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        added = await self._arrivals.take(exchange, principal)
        await answer_with_hashes(exchange, 200, [], added, self._filestore.algorithm)

    async def _delete(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        digest = _named(exchange)
        exchange.digest = digest
        await self._downloads.require_preconditions(exchange, principal, digest)
        await self._filestore.delete(principal, digest)
        await exchange.answer(200, [PLAIN, NO_STORE])


def _named(exchange: Exchange) -> Digest:
    """Return the hash in ``?file_hash=``. Raises BadRequest without one, NotFound where it can be no file's."""
    value = exchange.query.get("file_hash")
    if not value:
        raise BadRequest("Say which file: /?file_hash=… with the hash that the upload answered.")
    digest = parse_digest(value)
    if digest is None:
        raise not_found(value)
    return digest
