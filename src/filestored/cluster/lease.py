"""What only one daemon of a cluster does at a time: it has it for a while, and goes on only by renewing it."""

import asyncio
import time

from filestored.catalogue.catalogue import Catalogue

LEASE_SECONDS = 15.0
"""For how long it is taken, and so how long it rests where its holder has died."""

_MARGIN_SECONDS = 1.0


def uptime() -> float:
    """Return seconds that go on also while the machine sleeps: by no other clock would a lease end meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The right to do something, as one daemon sees it: it never believes to have what another may have by now."""

    def __init__(self, catalogue: Catalogue, name: str, holder: str, *, seconds: float = LEASE_SECONDS) -> None:
        self._catalogue = catalogue
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._until = 0.0

    @property
    def is_held(self) -> bool:
        """Whether it is this daemon's, at this moment."""
        return uptime() < self._until

    async def renew(self) -> bool:
        """Take it, or go on with it; False where another has it. Raises CatalogueError, and it ends in its time."""
        asked = uptime()
        if not await asyncio.to_thread(self._take):
            self._until = 0.0
            return False
        # the database counts from later on
        self._until = asked + self._seconds - min(_MARGIN_SECONDS, self._seconds / 4)
        return True

    def _take(self) -> bool:
        return self._catalogue.take_lease(self._name, self._holder, int(self._seconds * 1000))

    async def give_back(self) -> None:
        """Let another have it at once. Raises CatalogueError."""
        self._until = 0.0
        await asyncio.to_thread(self._catalogue.give_lease, self._name, self._holder)
