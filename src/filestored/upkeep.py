"""Care of a store beside its requests: ending files whose time has come, and clearing away what is left behind.

:class:`Upkeep` does so in a running daemon, :func:`collect` and :func:`clear_staging` when somebody asks (``gc``).
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from loguru import logger

from filestored.blobs.layout import StoreFolder, is_regular
from filestored.blobs.opening import open_blobs
from filestored.blobs.store import BlobStore, Permit
from filestored.cancelling import cancel
from filestored.catalogue.catalogue import Catalogue
from filestored.changes import EndFiles
from filestored.cluster.daemons import LOST_SECONDS
from filestored.committer import Committer
from filestored.digest import Digest
from filestored.errors import FilestoredError
from filestored.filestore import Filestore
from filestored.metrics import EXPIRED_FILES
from filestored.removals import settle_removals
from filestored.resuming import clear_unfinished, end_expired
from filestored.shared import Shared
from filestored.staging import Staging
from filestored.unfinished import UnfinishedFolder

STALE_SECONDS = 86400.0
"""How long nothing is written to a temporary file before it belongs to no upload: bodies time out much earlier."""

_EVERY_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0
_CLEARED_EVERY_SECONDS = 30.0


class Upkeep:
    """Ends expired files in a running daemon, in one worker of all; where that dies, another goes on."""

    def __init__(self, filestore: Filestore) -> None:
        self._filestore = filestore
        self._task: asyncio.Task[None] | None = None
        self._pause = _EVERY_SECONDS
        self._cleared_at = float("-inf")
        self._failures: set[type[Exception]] = set()

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End. Call it before the filestore is closed."""
        if self._task is not None:
            await cancel(self._task)

    async def _run(self) -> None:
        while True:
            try:
                if self._filestore.shared.lead():
                    await self._end_uploads()
                    # of several daemons one ends files for all
                    daemons = self._filestore.daemons
                    if daemons is None or daemons.lease.is_held:
                        await self._end_expired()
                    await self._filestore.resume_removals()
                self._pause = _EVERY_SECONDS
                self._failures.clear()
            except Exception as error:
                # whatever fails now may work later, and nobody else would end files meanwhile
                self._note_failure(error)
            await asyncio.sleep(self._pause)

    async def _end_expired(self) -> None:
        ended = 0
        try:
            while more := await self._filestore.end_expired():
                ended += more
                if more < EndFiles.most:
                    break
        finally:
            if ended:
                logger.info("expired files that were ended: {}", ended)

    async def _end_uploads(self) -> None:
        ended = 0
        uploads, daemons = self._filestore.uploads, self._filestore.daemons
        while more := await uploads.end_expired():
            ended += more
        if daemons is not None:
            while daemons.lease.is_held and (more := await uploads.end_lost(LOST_SECONDS)):
                ended += more
            await self._clear_over()
        if ended:
            logger.info("unfinished uploads that nobody went on with: {}", ended)

    async def _clear_over(self) -> None:
        """Remove now and then the bytes of uploads that other daemons have ended, or joined to theirs."""
        now = time.monotonic()
        if now - self._cleared_at >= _CLEARED_EVERY_SECONDS:
            self._cleared_at = now
            await self._filestore.uploads.clear_over()

    def _note_failure(self, error: Exception) -> None:
        """Say once what fails, until it works again, and try less and less often: each try may log more."""
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        if type(error) not in self._failures:
            self._failures.add(type(error))
            reason = str(error) if isinstance(error, FilestoredError | OSError) else f"{type(error).__name__}: {error}"
            logger.error("what has expired cannot be ended, which is tried again: {}", reason)


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed: how many of them, and their bytes."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What :func:`collect` did: files and uploads ended, blobs removed, and blobs that the system does not let go."""

    files: int
    blobs: Removed
    uploads: Removed
    stuck: int


class _Freeing:
    """A blob store that counts what is removed from it; else it does what the other does."""

    def __init__(self, blobs: BlobStore, removed: Callable[[Digest], None]) -> None:
        """``removed`` is called for each blob, in any thread."""
        self.freed = Removed(0, 0)
        self._blobs = blobs
        self._removed = removed
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def remove(self, digest: Digest, permit: Permit | None = None) -> bool:
        """See BlobStore."""
        blob = self._blobs.stat(digest)
        is_removed = self._blobs.remove(digest, permit)
        if is_removed and blob is not None:
            with self._lock:
                self.freed = Removed(self.freed.count + 1, self.freed.bytes + blob.size)
            self._removed(digest)
        return is_removed


def collect(folder: StoreFolder, catalogue: Catalogue) -> Collected:
    """End what has expired and carry out removals left undone, beside a daemon or without one. Durable when it returns.

    A blob that no file has named is never removed. Raises FilestoredError, OSError.
    """
    shared = Shared(folder.shared_file)
    counting = _Freeing(open_blobs(folder), shared.renew)
    blobs = cast(BlobStore, counting)
    try:
        stuck = settle_removals(catalogue, blobs, flush=True, is_patient=True)
        files, uploads = asyncio.run(_end_all(folder, blobs, catalogue, shared))
        shared.counters[EXPIRED_FILES] += files
        return Collected(files, counting.freed, uploads, len(stuck))
    finally:
        blobs.close()
        shared.close()


async def _end_all(folder: StoreFolder, blobs: BlobStore, catalogue: Catalogue, shared: Shared) -> tuple[int, Removed]:
    committer = Committer(blobs, catalogue, durable=True, changed=shared.renew, reserve=folder.reserve_file)
    staging = Staging(blobs.staging, folder.algorithm, ThreadPoolExecutor(1), durable=True)
    files = 0
    try:
        while ended := await committer.submit(EndFiles()):
            files += ended
        with contextlib.closing(UnfinishedFolder(folder.uploads, staging)) as unfinished:
            # of several daemons each has its own
            daemon = folder.identity() if catalogue.is_shared else None
            return files, await _end_uploads(committer, catalogue, unfinished, daemon)
    finally:
        # while the loop is there: the committer answers through it
        committer.close()


async def _end_uploads(
    committer: Committer, catalogue: Catalogue, unfinished: UnfinishedFolder, daemon: str | None
) -> Removed:
    count = size = 0
    ended = 1
    while ended:
        ended, freed = await end_expired(catalogue, committer, unfinished, asyncio.to_thread, daemon)
        count, size = count + ended, size + freed
    more, more_size = clear_unfinished(unfinished, catalogue)
    return Removed(count + more, size + more_size)


def clear_staging(folder: StoreFolder, min_age: float) -> Removed:
    """Remove temporary files to which nothing was written for ``min_age`` seconds. Raises OSError.

    With 0 all of them: only while no daemon runs.
    """
    count = size = 0
    written_before = time.time() - min_age if min_age else float("inf")
    with contextlib.closing(open_blobs(folder)) as blobs, os.scandir(blobs.staging) as entries:
        for entry in entries:
            # an upload may end, and take its file with it, at any moment
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if is_regular(status) and status.st_mtime <= written_before:
                    os.unlink(entry.name, dir_fd=blobs.staging)
                    count, size = count + 1, size + status.st_size
    return Removed(count, size)
