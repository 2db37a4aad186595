"""Care of a store beside its requests: ending files whose time has come, and clearing away what is left behind.

:class:`Upkeep` does so in a running daemon, :func:`collect` and :func:`clear_staging` when somebody asks (``gc``).
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from loguru import logger

from filestored.blobs.disk import DiskBlobStore
from filestored.blobs.layout import StoreFolder, is_regular
from filestored.catalogue.catalogue import Catalogue
from filestored.changes import EndFiles
from filestored.committer import Committer, settle_removals
from filestored.digest import Digest
from filestored.errors import FilestoredError
from filestored.filestore import Filestore
from filestored.metrics import EXPIRED_FILES
from filestored.resuming import clear_unfinished, end_expired
from filestored.shared import Shared
from filestored.staging import Staging
from filestored.unfinished import UnfinishedFolder

STALE_SECONDS = 86400.0
"""How long nothing is written to a temporary file before it belongs to no upload: bodies time out much earlier."""

_EVERY_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0


class Upkeep:
    """Ends expired files in a running daemon, in one worker of all; where that dies, another goes on."""

    def __init__(self, filestore: Filestore) -> None:
        self._filestore = filestore
        self._task: asyncio.Task[None] | None = None
        self._pause = _EVERY_SECONDS
        self._failures: set[type[Exception]] = set()

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End. Call it before the filestore is closed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                if self._filestore.shared.lead():
                    await self._end_expired()
                    await self._end_uploads()
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
        while more := await self._filestore.uploads.end_expired():
            ended += more
        if ended:
            logger.info("unfinished uploads that nobody went on with: {}", ended)

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


class _FreeingBlobStore(DiskBlobStore):
    """A blob store that counts what is removed from it."""

    def __init__(self, folder: StoreFolder, removed: Callable[[Digest], None]) -> None:
        """``removed`` is called for each blob."""
        super().__init__(folder)
        self.freed = Removed(0, 0)
        self._removed = removed

    def remove(self, digest: Digest) -> bool:
        """See BlobStore."""
        blob = self.stat(digest)
        is_removed = super().remove(digest)
        if is_removed and blob is not None:
            self.freed = Removed(self.freed.count + 1, self.freed.bytes + blob.size)
            self._removed(digest)
        return is_removed


def collect(folder: StoreFolder, catalogue: Catalogue) -> Collected:
    """End what has expired and carry out removals left undone, beside a daemon or without one. Durable when it returns.

    A blob that no file has named is never removed. Raises FilestoredError, OSError.
    """
    shared = Shared(folder.shared_file)
    blobs = _FreeingBlobStore(folder, shared.renew)
    try:
        stuck = settle_removals(catalogue, blobs, flush=True)
        files, uploads = asyncio.run(_end_all(folder, blobs, catalogue, shared))
        shared.counters[EXPIRED_FILES] += files
        return Collected(files, blobs.freed, uploads, len(stuck))
    finally:
        blobs.close()
        shared.close()


async def _end_all(
    folder: StoreFolder, blobs: DiskBlobStore, catalogue: Catalogue, shared: Shared
) -> tuple[int, Removed]:
    committer = Committer(blobs, catalogue, durable=True, changed=shared.renew, reserve=folder.reserve_file)
    staging = Staging(blobs.staging, folder.algorithm, ThreadPoolExecutor(1), durable=True)
    files = 0
    try:
        while ended := await committer.submit(EndFiles()):
            files += ended
        with contextlib.closing(UnfinishedFolder(folder.uploads, staging)) as unfinished:
            return files, await _end_uploads(committer, catalogue, unfinished)
    finally:
        # while the loop is there: the committer answers through it
        committer.close()


async def _end_uploads(committer: Committer, catalogue: Catalogue, unfinished: UnfinishedFolder) -> Removed:
    count = size = 0
    ended = 1
    while ended:
        ended, freed = await end_expired(catalogue, committer, unfinished, asyncio.to_thread)
        count, size = count + ended, size + freed
    more, more_size = clear_unfinished(unfinished, catalogue)
    return Removed(count + more, size + more_size)


def clear_staging(folder: StoreFolder, min_age: float) -> Removed:
    """Remove temporary files to which nothing was written for ``min_age`` seconds. Raises OSError.

    With 0 all of them: only while no daemon runs.
    """
    count = size = 0
    written_before = time.time() - min_age if min_age else float("inf")
    with contextlib.closing(DiskBlobStore(folder)) as blobs, os.scandir(blobs.staging) as entries:
        for entry in entries:
            # an upload may end, and take its file with it, at any moment
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if is_regular(status) and status.st_mtime <= written_before:
                    os.unlink(entry.name, dir_fd=blobs.staging)
                    count, size = count + 1, size + status.st_size
    return Removed(count, size)
