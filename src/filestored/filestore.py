"""The filestore: the only place where bytes and records meet."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from loguru import logger

from filestored.access import Permission, Principal
from filestored.blobs.disk import DiskBlobStore
from filestored.blobs.layout import StoreFolder
from filestored.blobs.store import BlobHandle, BlobStat
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.listing import Page, Query
from filestored.catalogue.records import (
    NOBODY,
    UNKNOWN_TYPE,
    Added,
    FileChange,
    FileRecord,
    TokenRecord,
    Usage,
    Wish,
    now_milliseconds,
)
from filestored.changes import AddFiles, ChangeFile, DeleteFile, EndFiles, TakeOver, over_quota
from filestored.committer import Committer
from filestored.digest import Algorithm, Digest, algorithm_of
from filestored.errors import NotFound, OutOfSpace
from filestored.metrics import EXPIRED_FILES, FAILED_FLUSHES, Tally
from filestored.resuming import ResumableUploads
from filestored.shared import Shared
from filestored.signing import KEY_NOTE, Signer
from filestored.staging import Receiver, Staged, Staging

_THREADS = 8
_FREE_SPACE_KEPT_SECONDS = 0.2
_ASKED_AT_ONCE = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A stored file, held open: its blob, and what the catalogue says of it for this reader.

    ``record`` is None for a blob that no catalogue row names. ``generation`` is older than everything read.
    """

    digest: Digest
    algorithm: Algorithm
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


class Filestore:
    """Staging, blob store and catalogue together: what the daemon serves.

    One a process. Files are added and deleted through the group committer; reads run in a few threads.
    """

    def __init__(
        self, folder: StoreFolder, catalogue: Address | None, *, durable: bool, min_free_bytes: int = 0,
        upload_life: float = 86400.0,
    ) -> None:  # fmt: skip
        """Open a store that ``recovery.prepare`` has made ready. ``min_free_bytes`` is what uploads leave free.

        ``upload_life`` is how long a resumable upload may rest, in seconds.
        """
        self.algorithm = folder.algorithm
        self._min_free_bytes = min_free_bytes
        self._blobs = DiskBlobStore(folder)
        self._catalogue = Catalogue(catalogue or folder.catalogue_file, durable=durable)
        self.shared = Shared(folder.shared_file)
        self._threads = ThreadPoolExecutor(_THREADS, "disk")
        flush_failed = Tally(self.shared.counters, FAILED_FLUSHES).count
        self._staging = Staging(
            self._blobs.staging, self.algorithm, self._threads, durable=durable, flush_failed=flush_failed
        )
        self._committer = Committer(
            self._blobs,
            self._catalogue,
            durable=durable,
            changed=self.shared.renew,
            flush_failed=flush_failed,
            reserve=folder.reserve_file,
        )
        self.uploads = ResumableUploads(
            folder.uploads, self._staging, self._catalogue, self._committer, self.shared, self._threads,
            life_seconds=upload_life,
        )  # fmt: skip
        self._free = (0.0, 0)

    def close(self) -> None:
        """Finish what waits to be committed and close the store."""
        self._committer.close()
        self._threads.shutdown()
        self.uploads.close()
        self._catalogue.close()
        self._blobs.close()
        self.shared.close()

    # uploads

    def receive(self, others: tuple[str, ...] = ()) -> Receiver:
        """Begin to stage a body; ``others`` names hashes to take besides the store's own."""
        return self._staging.receive(others)

    def hold(self, body: bytes, others: tuple[str, ...] = ()) -> Staged:
        """Stage a small body that is already in memory."""
        return self._staging.hold(body, others)

    async def add(self, principal: Principal, bodies: list[tuple[Staged, Wish]]) -> list[Added]:
        """Store staged bodies as the caller's files: all or none. Durable when it returns.

        The bodies are the committer's from here on, also where the caller is cancelled meanwhile.
        """
        principal.require(Permission.WRITE)
        for staged, _ in bodies:
            staged.hand_over()
        return await self._committer.submit(AddFiles(principal.owner, bodies, principal.quota))

    async def take_over(
        self, principal: Principal, digest: Digest, files: Sequence[FileRecord], staged: Staged | None
    ) -> bool:
        """Take a blob and its files over from another store as they are there; tell whether that has changed anything.

        ``staged`` is the committer's from here on; None where the blob is here already. Needs the permission ADMIN.
        """
        principal.require(Permission.ADMIN)
        if staged is not None:
            staged.hand_over()
        return await self._committer.submit(TakeOver(digest, files, staged))

    def require_room(self, size: int) -> None:
        """Raise OutOfSpace unless ``size`` more bytes leave the disk as much free as the settings demand."""
        measured_at, free = self._free
        now = time.monotonic()
        if now - measured_at > _FREE_SPACE_KEPT_SECONDS:
            free = self._blobs.free_bytes()
            self._free = (now, free)
        if free - size < self._min_free_bytes:
            raise OutOfSpace(
                f"The disk has {free} bytes free, of which {self._min_free_bytes} are to stay free; "
                f"{size} more do not fit. Delete files or add space."
            )

    async def largest_upload(self, principal: Principal, announced: int | None) -> int | None:
        """Return how many bytes a file may have that the caller uploads now; None where no quota says so.

        ``announced`` is its size where that is known. What may be a file that the caller keeps already is let through:
        only its digest will tell. Raises TooLarge where it cannot be within the quota.
        """
        if principal.quota is None:
            return None
        return await self.in_thread(self._largest_upload, principal.owner, principal.quota, announced)

    def _largest_upload(self, owner: str, quota: int, announced: int | None) -> int:
        kept = self._catalogue.bytes_of(owner, now_milliseconds())
        if announced is not None and kept + announced > quota and not self._catalogue.has_size(owner, announced):
            raise over_quota(quota, kept, announced)
        return max(quota - kept, self._catalogue.largest_of(owner))

    # reading

    async def open(self, principal: Principal, digest: Digest) -> OpenFile:
        """Open a file for reading. Raises NotFound where none is stored, or it has expired."""
        principal.require_reading(digest)
        return await self.in_thread(self._open, principal, digest)

    def _open(self, principal: Principal, digest: Digest) -> OpenFile:
        generation = self.shared.generation(digest)
        rows = self._catalogue.find(digest)
        record = _record_for(principal, rows)
        blob = self._blobs.open(digest) if record or not rows else None
        if blob is not None and record is not None and blob.size != record.size:
            logger.error("blob {} has {} bytes instead of {}: not served", digest, blob.size, record.size)
            blob = None
        if blob is None:
            raise not_found(digest)
        return OpenFile(digest, algorithm_of(digest, self.algorithm), blob, record, generation)

    def is_in_place(self, file: OpenFile) -> bool:
        """Tell whether the blob that is held open still is the one under its name."""
        return self._blobs.identity(file.digest) == file.blob.identity

    async def find_stored(self, principal: Principal, digest: Digest) -> Stored | None:
        """Return what a caller may know of a file: whoever may not read is told of its own only. None for nothing."""
        principal.require_no_link()
        return await self.in_thread(self._find_stored, principal, digest)

    def _find_stored(self, principal: Principal, digest: Digest) -> Stored | None:
        return self._stored(principal, digest, self._catalogue.find(digest), is_own_only=not principal.may_read)

    def _stored(
        self, principal: Principal, digest: Digest, rows: list[FileRecord], *, is_own_only: bool
    ) -> Stored | None:
        if is_own_only:
            rows = [file for file in rows if file.owner == principal.owner]
            if not rows:
                return None
        record = _record_for(principal, rows)
        blob = self._blobs.stat(digest) if record or not rows else None
        if blob is None or (record is not None and record.size != blob.size):
            return None
        now = now_milliseconds()
        owners = sum(file.owner != NOBODY and file.is_live(now) for file in rows)
        return Stored(digest, record, blob, owners)

    # what there is to say about files

    async def find_file(self, principal: Principal, digest: Digest) -> tuple[FileRecord, int]:
        """Return the caller's own file; to whoever sees all, anybody's; and how many owners it has. Raises NotFound."""
        principal.require(Permission.READ)
        stored = await self.find_stored(principal, digest)
        if stored is not None and principal.sees_all:
            return stored.described(), stored.owners
        if stored is None or stored.record is None or stored.record.owner != principal.owner:
            raise not_found(digest)
        return stored.record, stored.owners

    async def find_name(self, principal: Principal, digest: Digest) -> str | None:
        """Return the name of a file that the caller may make a link to, None where it has none. Raises NotFound."""
        principal.require_linking()
        stored = await self.find_stored(principal, digest)
        if stored is None:
            raise not_found(digest)
        return stored.record.name if stored.record else None

    async def list_files(self, principal: Principal, query: Query) -> Page:
        """Return a page of the caller's own files; to whoever sees all, of everybody's."""
        principal.require(Permission.READ)
        return await self.in_thread(self._catalogue.read_page, query, principal.claims_of, now_milliseconds())

    async def change_file(self, principal: Principal, digest: Digest, change: FileChange) -> FileRecord:
        """Change what is said about the caller's file; whoever sees all may change anybody's. Raises NotFound."""
        principal.require(Permission.WRITE)
        file = await self._committer.submit(ChangeFile(digest, principal.owner, change, of_anybody=principal.sees_all))
        if file is None:
            raise not_found(digest)
        return file

    async def find_missing(
        self, principal: Principal, digests: list[Digest], *, is_own_only: bool = False
    ) -> list[Digest]:
        """Return those of the digests that a caller has to upload, in their order.

        For whoever may upload these are all it does not keep itself: what only others keep may go with them. To
        whoever sees all, and to whoever only reads, what anybody keeps is there. With ``is_own_only`` only what the
        caller keeps itself and for ever is there: what need not be sent for it to stay.
        """
        if not principal.may_read:
            principal.require(Permission.WRITE)
        return await self.in_thread(self._find_missing, principal, digests, is_own_only)

    def _find_missing(self, principal: Principal, digests: list[Digest], has_to_last: bool) -> list[Digest]:
        is_own_only = has_to_last or (not principal.sees_all and bool(principal.permissions & Permission.WRITE))
        missing = []
        for start in range(0, len(digests), _ASKED_AT_ONCE):
            asked = digests[start : start + _ASKED_AT_ONCE]
            named = self._catalogue.find_all(asked)
            for digest in asked:
                stored = self._stored(principal, digest, named.get(digest, []), is_own_only=is_own_only)
                if stored is None or (has_to_last and stored.described().expires_at is not None):
                    missing.append(digest)
            # lets the event loop in: it would wait for the interpreter's switch interval otherwise
            time.sleep(0)
        return missing

    async def measure(self, principal: Principal) -> tuple[Usage, int]:
        """Return how much the caller keeps, or everybody does for whoever sees all, and the disk's free bytes."""
        principal.require(Permission.READ)
        return await self.in_thread(self.usage, principal.claims_of)

    def usage(self, owner: str | None = None) -> tuple[Usage, int]:
        """Return how much an owner keeps, or all do, and the free bytes of the disk. Blocks."""
        return self.kept_by(owner), self.free_bytes()

    def kept_by(self, owner: str | None = None) -> Usage:
        """Return how much an owner keeps, or all do. Blocks."""
        return self._catalogue.usage(owner)

    def free_bytes(self) -> int:
        """Return the free bytes of the disk. Blocks. Raises OSError."""
        return self._blobs.free_bytes()

    # deleting

    async def delete(self, principal: Principal, digest: Digest) -> None:
        """Delete the caller's file. Raises NotFound where there is none. Durable when it returns."""
        principal.require(Permission.DELETE)
        change = DeleteFile(digest, principal.claims_of, takes_unclaimed=principal.may_read)
        if not await self._committer.submit(change):
            raise not_found(digest)

    async def end_expired(self) -> int:
        """Delete files whose time has come, some hundreds at most; return how many. Durable when it returns."""
        # this is asked every other second, and a transaction costs the database something
        if not await self.in_thread(self._catalogue.has_expired, now_milliseconds()):
            return 0
        ended = await self._committer.submit(EndFiles())
        self.shared.counters[EXPIRED_FILES] += ended
        return ended

    # the rest

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens there are now. Blocks."""
        return self._catalogue.tokens()

    def signer(self) -> Signer:
        """Return what signs links, with the key in the catalogue. Blocks."""
        return Signer(self._catalogue.note(KEY_NOTE) or "")

    def note(self, name: str) -> str | None:
        """Return what the catalogue has noted under a name. Blocks."""
        return self._catalogue.note(name)

    def require_catalogue(self) -> None:
        """Raise CatalogueError where the catalogue does not answer. Blocks."""
        self._catalogue.find(Digest("0" * 64))

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run blocking work in one of the few threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def not_found(name: str) -> NotFound:
    """Return the error for a file that is not stored, by its hash or what was given as one."""
    shown = name if len(name) <= 128 else name[:128] + "…"
    return NotFound(f"No file is stored under the hash {shown!r}.")


def _record_for(principal: Principal, rows: list[FileRecord]) -> FileRecord | None:
    """Return the caller's own file, else the first owner's, of those that have not expired."""
    now = now_milliseconds()
    live = [file for file in rows if file.is_live(now)]
    return next((file for file in live if file.owner == principal.owner), live[0] if live else None)
