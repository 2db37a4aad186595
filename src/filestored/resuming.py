"""Uploads that go on where they broke off: begun, continued by one writer at a time, finished as files (tus 1.0.0).

::

    begin ── a row ──► resume ── bytes, flushed, then noted in the row ──► finish ── published, recorded, noted at once
                          ▲                     │
                          └───── broken off ────┘        end: given up, or nobody came back in time

Together with :mod:`filestored.filestore` the only place where bytes and records meet. An upload's offset is noted after
its bytes are flushed. For all but parts and the empty it is the length only where the file is stored.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from filestored.access import Permission, Principal
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import UploadRecord, now_milliseconds
from filestored.changes import BeginUpload, EndUpload, over_quota
from filestored.cluster.daemons import Daemons
from filestored.committer import Committer
from filestored.continuation import Continuation, UploadArea
from filestored.digest import Digest
from filestored.errors import Busy, Conflict, Locked, NotFound, RequestError
from filestored.shared import Shared
from filestored.staging import Staging
from filestored.unfinished import COPY_SUFFIX, UnfinishedFile, UnfinishedFolder

_ID_BYTES = 16
_ENDED_AT_ONCE = 100
# a client that goes on elsewhere comes before the end of its old connection has been noticed
_PATIENCE_SECONDS = 1.0
_LOOKED_AGAIN_AFTER_SECONDS = 0.04
_SETTLED_SECONDS = 1.0


class ResumableUploads:
    """The uploads under way. One a process; all processes of a daemon see the same."""

    def __init__(
        self, path: Path, staging: Staging, catalogue: Catalogue, committer: Committer, shared: Shared,
        threads: Executor, *, life_seconds: float, daemons: Daemons | None = None,
    ) -> None:  # fmt: skip
        """``path`` is the folder for their bytes; ``life_seconds`` how long one may rest before it is given up.

        ``daemons`` is this daemon in a cluster, where others have uploads of their own.
        """
        self._daemons = daemons
        self._daemon = daemons.own if daemons else None
        self.area = UploadArea(path, staging, catalogue, committer, shared, threads, life_seconds=life_seconds)

    def close(self) -> None:
        """Let go of the folder."""
        self.area.folder.close()

    async def begin(self, principal: Principal, length: int | None, details: str, concat: str | None) -> UploadRecord:
        """Begin an upload of ``length`` bytes, None where that is not known yet. Durable when it returns.

        ``details`` and ``concat`` are kept as the client sent them. Raises TooLarge where the quota has no room, Busy.
        """
        principal.require(Permission.WRITE)
        upload = self.new(principal.owner, length, details, concat)
        room = await self.room(principal, upload)
        if room is not None and length is not None and length > room:
            assert principal.quota is not None
            raise over_quota(principal.quota, principal.quota - room, length)
        await self.area.committer.submit(BeginUpload(upload))
        return upload

    def new(self, owner: str, length: int | None, details: str, concat: str | None) -> UploadRecord:
        """Return the record of a new upload, which is nowhere yet."""
        upload_id = secrets.token_hex(_ID_BYTES)
        now = now_milliseconds()
        ends = self.area.end_of_life()
        return UploadRecord(upload_id, owner, details, concat, length, 0, None, None, now, ends, self._daemon)

    async def find(self, principal: Principal, upload_id: str) -> UploadRecord:
        """Return the caller's upload as it is now. Raises NotFound, also where it is another's or its time is over."""
        principal.require(Permission.WRITE)
        return await self.area.in_thread(self._find, principal.owner, upload_id)

    def _find(self, owner: str, upload_id: str) -> UploadRecord:
        upload, now = self.area.catalogue.find_upload(upload_id), now_milliseconds()
        if upload is None or upload.owner != owner or upload.expires_at <= now:
            raise NotFound("There is no such upload: it was ended, its time is over, or it never was. Begin a new one.")
        if upload.digest is not None and not self._is_kept(owner, upload.digest, now):
            raise NotFound("The file that came of this upload is not kept any more.")
        return upload

    def _is_kept(self, owner: str, digest: Digest, now: int) -> bool:
        return any(file.owner == owner and file.is_live(now) for file in self.area.catalogue.find(digest))

    async def find_settled(self, principal: Principal, upload_id: str) -> UploadRecord:
        """Return the caller's upload once nobody writes to it, or as it is after a second. Raises NotFound.

        Who asks how far it has come is about to go on with it, and may have dropped the old connection just now.
        """
        upload = await self.find(principal, upload_id)
        deadline = time.monotonic() + _SETTLED_SECONDS
        while not upload.is_complete and await self.area.in_thread(self.area.folder.is_taken, upload_id):
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(_LOOKED_AGAIN_AFTER_SECONDS)
        upload = await self.find(principal, upload_id)
        if not upload.is_over and not await self.area.in_thread(self.area.folder.has, upload_id, upload.flushed):
            upload = await self.find(principal, upload_id)
            if not upload.is_over:
                raise await self.lost(upload)
        return upload

    def is_elsewhere(self, upload: UploadRecord) -> bool:
        """Tell whether the bytes of an upload, which are in no file yet, lie with another daemon."""
        return not upload.is_over and upload.daemon not in (None, self._daemon)

    async def room(self, principal: Principal, upload: UploadRecord) -> int | None:
        """Return how many more bytes of an upload the caller's quota allows; None where there is no quota."""
        if principal.quota is None:
            return None
        return await self.area.in_thread(self._room, principal.owner, principal.quota, upload)

    def _room(self, owner: str, quota: int, upload: UploadRecord) -> int:
        _, under_way = self.area.catalogue.uploads_under_way(owner)
        return max(quota - self.kept(owner, upload) - under_way, 0)

    def kept(self, owner: str, upload: UploadRecord) -> int:
        """Return how many bytes an owner keeps; none where the upload may be of a file that it keeps already."""
        if upload.length is not None and self.area.catalogue.has_size(owner, upload.length):
            return 0
        return self.area.catalogue.bytes_of(owner, now_milliseconds())

    def under_way(self) -> tuple[int, int]:
        """Return how many uploads are not complete, and how many bytes of them are there. Blocks."""
        return self.area.catalogue.uploads_under_way(None)

    async def resume(
        self, principal: Principal, upload_id: str, offset: int, expected: Digest | None
    ) -> "Continuation":
        """Take an upload to go on with it: an ``async with`` block, the only one that writes to it.

        ``expected`` is the hash that the whole must have. Raises NotFound, Locked where another writes to it and is
        alive, Conflict where the offset is another.
        """
        known = await self.find(principal, upload_id)
        file = await self.take(known)
        try:
            # as it is now that nobody else changes it any more
            upload = await self._find_still(principal, upload_id)
            if upload.is_over:
                # it was completed this moment, and the file just taken is a new one
                await self.area.in_thread(self.area.folder.remove, upload.id)
                raise await self.lost(upload)
            require_offset(upload, offset)
            if not await self.area.in_thread(file.cut, offset):
                raise await self.lost(upload)
        except BaseException:
            file.close()
            raise
        return Continuation(self.area, upload, file, expected, principal.quota)

    async def _find_still(self, principal: Principal, upload_id: str) -> UploadRecord:
        """Return an upload whose bytes were just taken; where it was ended meanwhile they are a new, empty file."""
        try:
            return await self.find(principal, upload_id)
        except NotFound:
            await self.area.in_thread(self.area.folder.remove, upload_id)
            raise

    async def take(self, upload: UploadRecord) -> UnfinishedFile:
        """Return the bytes of an upload, to be closed by the caller. Raises Locked, Conflict, NotFound, Busy."""
        if self.is_elsewhere(upload):
            raise _elsewhere()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        take = partial(self.area.folder.take, upload.id, is_new=not upload.flushed)
        while True:
            try:
                file = await self.area.in_thread(take)
            except FileNotFoundError:
                # it may have been finished, or ended, this moment
                raise await self.lost(await self._reread(upload)) from None
            if file is not None:
                return file
            self.area.shared.want(upload.id)
            if time.monotonic() >= deadline:
                raise Locked("Another request is writing to this upload; wait until it has ended.")
            await asyncio.sleep(_LOOKED_AGAIN_AFTER_SECONDS)

    async def _reread(self, upload: UploadRecord) -> UploadRecord:
        return await self.area.in_thread(self._find, upload.owner, upload.id)

    async def lost(self, upload: UploadRecord) -> RequestError:
        """Return what whoever wants the bytes of an upload is told, which are not there."""
        if upload.is_over:
            return Conflict("The upload was completed meanwhile; ask with HEAD what came of it.")
        if self.is_elsewhere(upload):
            return _elsewhere()
        if self._daemons is not None and await self._daemons.is_contested():
            # the bytes may be there with the other
            logger.error("upload {} is not here; another daemon has this one's id", upload.id)
            return _elsewhere()
        logger.error("upload {} has fewer bytes than were flushed: it is ended", upload.id)
        await self.area.forget(upload.id)
        return NotFound("The bytes of this upload are lost. Begin a new one.")

    async def end(self, principal: Principal, upload_id: str) -> None:
        """Give an upload up; a file that came of it stays. Raises NotFound, Locked where somebody writes to it."""
        upload = await self.find(principal, upload_id)
        file = None
        if not upload.is_over:
            # where it is completed this moment there is nothing to take any more
            with contextlib.suppress(Conflict):
                file = await self.take(upload)
        try:
            await self.area.forget(upload_id)
        finally:
            if file is not None:
                file.close()

    async def give_up(self, upload: UploadRecord) -> None:
        """End an upload whose client has not been told of it. Does what it can: its time ends in any case."""
        with contextlib.suppress(RequestError):
            await self.area.forget(upload.id)

    async def end_expired(self) -> int:
        """Give up the uploads that nobody has gone on with in time, some at most; return how many."""
        area = self.area
        ended, _ = await end_expired(area.catalogue, area.committer, area.folder, area.in_thread, self._daemon)
        return ended

    async def end_lost(self, silent_seconds: float) -> int:
        """Give up uploads that have ended with daemons not heard of for so long, some at most; return how many."""
        area, count = self.area, 0
        silent = int(silent_seconds * 1000)
        for upload in await area.in_thread(area.catalogue.lost_uploads, silent, now_milliseconds(), _ENDED_AT_ONCE):
            count += await area.committer.submit(EndUpload(upload.id, only_if_expired=True))
        return count

    async def clear_over(self) -> int:
        """Remove the bytes of uploads that others have ended, or joined; return how many uploads."""
        return await asyncio.to_thread(_clear_over, self.area.folder, self.area.catalogue)


def clear_unfinished(folder: UnfinishedFolder, catalogue: Catalogue) -> tuple[int, int]:
    """Remove the bytes that no upload under way needs; return how many files and bytes. Blocks. Raises OSError.

    Of those that are needed, what lies behind the offset goes too, where nobody writes to them.
    """
    count = size = 0
    for name in folder.names():
        upload = catalogue.find_upload(name)
        # who copies has the original locked meanwhile
        is_copied = name.endswith(COPY_SUFFIX) and folder.is_taken(name.removesuffix(COPY_SUFFIX))
        if not is_copied and (upload is None or upload.is_over):
            count, size = count + 1, size + folder.remove(name)
        elif upload is not None:
            folder.cut_rest(upload.id, partial(_flushed, catalogue))
    return count, size


def _flushed(catalogue: Catalogue, upload_id: str) -> int:
    upload = catalogue.find_upload(upload_id)
    return 0 if upload is None else upload.flushed


def _elsewhere() -> Busy:
    return Busy("The bytes of this upload lie on another machine, which cannot be asked at the moment; try again.")


def _clear_over(folder: UnfinishedFolder, catalogue: Catalogue) -> int:
    count = 0
    for name in folder.names():
        if name.endswith(COPY_SUFFIX) or folder.is_taken(name):
            continue
        upload = catalogue.find_upload(name)
        if upload is None or upload.is_over:
            folder.remove(name)
            count += 1
    return count


async def end_expired(
    catalogue: Catalogue, committer: Committer, folder: UnfinishedFolder, run: Callable[..., Awaitable[Any]],
    daemon: str | None = None,
) -> tuple[int, int]:  # fmt: skip
    """Give up uploads whose time is over, some at most; return how many, and how many bytes they had.

    ``run`` runs what blocks; ``daemon`` is the id of this one in a cluster: it ends its own.
    """
    count = size = 0
    ended = catalogue.ended_uploads if daemon is None else partial(catalogue.ended_uploads_of, daemon)
    for upload in await run(ended, now_milliseconds(), _ENDED_AT_ONCE):
        # who still writes to it will note that, and so give it more time
        is_taken = await run(folder.is_taken, upload.id)
        if not is_taken and await committer.submit(EndUpload(upload.id, only_if_expired=True)):
            count, size = count + 1, size + await run(folder.remove, upload.id)
    return count, size


def require_offset(upload: UploadRecord, offset: int) -> None:
    """Raise Conflict, which says the right one, unless an upload goes on from an offset."""
    if offset != upload.flushed:
        raise Conflict(
            f"Upload-Offset is {offset}, but {upload.flushed} bytes are there; go on from those.",
            headers=((b"upload-offset", b"%d" % upload.flushed),),
        )
