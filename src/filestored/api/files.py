"""A file at its own address: ``/{hash}`` and ``/{hash}/{any file name}``."""

from filestored.access import Permission, Principal
from filestored.api.arrivals import Arrivals
from filestored.api.downloads import Downloads
from filestored.api.exchange import Exchange
from filestored.api.representations import NO_STORE, PLAIN, answer_with_hashes
from filestored.api.root import CONTENT, DELETED, DOWNLOAD, NOT_MODIFIED, PART, UPLOAD_PARAMETERS
from filestored.api.routes import BYTES, TEXT, Answer, Parameter, Route, Target
from filestored.digest import Digest
from filestored.errors import BadRequest
from filestored.filestore import Filestore, not_found

_LINK = (
    Parameter("expires", "with signature: when a signed link ends, Unix seconds", {"type": "string"}),
    Parameter("signature", "the signature of a signed link, instead of a token", {"type": "string"}),
)
_READS = {200: CONTENT, 206: PART, 304: NOT_MODIFIED}
_PUTS = {201: Answer("Stored.", TEXT), 200: Answer("It was the caller's already.", TEXT)}


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
                method, path, Permission.READ, self._read, summary,
                _READS if method == "GET" else {200: Answer("The headers of the file."), 304: NOT_MODIFIED},
                (DOWNLOAD, *_LINK), takes_link=True,
            )
            for path, summary in (
                ("/{hash}", "Download a file"),
                ("/{hash}/{name}", "Download a file under a name of one's choice"),
            )
            for method in ("GET", "HEAD")
        ]  # fmt: skip
        return [
            *reading,
            Route(
                "PUT", "/{hash}", Permission.WRITE, self._put, "Upload a file whose hash is known",
                _PUTS, UPLOAD_PARAMETERS, BYTES,
            ),
            Route("DELETE", "/{hash}", Permission.DELETE, self._delete, "Delete a file", {200: DELETED}),
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

    async def _delete(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        digest = digest_of(target)
        await self._downloads.require_preconditions(exchange, principal, digest)
        await self._filestore.delete(principal, digest)
        await exchange.answer(200, [PLAIN, NO_STORE])


def digest_of(target: Target) -> Digest:
    """Return the digest that an address names. Raises NotFound where it can be no file's."""
    if target.digest is None:
        raise not_found(target.text)
    return target.digest
