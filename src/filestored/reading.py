"""Reading: what is stored for whom, as catalogue and blob store know it together. Everything here blocks."""

import time
from dataclasses import dataclass

from loguru import logger

from filestored.access import Permission, Principal
from filestored.blobs.layout import StoreMark
from filestored.blobs.store import MOST_FORESEEN, BlobHandle, BlobStat, BlobStore
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import NOBODY, UNKNOWN_TYPE, FileRecord, now_milliseconds
from filestored.digest import Algorithm, Digest, algorithm_of
from filestored.errors import NotFound
from filestored.shared import Shared

_ASKED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A stored file, held open: its blob, and what the catalogue says of it for this reader.

    ``record`` is None for a blob that no catalogue row names. ``generation`` is older than everything read.
    ``algorithm`` is None where two that the store's blobs are named by give hashes of that length.
    """

    digest: Digest
    algorithm: Algorithm | None
    blob: BlobHandle
    record: FileRecord | None
    generation: int

    @property
    def expires_at(self) -> int | None:
        """When the file ends, in milliseconds since 1970; None for never."""
        return self.record.expires_at if self.record else None


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that is there: its blob, and what the catalogue says of it for this reader, if anything."""

    digest: Digest
    record: FileRecord | None
    blob: BlobStat
    owners: int
    """How many keep it, of those that the reader may know of."""

    def described(self) -> FileRecord:
        """Return its record, made up where the catalogue has none."""
        return self.record or FileRecord(
            self.digest, NOBODY, None, UNKNOWN_TYPE, self.blob.size, self.blob.modified * 1000, None
        )


class Reader:
    """Finds files, in the threads of a filestore."""

    def __init__(
        self, blobs: BlobStore, catalogue: Catalogue, shared: Shared, algorithm: Algorithm,
        mark: StoreMark | None = None,
    ) -> None:  # fmt: skip
        """``algorithm`` names new blobs; ``mark`` says which have named those of the store."""
        self._mark = mark
        self._blobs = blobs
        self._catalogue = catalogue
        self._shared = shared
        self._algorithm = algorithm

    def open(self, principal: Principal, digest: Digest) -> OpenFile:
        """Open a file for a reader. Raises NotFound where none is stored, or it has expired."""
        generation = self._shared.generation(digest)
        rows = self._catalogue.find(digest)
        record = _record_for(principal, rows)
        blob = None
        if record is not None or self._may_be_unclaimed(digest, rows):
            blob = self._blobs.open(digest, record.size if record else None)
            if blob is not None and record is None and self._is_left_over(digest):
                blob.close()
                blob = None
        if blob is not None and record is not None and blob.size != record.size:
            logger.error("blob {} has {} bytes instead of {}: not served", digest, blob.size, record.size)
            blob = None
        if blob is None:
            raise not_found(digest)
        return OpenFile(digest, self._algorithm_of(digest), blob, record, generation)

    def _algorithm_of(self, digest: Digest) -> Algorithm | None:
        algorithm = algorithm_of(digest, self._algorithm)
        if algorithm is not self._algorithm or self._mark is None:
            return algorithm
        return None if self._mark.names_alike(algorithm) else algorithm

    def _may_be_unclaimed(self, digest: Digest, rows: list[FileRecord]) -> bool:
        """Tell whether a blob under this name is a file though no row names it, and not one that is to be removed.

        A bucket may keep that for a while after the delete.
        """
        return not rows and (self._blobs.removes_at_once or not self._catalogue.is_going(digest))

    def _is_left_over(self, digest: Digest) -> bool:
        """Tell whether a blob that lies on a disk, and that no row names, is one that could not be removed.

        Asked only once one was found: a disk is looked at sooner than the catalogue.
        """
        return self._blobs.removes_at_once and self._catalogue.is_going(digest)

    def is_still(self, principal: Principal, file: OpenFile) -> bool:
        """Tell whether a file is for its reader what it was when it was opened, as the catalogue knows it now."""
        rows = self._catalogue.find(file.digest)
        if _record_for(principal, rows) != file.record:
            return False
        # what no row names only the blob store knows
        if file.record is not None:
            return True
        is_file = self._may_be_unclaimed(file.digest, rows) and not self._is_left_over(file.digest)
        return is_file and self._blobs.identity(file.digest) == file.blob.identity

    def find_stored(self, principal: Principal, digest: Digest) -> Stored | None:
        """Return what a caller may know of a file: whoever may not read is told of its own only. None for nothing."""
        return self._stored(principal, digest, self._catalogue.find(digest), is_own_only=not principal.may_read)

    def _stored(
        self, principal: Principal, digest: Digest, rows: list[FileRecord], *, is_own_only: bool, looks: bool = True
    ) -> Stored | None:
        if is_own_only:
            rows = [file for file in rows if file.owner == principal.owner]
            if not rows:
                return None
        record = _record_for(principal, rows)
        blob: BlobStat | None = None
        if record is not None and not looks:
            blob = BlobStat(record.size, record.created_at // 1000)
        elif record is not None or self._may_be_unclaimed(digest, rows):
            blob = self._blobs.stat(digest)
            if blob is not None and record is None and self._is_left_over(digest):
                blob = None
        if blob is None or (record is not None and record.size != blob.size):
            return None
        now = now_milliseconds()
        owners = sum(file.owner != NOBODY and file.is_live(now) for file in rows)
        return Stored(digest, record, blob, owners)

    def find_missing(self, principal: Principal, digests: list[Digest], has_to_last: bool) -> list[Digest]:
        """Return those of the digests that a caller has to upload. See Filestore."""
        is_own_only = has_to_last or (not principal.sees_all and bool(principal.permissions & Permission.WRITE))
        missing = []
        # to ask a bucket for ten thousand blobs takes minutes: for many what the catalogue says is taken for true
        is_few = len(digests) <= MOST_FORESEEN
        looks = self._blobs.removes_at_once or is_few
        most = _ASKED_AT_ONCE if self._blobs.removes_at_once else MOST_FORESEEN
        for start in range(0, len(digests), most):
            asked = digests[start : start + most]
            named = self._catalogue.find_all(asked)
            looked_at = asked if is_few else [] if is_own_only else [digest for digest in asked if digest not in named]
            try:
                self._blobs.foresee(looked_at, for_reader=True)
                for digest in asked:
                    rows = named.get(digest, [])
                    stored = self._stored(principal, digest, rows, is_own_only=is_own_only, looks=looks)
                    if stored is None or (has_to_last and stored.described().expires_at is not None):
                        missing.append(digest)
            finally:
                self._blobs.forget_foreseen()
            # lets the event loop in: it would wait for the interpreter's switch interval otherwise
            time.sleep(0)
        return missing


def not_found(name: str) -> NotFound:
    """Return the error for a file that is not stored, by its hash or what was given as one."""
    shown = name if len(name) <= 128 else name[:128] + "…"
    return NotFound(f"No file is stored under the hash {shown!r}.")


def _record_for(principal: Principal, rows: list[FileRecord]) -> FileRecord | None:
    """Return the caller's own file, else the first owner's, of those that have not expired."""
    now = now_milliseconds()
    live = [file for file in rows if file.is_live(now)]
    return next((file for file in live if file.owner == principal.owner), live[0] if live else None)
