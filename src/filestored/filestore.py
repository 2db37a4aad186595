"""The filestore: the only place where bytes and records meet."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from filestored.access import Permission, Principal
from filestored.blobs.layout import StoreFolder, StoreMark
from filestored.blobs.opening import open_blobs
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.listing import Page, Query
from filestored.catalogue.records import (
    Added,
    FileChange,
    FileRecord,
    TokenRecord,
    Usage,
    Wish,
    now_milliseconds,
)
from filestored.changes import AddFiles, ChangeFile, DeleteFile, EndFiles, TakeOver, over_quota
from filestored.cluster.daemons import Daemons, Membership
from filestored.committer import Committer
from filestored.digest import Digest
from filestored.errors import OutOfSpace
from filestored.joining import Parts
from filestored.metrics import EXPIRED_FILES, FAILED_FLUSHES, Tally
from filestored.reading import OpenFile, Reader, Stored, not_found
from filestored.removals import SENT_LIFE_MS, ResumeRemovals
from filestored.resuming import ResumableUploads
from filestored.shared import Shared
from filestored.signing import KEY_NOTE, Signer
from filestored.staging import Receiver, Staged, Staging

_THREADS = 8
_BUCKET_THREADS = 32
_FREE_SPACE_KEPT_SECONDS = 0.2
# more than all workers can write while a measurement is kept
_FREE_SPACE_NEAR = 4 << 30

T = TypeVar("T")


class Filestore:
    """Staging, blob store and catalogue together: what the daemon serves.

    One a process. Files are added and deleted through the group committer; reads run in a few threads.
    """

    def __init__(
        self, folder: StoreFolder, catalogue: Address | None, *, durable: bool, min_free_bytes: int = 0,
        upload_life: float = 86400.0, membership: Membership | None = None,
    ) -> None:  # fmt: skip
        """Open a store that ``recovery.prepare`` has made ready. ``min_free_bytes`` is what uploads leave free.

        ``upload_life`` is how long a resumable upload may rest, in seconds. ``membership`` is for a cluster.
        """
        self.algorithm = folder.algorithm
        self._min_free_bytes = min_free_bytes
        self._is_on_disk = folder.bucket is None
        self._blobs = open_blobs(folder)
        self._catalogue = Catalogue(catalogue or folder.catalogue_file, durable=durable)
        self.shared = Shared(folder.shared_file)
        self._reader = Reader(self._blobs, self._catalogue, self.shared, self.algorithm, StoreMark(folder))
        # a disk gives nothing to more at a time; a bucket far away gives the more the more ask for it
        self._threads = ThreadPoolExecutor(_THREADS if folder.bucket is None else _BUCKET_THREADS, "disk")
        flush_failed = Tally(self.shared.counters, FAILED_FLUSHES).count
        self._staging = Staging(
            self._blobs.staging, self.algorithm, self._threads, durable=durable, flush_failed=flush_failed,
            flushes_bodies=durable and self._blobs.removes_at_once,
        )  # fmt: skip
        self._committer = Committer(
            self._blobs,
            self._catalogue,
            durable=durable,
            changed=self.shared.renew,
            flush_failed=flush_failed,
            reserve=folder.reserve_file,
        )
        self.daemons = Daemons(self._catalogue, self.shared, folder.identity(), membership) if membership else None
        """This daemon among the others, where there may be others."""
        self.uploads = ResumableUploads(
            folder.uploads, self._staging, self._catalogue, self._committer, self.shared, self._threads,
            life_seconds=upload_life, daemons=self.daemons,
        )  # fmt: skip
        self.parts = Parts(self.uploads)
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
        left = free - size - self._min_free_bytes
        if left < _FREE_SPACE_NEAR or now - measured_at > _FREE_SPACE_KEPT_SECONDS:
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
        return await self.in_thread(self._reader.open, principal, digest)

    def is_in_place(self, file: OpenFile) -> bool:
        """Tell whether the blob that was opened still is the one under its name, as far as that can be told at once."""
        return self._blobs.is_in_place(file.digest, file.blob.identity)

    async def presigned(self, digest: Digest, seconds: float, headers: Mapping[str, str]) -> tuple[str, bool] | None:
        """Return where else a file can be had for a while. See BlobStore; who may have it, the caller has judged."""
        return await self.in_thread(self._blobs.presigned, digest, seconds, headers)

    @property
    def has_others(self) -> bool:
        """Whether other daemons may change what this one remembers, without its being told."""
        return self._catalogue.is_shared

    async def is_still(self, principal: Principal, file: OpenFile) -> bool:
        """Tell whether a file is for its reader what it was when it was opened, as the catalogue knows it now."""
        return await self.in_thread(self._reader.is_still, principal, file)

    async def find_stored(self, principal: Principal, digest: Digest) -> Stored | None:
        """Return what a caller may know of a file: whoever may not read is told of its own only. None for nothing."""
        principal.require_no_link()
        return await self.in_thread(self._reader.find_stored, principal, digest)

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
        return await self.in_thread(self._reader.find_missing, principal, digests, is_own_only)

    async def measure(self, principal: Principal) -> tuple[Usage, int | None]:
        """Return how much the caller keeps, or everybody does for whoever sees all, and what is free. See usage."""
        principal.require(Permission.READ)
        return await self.in_thread(self.usage, principal.claims_of)

    def usage(self, owner: str | None = None) -> tuple[Usage, int | None]:
        """Return how much an owner keeps, or all do, and the free bytes of the disk; None for a bucket. Blocks."""
        return self.kept_by(owner), self.free_bytes() if self._is_on_disk else None

    def kept_by(self, owner: str | None = None) -> Usage:
        """Return how much an owner keeps, or all do. Blocks."""
        return self._catalogue.usage(owner)

    def require_usable(self) -> None:
        """Raise OSError or BlobStoreError where blobs cannot be had, or nothing can be taken in. Blocks."""
        self._blobs.require_usable()
        self._committer.require_kept()

    def free_bytes(self) -> int:
        """Return the free bytes of the disk that the store, or the spool of a bucket, is on. Blocks. Raises OSError."""
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

    async def resume_removals(self) -> int:
        """Carry out removals from a bucket that were left undone, some hundreds at most; return how many."""
        if self._blobs.removes_at_once or not await self.in_thread(self._catalogue.has_due_removals, SENT_LIFE_MS):
            return 0
        return await self._committer.submit(ResumeRemovals())

    # the rest

    def credentials(self) -> tuple[list[TokenRecord], str | None]:
        """Return the tokens there are now, and the key that links are signed with. Blocks."""
        return self._catalogue.tokens(), self._catalogue.note(KEY_NOTE)

    def signer(self) -> Signer:
        """Return what signs links, with the key in the catalogue. Blocks."""
        return Signer(self._catalogue.note(KEY_NOTE) or "")

    def note(self, name: str) -> str | None:
        """Return what the catalogue has noted under a name. Blocks."""
        return self._catalogue.note(name)

    def require_catalogue(self) -> None:
        """Raise CatalogueError where the catalogue does not answer, or is not the one any more. Blocks."""
        self._catalogue.require_usable()

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run blocking work in one of the few threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
