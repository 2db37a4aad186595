"""Uploads that go on where they broke off: begun, continued by one writer at a time, finished as files (tus 1.0.0).

::

    begin ── a row ──► resume ── bytes, flushed, then noted in the row ──► finish ── published, recorded, noted at once
                          ▲                     │
                          └───── broken off ────┘        end: given up, or nobody came back in time

Together with :mod:`filestored.filestore` the only place where bytes and records meet. An upload's offset is noted after
its bytes are flushed, and is its length only where it is complete: for all but parts that is one with publishing it.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

from filestored.access import Permission, Principal
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import UploadRecord, Wish, now_milliseconds
from filestored.changes import BeginUpload, EndUpload, FinishUpload, over_quota
from filestored.committer import Committer
from filestored.continuation import ANNOUNCED_BY, READ_BYTES, Continuation, UploadArea, hash_names
from filestored.digest import Digest
from filestored.errors import BadRequest, Conflict, Locked, NotFound
from filestored.shared import Shared
from filestored.staging import Staged, Staging
from filestored.unfinished import UnfinishedFile, UnfinishedFolder

MAX_PARTS = 1000
"""How many parts one upload may be joined from."""

_ID_BYTES = 16
_ENDED_AT_ONCE = 100
# a client that goes on elsewhere comes before the end of its old connection has been noticed
_PATIENCE_SECONDS = 1.0
_LOOKED_AGAIN_AFTER_SECONDS = 0.04
_SETTLED_SECONDS = 0.5


class ResumableUploads:
    """The uploads under way. One a process; all processes of a daemon see the same."""

    def __init__(
        self, path: Path, staging: Staging, catalogue: Catalogue, committer: Committer, shared: Shared,
        threads: Executor, *, life_seconds: float,
    ) -> None:  # fmt: skip
        """``path`` is the folder for their bytes; ``life_seconds`` how long one may rest before it is given up."""
        self._area = UploadArea(path, staging, catalogue, committer, shared, threads, life_seconds=life_seconds)

    def close(self) -> None:
        """Let go of the folder."""
        self._area.folder.close()

    async def begin(self, principal: Principal, length: int | None, details: str, concat: str | None) -> UploadRecord:
        """Begin an upload of ``length`` bytes, None where that is not known yet. Durable when it returns.

        ``details`` and ``concat`` are kept as the client sent them. Raises TooLarge where the quota has no room, Busy.
        """
        principal.require(Permission.WRITE)
        upload = self._new(principal.owner, length, details, concat)
        room = await self.room(principal, upload)
        if room is not None and length is not None and length > room:
            assert principal.quota is not None
            raise over_quota(principal.quota, principal.quota - room, length)
        await self._area.committer.submit(BeginUpload(upload))
        return upload

    def _new(self, owner: str, length: int | None, details: str, concat: str | None) -> UploadRecord:
        upload_id = secrets.token_hex(_ID_BYTES)
        now = now_milliseconds()
        return UploadRecord(upload_id, owner, details, concat, length, 0, None, None, now, self._area.end_of_life())

    async def find(self, principal: Principal, upload_id: str) -> UploadRecord:
        """Return the caller's upload as it is now. Raises NotFound, also where it is another's or its time is over."""
        principal.require(Permission.WRITE)
        return await self._area.in_thread(self._find, principal.owner, upload_id)

    def _find(self, owner: str, upload_id: str) -> UploadRecord:
        upload = self._area.catalogue.find_upload(upload_id)
        if upload is None or upload.owner != owner or upload.expires_at <= now_milliseconds():
            raise NotFound("There is no such upload: it was ended, its time is over, or it never was. Begin a new one.")
        return upload

    async def find_settled(self, principal: Principal, upload_id: str) -> UploadRecord:
        """Return the caller's upload once nobody writes to it, or as it is after half a second. Raises NotFound.

        Who asks how far it has come is about to go on with it, and may have dropped the old connection just now.
        """
        upload = await self.find(principal, upload_id)
        deadline = time.monotonic() + _SETTLED_SECONDS
        while not upload.is_complete and await self._area.in_thread(self._area.folder.is_taken, upload_id):
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(_LOOKED_AGAIN_AFTER_SECONDS)
        return await self.find(principal, upload_id)

    async def room(self, principal: Principal, upload: UploadRecord) -> int | None:
        """Return how many more bytes of an upload the caller's quota allows; None where there is no quota."""
        if principal.quota is None:
            return None
        return await self._area.in_thread(self._room, principal.owner, principal.quota, upload)

    def _room(self, owner: str, quota: int, upload: UploadRecord) -> int:
        _, under_way = self._area.catalogue.uploads_under_way(owner)
        is_perhaps_kept = upload.length is not None and self._area.catalogue.has_size(owner, upload.length)
        kept = 0 if is_perhaps_kept else self._area.catalogue.bytes_of(owner, now_milliseconds())
        return max(quota - kept - under_way, 0)

    def under_way(self) -> tuple[int, int]:
        """Return how many uploads are not complete, and how many bytes of them are there. Blocks."""
        return self._area.catalogue.uploads_under_way(None)

    async def resume(
        self, principal: Principal, upload_id: str, offset: int, expected: Digest | None
    ) -> "Continuation":
        """Take an upload to go on with it: an ``async with`` block, the only one that writes to it.

        ``expected`` is the hash that the whole must have. Raises NotFound, Locked where another writes to it and is
        alive, Conflict where the offset is another.
        """
        await self.find(principal, upload_id)
        file = await self._take(upload_id)
        try:
            # as it is now that nobody else changes it any more
            upload = await self.find(principal, upload_id)
            require_offset(upload, offset)
            if not await self._area.in_thread(file.cut, offset):
                logger.error("upload {} has fewer bytes than were flushed: it is ended", upload_id)
                await self._area.forget(upload_id)
                raise NotFound("The bytes of this upload are lost. Begin a new one.")
        except BaseException:
            file.close()
            raise
        return Continuation(self._area, upload, file, expected, principal.quota)

    async def _take(self, upload_id: str) -> UnfinishedFile:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            file = await self._area.in_thread(self._area.folder.take, upload_id)
            if file is not None:
                return file
            self._area.shared.want(upload_id)
            if time.monotonic() >= deadline:
                raise Locked("Another request is writing to this upload; wait until it has ended.")
            await asyncio.sleep(_LOOKED_AGAIN_AFTER_SECONDS)

    async def end(self, principal: Principal, upload_id: str) -> None:
        """Give an upload up; a file that came of it stays. Raises NotFound, Locked where somebody writes to it."""
        upload = await self.find(principal, upload_id)
        if upload.digest is not None or upload.joined_as is not None:
            await self._area.forget(upload_id)
            return
        file = await self._take(upload_id)
        try:
            await self._area.forget(upload_id)
        finally:
            file.close()

    async def join(
        self, principal: Principal, parts: Sequence[str], wanted: "Joined", admit: Callable[[int], None]
    ) -> UploadRecord:
        """Make one file of the caller's parts, in their order; they are over then. Durable when it returns.

        ``admit`` is asked whether so many bytes may be stored, before any are. The same parts joined once more give the
        same upload: the answer may have been lost. Raises NotFound, BadRequest where one is no part or not whole,
        DigestMismatch, TooLarge, OutOfSpace.
        """
        found = [await self.find(principal, part) for part in parts]
        joined = {part.joined_as for part in found}
        if len(joined) == 1 and (known := joined.pop()) is not None:
            earlier = await self.find(principal, known)
            if earlier.concat == wanted.concat:
                return earlier
        for part in found:
            _require_joinable(part)
        length = sum(part.flushed for part in found)
        admit(length)
        with await self._copy(found, wanted.expected) as staged:
            if wanted.expected is not None:
                staged.require(ANNOUNCED_BY, wanted.expected)
            staged.hand_over()
        upload = self._new(principal.owner, length, wanted.details, wanted.concat)
        upload = replace(upload, flushed=length, digest=staged.digest)
        once = list({part.id: part for part in found}.values())
        await self._area.committer.submit(FinishUpload(upload, (staged, wanted.wish), principal.quota, once))
        for part in once:
            await self._area.in_thread(self._area.folder.remove, part.id)
        return upload

    async def _copy(self, parts: list[UploadRecord], expected: Digest | None) -> Staged:
        own = self._area.staging.algorithm
        async with self._area.staging.receive(tuple(hash_names(own, expected) - {own.value})) as receiver:
            for part in parts:
                async for piece in self._pieces(part):
                    await receiver.write(piece)
            return await receiver.finish()

    async def _pieces(self, part: UploadRecord) -> AsyncIterator[bytes]:
        descriptor = await self._area.in_thread(self._area.folder.open_whole, part.id)
        position = 0
        try:
            while descriptor is not None and position < part.flushed:
                piece = await self._area.in_thread(
                    os.pread, descriptor, min(READ_BYTES, part.flushed - position), position
                )
                if not piece:
                    break
                position += len(piece)
                yield piece
        finally:
            if descriptor is not None:
                os.close(descriptor)
        if position < part.flushed:
            raise NotFound(f"The part {part.id} is not there any more. Send its bytes again.")

    async def end_expired(self) -> int:
        """Give up the uploads that nobody has gone on with in time, some at most; return how many."""
        area = self._area
        ended, _ = await end_expired(area.catalogue, area.committer, area.folder, area.in_thread)
        return ended


class Joined(NamedTuple):
    """What is to come of parts: ``Upload-Metadata`` and ``Upload-Concat`` as sent, what these say, the hash wanted."""

    details: str
    concat: str
    wish: Wish
    expected: Digest | None


def clear_unfinished(folder: UnfinishedFolder, catalogue: Catalogue) -> tuple[int, int]:
    """Remove the bytes that no upload under way needs; return how many files and bytes. Blocks. Raises OSError."""
    count = size = 0
    for name in folder.names():
        upload = catalogue.find_upload(name)
        if upload is None or upload.digest is not None or upload.joined_as is not None:
            count, size = count + 1, size + folder.remove(name)
    return count, size


async def end_expired(
    catalogue: Catalogue, committer: Committer, folder: UnfinishedFolder, run: Callable[..., Awaitable[Any]]
) -> tuple[int, int]:
    """Give up uploads whose time is over, some at most; return how many, and how many bytes they had.

    ``run`` runs what blocks.
    """
    count = size = 0
    for upload in await run(catalogue.ended_uploads, now_milliseconds(), _ENDED_AT_ONCE):
        # who still writes to it will note that, and so give it more time
        if not await run(folder.is_taken, upload.id):
            await committer.submit(EndUpload(upload.id))
            count, size = count + 1, size + await run(folder.remove, upload.id)
    return count, size


def require_offset(upload: UploadRecord, offset: int) -> None:
    """Raise Conflict, which says the right one, unless an upload goes on from an offset."""
    if offset != upload.flushed:
        raise Conflict(
            f"Upload-Offset is {offset}, but {upload.flushed} bytes are there; go on from those.",
            headers=((b"upload-offset", b"%d" % upload.flushed),),
        )


def _require_joinable(part: UploadRecord) -> None:
    if not part.is_part:
        raise BadRequest(f"The upload {part.id} is no part: begin parts with Upload-Concat: partial.")
    if part.joined_as is not None:
        raise BadRequest(f"The part {part.id} was joined to others already.")
    if not part.is_whole:
        raise BadRequest(f"The part {part.id} is not complete: {part.flushed} bytes of it are there.")
