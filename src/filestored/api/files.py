"""A file at its own address: ``/{hash}`` and ``/{hash}/{any file name}``."""

from contextlib import ExitStack

from filestored.access import Permission, Principal
from filestored.api.bodies import Uploads
from filestored.api.downloads import Downloads
from filestored.api.exchange import Exchange
from filestored.api.gate import Gate
from filestored.api.representations import NO_STORE, PLAIN, answer_with_hashes
from filestored.digest import Digest
from filestored.errors import BadRequest, MethodNotAllowed
from filestored.filestore import Filestore

ALLOW = "GET, HEAD, PUT, DELETE"
ALLOW_NAMED = "GET, HEAD"


class FileRoutes:
    """``/{hash}``: read, store what has this hash, delete."""

    def __init__(self, filestore: Filestore, gate: Gate, uploads: Uploads, downloads: Downloads) -> None:
        self._filestore = filestore
        self._gate = gate
        self._uploads = uploads
        self._downloads = downloads

    async def answer(self, exchange: Exchange, principal: Principal, digest: Digest, name: str | None) -> None:
        """Answer a request to ``/{hash}``, or ``/{hash}/{name}`` where ``name`` is not None."""
        exchange.digest = digest
        match exchange.method:
            case "GET" | "HEAD":
                principal.require(Permission.READ)
                await self._downloads.answer(exchange, principal, digest, name)
            case "PUT" if name is None:
                await self._put(exchange, principal, digest)
            case "DELETE" if name is None:
                principal.require(Permission.DELETE)
                await self._downloads.require_preconditions(exchange, principal, digest)
                await self._filestore.delete(principal, digest)
                await exchange.answer(200, [PLAIN, NO_STORE])
            case method:
                raise MethodNotAllowed(method, ALLOW if name is None else ALLOW_NAMED)

    async def _put(self, exchange: Exchange, principal: Principal, digest: Digest) -> None:
        principal.require(Permission.WRITE)
        if b"content-range" in exchange.headers:
            # a server that does not know partial PUT must not take it for a whole one (RFC 9110, 14.5)
            raise BadRequest("PUT takes whole files; leave Content-Range out.")
        await self._downloads.require_preconditions(exchange, principal, digest)
        with self._gate.upload(exchange), ExitStack() as stack:
            bodies = await self._uploads.receive_as(exchange, digest, stack)
            added = await self._filestore.add(principal, bodies)
        status = 201 if added[0].is_new else 200
        location = (b"location", b"/" + digest.encode())
        await answer_with_hashes(exchange, status, [location], added, self._filestore.algorithm)
