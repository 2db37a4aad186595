"""The daemons of a cluster, as one worker of one of them sees them."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import NamedTuple

from loguru import logger

from filestored.cancelling import cancel
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import DaemonRecord
from filestored.cluster.lease import Lease, uptime
from filestored.errors import CatalogueError
from filestored.shared import Shared

BEAT_SECONDS = 2.0
"""How often a daemon says that it is there."""

AWAY_SECONDS = 10.0
"""For how long one is silent before the others pass nothing on to it any more."""

LOST_SECONDS = 60.0
"""For how long one is silent before others end what it has left unfinished and whose time is over."""

FORGOTTEN_SECONDS = 86400.0
"""For how long one is silent before it is forgotten."""

UPKEEP = "upkeep"
"""The name of the lease for what one daemon of all does by itself."""

_READ_EVERY_SECONDS = 1.0
_CLOCK_KEPT_SECONDS = 60.0
_FORGETTING_EVERY = 100


@dataclass(frozen=True, slots=True)
class Peer:
    """Another daemon: its id, its address, and since when (:func:`uptime`) nothing was heard of it."""

    id: str
    url: str
    heard_at: float

    @property
    def is_away(self) -> bool:
        """Whether it has been silent for so long that nobody needs to try it."""
        return uptime() - self.heard_at > AWAY_SECONDS


class Membership(NamedTuple):
    """How a daemon takes part: where the others reach it, and what tells this start of it from all others."""

    url: str
    incarnation: str


class Daemons:
    """This daemon among the others: says that it is there, and knows who else is. One a process."""

    def __init__(self, catalogue: Catalogue, shared: Shared, own: str, membership: Membership) -> None:
        """``own`` is this daemon's id."""
        self.own = own
        """This daemon's id."""
        self.lease = Lease(catalogue, UPKEEP, own)
        """For what one daemon of all does; only the worker that leads the others of its daemon has it."""
        self._url, self._incarnation = membership
        self._is_contested = False
        self._catalogue = catalogue
        self._shared = shared
        self._task: asyncio.Task[None] | None = None
        self._beats = 0
        self._peers: dict[str, Peer] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._clock_reading = asyncio.Lock()
        self._clock_ahead = 0.0
        self._clock_read_at = float("-inf")

    # this one

    def start(self) -> None:
        """Begin to say that it is there, in the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Take leave of the others. Call it before the catalogue is closed."""
        if self._task is None:
            return
        await cancel(self._task)
        # where only workers are replaced the daemon stays
        if self._shared.is_stopping and self._shared.lead() and not self._is_contested:
            with contextlib.suppress(CatalogueError):
                await self._leave()

    async def _run(self) -> None:
        is_failing = False
        while not self._shared.is_stopping:
            try:
                if self._shared.lead():
                    await self._beat()
                is_failing = False
            except CatalogueError:
                # it has said so itself; the others will find this one silent
                pass
            except Exception as error:
                if not is_failing:
                    logger.error("the other daemons are not told that this one is there: {}", error)
                is_failing = True
            await asyncio.sleep(BEAT_SECONDS)

    async def _beat(self) -> None:
        away = int(AWAY_SECONDS * 1000)
        is_alone = await asyncio.to_thread(self._catalogue.renew_daemon, self.own, self._url, self._incarnation, away)
        if not is_alone and not self._is_contested:
            logger.error(
                "another daemon has this one's id: is its spool a copy? Stop the copy, and remove its "
                ".filestored/store-id"
            )
        self._is_contested = not is_alone
        if self._is_contested:
            # the lease would be the other's too
            return
        if await self.lease.renew() and self._beats % _FORGETTING_EVERY == 0:
            await asyncio.to_thread(self._catalogue.forget_daemons, int(FORGOTTEN_SECONDS * 1000))
        self._beats += 1

    async def _leave(self) -> None:
        await self.lease.give_back()
        await asyncio.to_thread(self._catalogue.remove_daemon, self.own, self._incarnation)

    async def is_contested(self) -> bool:
        """Tell whether another daemon goes by this one's id, or did last. Raises CatalogueError."""
        records = await asyncio.to_thread(self._catalogue.daemons)
        return any(record.id == self.own and record.incarnation != self._incarnation for record in records)

    # the others

    async def find(self, daemon: str) -> Peer | None:
        """Return another daemon as it was a second ago at most; None for one that is not known. Raises CatalogueError.

        One that has ended in order is not known any more.
        """
        async with self._reading:
            if uptime() - self._read_at > _READ_EVERY_SECONDS:
                await self._read()
        return self._peers.get(daemon)

    async def _read(self) -> None:
        asked = uptime()
        records = await asyncio.to_thread(self._catalogue.daemons)
        self._peers = {record.id: _peer(record, asked) for record in records}
        self._read_at = asked

    def count(self) -> int:
        """Return how many daemons were heard of lately, this one too. Blocks. Raises CatalogueError."""
        return sum(record.silent <= AWAY_SECONDS * 1000 for record in self._catalogue.daemons())

    def leads(self) -> bool:
        """Tell whether this daemon does what one of all does, in whichever worker. Blocks. Raises CatalogueError."""
        return self._catalogue.lease_holder(UPKEEP) == self.own

    async def clock(self) -> int:
        """Return the time that all daemons agree on, that of the database: milliseconds since 1970.

        Raises CatalogueError where it was not asked for lately and cannot be.
        """
        async with self._clock_reading:
            now = uptime()
            if now - self._clock_read_at > _CLOCK_KEPT_SECONDS:
                self._clock_ahead = await asyncio.to_thread(self._catalogue.clock) - now * 1000
                self._clock_read_at = now
        return int(uptime() * 1000 + self._clock_ahead)


def _peer(record: DaemonRecord, asked: float) -> Peer:
    return Peer(record.id, record.url, asked - record.silent / 1000)
