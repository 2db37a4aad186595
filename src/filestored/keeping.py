"""Seeing that a bucket still is kept by the catalogue of this process: another may have taken it over meanwhile."""

import threading
import time

from filestored.blobs.store import BlobStore
from filestored.catalogue.catalogue import Catalogue
from filestored.errors import BlobStoreError

CATALOGUE_NOTE = "catalogue"
"""The name of the note that tells a catalogue from all others, as a bucket notes by which it is kept."""

_ASKED_EVERY_SECONDS = 5.0


class Keeping:
    """What keeps a bucket, looked up every few seconds at most. Any thread may ask."""

    def __init__(self, blobs: BlobStore, catalogue: Catalogue) -> None:
        self._blobs = blobs
        self._catalogue = catalogue
        self._own: str | None = None
        self._is_others = False
        self._known_until = 0.0
        self._lock = threading.Lock()

    def require(self) -> None:
        """Raise BlobStoreError where another catalogue keeps the bucket: nothing may be put or removed then. Blocks."""
        with self._lock:
            if time.monotonic() > self._known_until:
                self._is_others = self._look()
                self._known_until = time.monotonic() + _ASKED_EVERY_SECONDS
            if self._is_others:
                raise BlobStoreError(
                    "the bucket is kept by another catalogue by now: stop this daemon, and start it with that one"
                )

    def _look(self) -> bool:
        if self._own is None:
            self._own = self._catalogue.note(CATALOGUE_NOTE)
        # one that no daemon has been started with is nobody's yet
        return self._own is not None and self._blobs.keeper() not in ("", self._own)
