"""One id, one daemon: a spool that was copied, with a machine or by hand, has the id of its original.

Each start of a daemon has an incarnation, kept with its row: 16 digits for the very lock file it holds, and 16 at
random. Where the first are one's own, whoever had the row is dead: this process holds the lock now. A copy has
another file, or lies on a machine that was booted by itself, and so has to see that its namesake is silent.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import DaemonRecord
from filestored.cluster.daemons import AWAY_SECONDS
from filestored.errors import StartError

_PLACE_DIGITS = 16
_LOOKED_AT_EVERY_SECONDS = 0.2
# by how much less silent a row is that was renewed meanwhile
_RENEWED_MS = 100
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def new_incarnation(lock: Path) -> str:
    """Return what tells this start from all others; ``lock`` is the file that this daemon has locked. Raises OSError.

    No two lock files that are there at one time have the same place: neither on one machine, nor on two.
    """
    status = lock.stat()
    try:
        boot = _BOOT.read_text()
    except OSError:
        # nothing that another start could be compared with
        boot = secrets.token_hex()
    place = hashlib.sha256(f"{boot.strip()} {status.st_dev} {status.st_ino}".encode()).hexdigest()
    return place[:_PLACE_DIGITS] + secrets.token_hex(8)


def is_of_place(incarnation: str, other: str) -> bool:
    """Tell whether two incarnations are of one lock file, and so of one daemon, started twice."""
    return incarnation[:_PLACE_DIGITS] == other[:_PLACE_DIGITS]


def join(catalogue: Catalogue, daemon: str, url: str, incarnation: str, look_up: Callable[[], None]) -> None:
    """Register a daemon that starts; wait while one of its id may be running, for some 10 s. Blocks.

    ``look_up`` is called now and then meanwhile, and may raise. Raises CatalogueError, and StartError where another
    daemon of this id says that it is there.
    """
    first: DaemonRecord | None = None
    deadline = time.monotonic() + 2 * AWAY_SECONDS
    while True:
        known = next((each for each in catalogue.daemons() if each.id == daemon), None)
        if known is not None and is_of_place(known.incarnation, incarnation):
            catalogue.remove_daemon(daemon, known.incarnation)
        if catalogue.renew_daemon(daemon, url, incarnation, int(AWAY_SECONDS * 1000)):
            return
        if known is not None:
            first = first or known
            is_renewed = known.incarnation != first.incarnation or known.silent < first.silent - _RENEWED_MS
            if is_renewed or time.monotonic() > deadline:
                raise StartError(
                    f"another daemon with this spool's id is running at {known.url}: a copied spool? Remove "
                    ".filestored/store-id of the copy"
                )
        look_up()
        time.sleep(_LOOKED_AT_EVERY_SECONDS)
