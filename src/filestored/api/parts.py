"""What a daemon gives to the others of its cluster, and to nobody else: the bytes of parts that they join."""

from filestored.access import Permission, Principal
from filestored.api import tus
from filestored.api.exchange import Exchange
from filestored.api.forwarding import PARTS
from filestored.api.limits import Limits
from filestored.api.routes import BYTES, Answer, Route, Target
from filestored.api.stalls import Stalled, Stalls
from filestored.errors import ClientGone
from filestored.filestore import Filestore


class PartRoutes:
    """Gives parts away. These routes are only for requests that another daemon is proven to have sent."""

    def __init__(self, filestore: Filestore, limits: Limits, stalls: Stalls) -> None:
        self._parts = filestore.parts
        self._limits = limits
        self._stalls = stalls

    def routes(self) -> list[Route]:
        """Return the lines of a table of routes."""
        answers = {200: Answer("The bytes of a whole part.", BYTES)}
        return [Route("GET", f"{PARTS}/{{upload}}", Permission.WRITE, self._give, "Give a part", answers)]

    async def _give(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        """Give a part to the daemon that joins it, in the name of the client that asked for that."""
        async with await self._parts.open_part(principal, tus.id_in(target.text)) as part:
            await exchange.start(200, [(b"content-type", BYTES.encode()), (b"content-length", b"%d" % part.size)])
            try:
                with self._stalls.guard(self._limits.send_timeout) as guard:
                    async for piece in part.pieces():
                        await exchange.write(piece, more=True)
                        guard.moved()
                        await exchange.require_client()
                    await exchange.write(b"", more=False)
            except Stalled:
                raise ClientGone from None
