"""The filestore: the only place where bytes and records meet."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from loguru import logger

from filestored.access import Permission, Principal
from filestored.blobs.disk import DiskBlobStore
from filestored.blobs.layout import RESERVE_BYTES, StoreFolder
from filestored.blobs.store import BlobHandle
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import Added, FileRecord, Wish, now_milliseconds
from filestored.changes import AddFiles, DeleteFile
from filestored.committer import Committer, keep_reserve, settle_removals
from filestored.digest import Algorithm, Digest, algorithm_of
from filestored.errors import NotFound, OutOfSpace, StartError
from filestored.shared import Shared
from filestored.staging import Receiver, Staged, Staging

_THREADS = 8
_FREE_SPACE_KEPT_SECONDS = 0.2

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


class Filestore:
    """Staging, blob store and catalogue together: what the daemon serves.

    One a process. Files are added and deleted through the group committer; reads run in a few threads.
    """

    def __init__(self, folder: StoreFolder, catalogue: Path | None, *, durable: bool, min_free_bytes: int = 0) -> None:
        """Open a store that :func:`prepare` has made ready. ``min_free_bytes`` is what uploads leave free."""
        self.algorithm = folder.algorithm
        self._min_free_bytes = min_free_bytes
        self._blobs = DiskBlobStore(folder)
        self._catalogue = Catalogue(catalogue or folder.catalogue_file, durable=durable)
        self.shared = Shared(folder.shared_file)
        self._threads = ThreadPoolExecutor(_THREADS, "disk")
        self._staging = Staging(self._blobs.staging, self.algorithm, self._threads, durable=durable)
        self._committer = Committer(
            self._blobs,
            self._catalogue,
            durable=durable,
            changed=self.shared.renew,
            reserve=folder.reserve_file,
        )
        self._free = (0.0, 0)

    def close(self) -> None:
        """Finish what waits to be committed and close the store."""
        self._committer.close()
        self._threads.shutdown()
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
        return await self._committer.submit(AddFiles(principal.owner, bodies))

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

    # reading

    async def open(self, principal: Principal, digest: Digest) -> OpenFile:
        """Open a file for reading. Raises NotFound where none is stored, or it has expired."""
        principal.require(Permission.READ)
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

    # deleting

    async def delete(self, principal: Principal, digest: Digest) -> None:
        """Delete the caller's file. Raises NotFound where there is none. Durable when it returns."""
        principal.require(Permission.DELETE)
        if not await self._committer.submit(DeleteFile(digest, principal.claims_of)):
            raise not_found(digest)

    # the rest

    def require_usable(self) -> None:
        """Raise OSError or sqlite3.Error where blob store or catalogue do not answer. Blocks."""
        self._blobs.free_bytes()
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


def prepare(folder: StoreFolder, catalogue: Path | None) -> None:
    """Make a store ready to be opened: tables up to date, leftovers of a crash settled.

    Call it once, under the daemon's lock. Its cost does not grow with the store. Raises StartError.
    """
    has_room = True
    try:
        Catalogue.prepare(catalogue or folder.catalogue_file)
    except StartError:
        # SQLite needs a little room to open its files; who cannot start cannot delete either
        if not _give_up_reserve(folder):
            raise
        has_room = False
        Catalogue.prepare(catalogue or folder.catalogue_file)
    try:
        with _recovering(folder, catalogue) as (blobs, rows):
            removed = Staging(blobs.staging, folder.algorithm, ThreadPoolExecutor(1), durable=False).clear()
            settle_removals(rows, blobs, flush=True)
        if has_room:
            with contextlib.suppress(OSError):
                keep_reserve(folder.reserve_file)
        Shared(folder.shared_file).close()
    except (OSError, sqlite3.Error) as error:
        raise StartError(f"the store {folder.path} cannot be used: {error}") from error
    if removed:
        logger.info("{} unfinished uploads of an earlier run were removed", removed)


def _give_up_reserve(folder: StoreFolder) -> bool:
    """Give the reserve's space to a disk that has none left; False where that is no help."""
    space = os.statvfs(folder.path)
    if space.f_bavail * space.f_frsize >= RESERVE_BYTES or not folder.reserve_file.exists():
        return False
    folder.reserve_file.unlink()
    return True


@contextlib.contextmanager
def _recovering(folder: StoreFolder, catalogue: Path | None) -> Iterator[tuple[DiskBlobStore, Catalogue]]:
    blobs = DiskBlobStore(folder)
    try:
        rows = Catalogue(catalogue or folder.catalogue_file, durable=True)
        try:
            yield blobs, rows
        finally:
            rows.close()
    finally:
        blobs.close()
