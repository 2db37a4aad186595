"""The root: POST a file, get its hash; GET it by the hash; DELETE it by the hash."""

from contextlib import ExitStack

from filestored.access import Permission, Principal
from filestored.api.bodies import Uploads
from filestored.api.downloads import Downloads
from filestored.api.exchange import Exchange
from filestored.api.gate import Gate
from filestored.api.representations import NO_STORE, PLAIN, answer_with_hashes
from filestored.digest import Digest, parse_digest
from filestored.errors import BadRequest, MethodNotAllowed
from filestored.filestore import Filestore, not_found

ALLOW = "GET, POST, DELETE"


class RootRoutes:
    """``/``: three methods, nothing else."""

    def __init__(self, filestore: Filestore, gate: Gate, uploads: Uploads, downloads: Downloads) -> None:
        self._filestore = filestore
        self._gate = gate
        self._uploads = uploads
        self._downloads = downloads

    async def answer(self, exchange: Exchange, principal: Principal) -> None:
        """Answer a request to ``/``."""
        match exchange.method:
            case "POST":
                await self._add(exchange, principal)
            case "GET":
                principal.require(Permission.READ)
                await self._downloads.answer(exchange, principal, _named(exchange))
            case "DELETE":
                principal.require(Permission.DELETE)
                digest = _named(exchange)
                exchange.digest = digest
                await self._downloads.require_preconditions(exchange, principal, digest)
                await self._filestore.delete(principal, digest)
                await exchange.answer(200, [PLAIN, NO_STORE])
            case method:
                raise MethodNotAllowed(method, ALLOW)

    async def _add(self, exchange: Exchange, principal: Principal) -> None:
        principal.require(Permission.WRITE)
        with self._gate.upload(exchange), ExitStack() as stack:
            bodies = await self._uploads.receive(exchange, stack)
            added = await self._filestore.add(principal, bodies)
        await answer_with_hashes(exchange, 200, [], added, self._filestore.algorithm)


def _named(exchange: Exchange) -> Digest:
    """Return the hash in ``?file_hash=``. Raises BadRequest without one, NotFound where it can be no file's."""
    value = exchange.query.get("file_hash")
    if not value:
        raise BadRequest("Say which file: /?file_hash=… with the hash that the upload answered.")
    digest = parse_digest(value)
    if digest is None:
        raise not_found(value)
    return digest
