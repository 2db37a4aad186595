"""One scrub of a store at a time: on this machine by a lock, of a bucket also by a lease in the catalogue."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator

from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue
from filestored.errors import CatalogueError, StartError

LEASE = "scrub"
"""The name of the lease of the machine that scrubs a bucket."""

_LEASE_MS = 120_000
_LEASE_RENEWED_EVERY_SECONDS = 10.0


@contextlib.contextmanager
def only_one(folder: StoreFolder, catalogue: Catalogue) -> Iterator[Callable[[], None]]:
    """Let nobody else scrub a store while a block runs, on any machine. Raises StartError where somebody does.

    Gives what is to be called now and then, every half second say; it raises StartError where this scrub has been out
    of reach of the catalogue for so long that another machine has begun one.
    """
    descriptor = os.open(folder.private / "scrub.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"another scrub of {folder.path} is running") from None
        lease = _Lease(catalogue, folder) if folder.bucket is not None and catalogue.is_shared else None
        if lease is None:
            yield lambda: None
        else:
            with contextlib.closing(lease):
                yield lease.renew
    finally:
        os.close(descriptor)


class _Lease:
    """That this machine alone scrubs a bucket, as the catalogue of several machines says."""

    def __init__(self, catalogue: Catalogue, folder: StoreFolder) -> None:
        self._catalogue = catalogue
        self._bucket = folder.bucket
        self._holder = folder.identity()
        self._renew_at = 0.0
        self.renew()

    def renew(self) -> None:
        """Hold it for some time more. Raises StartError where another machine has it."""
        now = time.monotonic()
        if now < self._renew_at:
            return
        self._renew_at = now + _LEASE_RENEWED_EVERY_SECONDS
        # a catalogue that is away for a moment is no reason to stop reading
        with contextlib.suppress(CatalogueError):
            if not self._catalogue.take_lease(LEASE, self._holder, _LEASE_MS):
                raise StartError(
                    f"another machine scrubs {self._bucket}, or has until a moment ago: try again in two minutes"
                )

    def close(self) -> None:
        """Let others have it."""
        with contextlib.suppress(CatalogueError):
            self._catalogue.give_lease(LEASE, self._holder)
