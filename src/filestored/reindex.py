"""Giving every blob that no file names a file without owner: what a lost catalogue, or an earlier program, leaves."""

from collections.abc import Callable

from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import open_blobs
from filestored.blobs.store import MOST_FORESEEN, BlobStore
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import NOBODY, UNKNOWN_TYPE, FileRecord
from filestored.digest import Digest
from filestored.shared import have_forgotten

BATCH = 256
"""How many files are added in one transaction, where the store is on a disk: the lock is held for milliseconds."""


class Reindex:
    """One look at all blobs, beside a daemon or without one. Bytes are not read: that is for the scrub."""

    def __init__(self, folder: StoreFolder, catalogue: Catalogue, *, failed: Callable[[str, OSError], None]) -> None:
        """``failed`` is called for each folder of blobs that the system cannot list, and is left out."""
        self.blobs = 0
        """How many blobs were looked at."""
        self.added = 0
        """How many of them no file named; they have one now."""
        self.added_bytes = 0
        """Bytes of these."""
        self._folder = folder
        self._catalogue = catalogue
        self._failed = failed

    def run(self) -> None:
        """Look at all blobs. Durable when it returns. Raises OSError, CatalogueError, BlobStoreError."""
        blobs = open_blobs(self._folder)
        try:
            self._walk(blobs)
        finally:
            blobs.close()
        if not self._catalogue.counts_agree():
            with self._catalogue.transaction(alone=True) as transaction:
                transaction.count_anew()

    def _walk(self, blobs: BlobStore) -> None:
        unnamed: list[Digest] = []
        # a bucket is asked about all of them while they are locked
        most = BATCH if blobs.removes_at_once else MOST_FORESEEN
        for digest in blobs.walk(failed=self._failed):
            self.blobs += 1
            if not self._catalogue.find(digest):
                unnamed.append(digest)
            if len(unnamed) == most:
                self._add(unnamed, blobs)
                unnamed = []
        self._add(unnamed, blobs)

    def _add(self, digests: list[Digest], blobs: BlobStore) -> None:
        """Add files for those that still are there and named by none, while nobody publishes or removes."""
        try:
            with self._catalogue.transaction(digests) as transaction:
                # a file would keep what somebody has deleted
                unnamed = [
                    each for each in digests if not transaction.is_named(each) and not transaction.is_going(each)
                ]
                blobs.foresee(unnamed)
                files = [file for digest in unnamed if (file := _unclaimed(digest, blobs))]
                for file in files:
                    transaction.insert(file, is_first=True)
        finally:
            blobs.forget_foreseen()
        self._catalogue.limit_wal()
        self.added += len(files)
        self.added_bytes += sum(file.size for file in files)
        if files:
            have_forgotten(self._folder.shared_file, [file.digest for file in files])


def _unclaimed(digest: Digest, blobs: BlobStore) -> FileRecord | None:
    """Return a file without owner for a blob; None where it is gone."""
    identity = blobs.identity(digest)
    if identity is None:
        return None
    _, modified, size = identity
    return FileRecord(digest, NOBODY, None, UNKNOWN_TYPE, size, modified // 1_000_000, None)
