"""A file at its own address: ``/{hash}`` and ``/{hash}/{any file name}``."""

from filestored.access import Permission, Principal
from filestored.api.arrivals import Arrivals
from filestored.api.downloads import Downloads
from filestored.api.exchange import Exchange
from filestored.api.models import FileObject
from filestored.api.representations import NO_STORE, PLAIN, answer_with_hashes
from filestored.api.root import (
    CONTENT,
    CONTENT_HEADERS,
    DELETE_ERRORS,
    DELETED,
    DOWNLOAD,
    ELSEWHERE,
    NOT_MODIFIED,
    PART,
    PUT_PARAMETERS,
    READ_ERRORS,
    UPLOAD_ERRORS,
)
from filestored.api.routes import BYTES, TEXT, Answer, Parameter, Route, Target
from filestored.digest import Digest
from filestored.errors import BadRequest, NotFound, PreconditionFailed
from filestored.filestore import Filestore
from filestored.reading import not_found

_EXPIRES = Parameter("expires", "with signature: when a signed link ends, in Unix seconds", {"type": "string"})
_READS = {200: CONTENT, 206: PART, 304: NOT_MODIFIED, 307: ELSEWHERE}
_HEADS = {200: Answer("The headers of the file.", None, CONTENT_HEADERS), 304: NOT_MODIFIED}
_PUTS = {
    201: Answer("Stored; the answer is its hash.", TEXT, ("Location",), FileObject),
    200: Answer("It was the caller's already.", TEXT, ("Location",), FileObject),
}


class FileRoutes:
    """``/{hash}``: read, store what has this hash, delete."""

    def __init__(self, filestore: Filestore, arrivals: Arrivals, downloads: Downloads) -> None:
        self._filestore = filestore
        self._arrivals = arrivals
        self._downloads = downloads

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes."""
        reading = [
            Route(
                method, path, Permission.READ, self._read, summary, answers,
                (DOWNLOAD, _EXPIRES), takes_link=True, errors=errors,
            )
            for path, summary in (
                ("/{hash}", "Download a file"),
                ("/{hash}/{name}", "Download a file under a name of one's choice"),
            )
            for method, answers, errors in (
                ("GET", _READS, READ_ERRORS),
                ("HEAD", _HEADS, (BadRequest, NotFound, PreconditionFailed)),
            )
        ]  # fmt: skip
        return [
            *reading,
            Route(
                "PUT", "/{hash}", Permission.WRITE, self._put, "Upload a file whose hash is known",
                _PUTS, PUT_PARAMETERS, BYTES, errors=(*UPLOAD_ERRORS, NotFound, PreconditionFailed),
            ),
            Route(
                "DELETE", "/{hash}", Permission.DELETE, self.delete, "Delete a file",
                {200: DELETED}, errors=DELETE_ERRORS,
            ),
        ]  # fmt: skip

    async def _read(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await self._downloads.answer(exchange, principal, digest_of(target), target.name)

    async def _put(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        if b"content-range" in exchange.headers:
            # a server that does not know partial PUT must not take it for a whole one (RFC 9110, 14.5)
            raise BadRequest("PUT takes whole files; leave Content-Range out.")
        digest = digest_of(target)
        await self._downloads.require_preconditions(exchange, principal, digest)
        added = await self._arrivals.take(exchange, principal, digest)
        status = 201 if added[0].is_new else 200
        location = (b"location", b"/" + digest.encode())
        await answer_with_hashes(exchange, status, [location], added, self._filestore.algorithm)

    async def delete(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        """Answer a request to delete the file that an address names."""
        digest = digest_of(target)
        await self._downloads.require_preconditions(exchange, principal, digest)
        await self._filestore.delete(principal, digest)
        await exchange.answer(200, [PLAIN, NO_STORE])


def digest_of(target: Target) -> Digest:
    """Return the digest that an address names. Raises NotFound where it can be no file's."""
    if target.digest is None:
        raise not_found(target.text)
    return target.digest
