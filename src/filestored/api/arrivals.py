"""An upload from its first byte to its place in the store, whichever address it came to."""

from contextlib import ExitStack

from filestored.access import Principal
from filestored.api.bodies import Uploads
from filestored.api.exchange import Exchange
from filestored.api.gate import Gate
from filestored.catalogue.records import Added
from filestored.digest import Digest
from filestored.filestore import Filestore


class Arrivals:
    """Takes the body of a request in and stores what it holds."""

    def __init__(self, filestore: Filestore, gate: Gate, uploads: Uploads) -> None:
        self._filestore = filestore
        self._gate = gate
        self._uploads = uploads

    async def take(self, exchange: Exchange, principal: Principal, digest: Digest | None = None) -> list[Added]:
        """Store every file of a request; with a ``digest`` the one that must have it. Durable when it returns.

        Raises what :meth:`Uploads.receive` does, Busy, and TooLarge where the caller's quota is used up.
        """
        with self._gate.upload(exchange), ExitStack() as stack:
            if digest is None:
                bodies = await self._uploads.receive(exchange, principal, stack)
            else:
                bodies = await self._uploads.receive_as(exchange, principal, digest, stack)
            return await self._filestore.add(await self._gate.admit_again(exchange, principal), bodies)
