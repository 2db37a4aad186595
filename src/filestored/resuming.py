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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
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
from filestored.errors import BadRequest, Conflict, Locked, NotFound, RequestError, TooLarge
from filestored.shared import Shared
from filestored.staging import Staged, Staging
from filestored.unfinished import COPY_SUFFIX, UnfinishedFile, UnfinishedFolder

MAX_PARTS = 500
"""How many parts one upload may be joined from."""

_ID_BYTES = 16
_ROOM_CHECKED_EVERY = 16 << 20
_ENDED_AT_ONCE = 100
# a client that goes on elsewhere comes before the end of its old connection has been noticed
_PATIENCE_SECONDS = 1.0
_LOOKED_AGAIN_AFTER_SECONDS = 0.04
_SETTLED_SECONDS = 1.0


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
        upload, now = self._area.catalogue.find_upload(upload_id), now_milliseconds()
        if upload is None or upload.owner != owner or upload.expires_at <= now:
            raise NotFound("There is no such upload: it was ended, its time is over, or it never was. Begin a new one.")
        if upload.digest is not None and not self._is_kept(owner, upload.digest, now):
            raise NotFound("The file that came of this upload is not kept any more.")
        return upload

    def _is_kept(self, owner: str, digest: Digest, now: int) -> bool:
        return any(file.owner == owner and file.is_live(now) for file in self._area.catalogue.find(digest))

    async def find_settled(self, principal: Principal, upload_id: str) -> UploadRecord:
        """Return the caller's upload once nobody writes to it, or as it is after a second. Raises NotFound.

        Who asks how far it has come is about to go on with it, and may have dropped the old connection just now.
        """
        upload = await self.find(principal, upload_id)
        deadline = time.monotonic() + _SETTLED_SECONDS
        while not upload.is_complete and await self._area.in_thread(self._area.folder.is_taken, upload_id):
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(_LOOKED_AGAIN_AFTER_SECONDS)
        upload = await self.find(principal, upload_id)
        if not upload.is_over and not await self._area.in_thread(self._area.folder.has, upload_id, upload.flushed):
            upload = await self.find(principal, upload_id)
            if not upload.is_over:
                raise await self._lost(upload)
        return upload

    async def room(self, principal: Principal, upload: UploadRecord) -> int | None:
        """Return how many more bytes of an upload the caller's quota allows; None where there is no quota."""
        if principal.quota is None:
            return None
        return await self._area.in_thread(self._room, principal.owner, principal.quota, upload)

    def _room(self, owner: str, quota: int, upload: UploadRecord) -> int:
        _, under_way = self._area.catalogue.uploads_under_way(owner)
        return max(quota - self._kept(owner, upload) - under_way, 0)

    def _kept(self, owner: str, upload: UploadRecord) -> int:
        """Return how many bytes an owner keeps; none where the upload may be of a file that it keeps already."""
        if upload.length is not None and self._area.catalogue.has_size(owner, upload.length):
            return 0
        return self._area.catalogue.bytes_of(owner, now_milliseconds())

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
        known = await self.find(principal, upload_id)
        file = await self._take(known)
        try:
            # as it is now that nobody else changes it any more
            upload = await self.find(principal, upload_id)
            if upload.is_over:
                # it was completed this moment, and the file just taken is a new one
                await self._area.in_thread(self._area.folder.remove, upload.id)
                raise await self._lost(upload)
            require_offset(upload, offset)
            if not await self._area.in_thread(file.cut, offset):
                raise await self._lost(upload)
        except BaseException:
            file.close()
            raise
        return Continuation(self._area, upload, file, expected, principal.quota)

    async def _take(self, upload: UploadRecord) -> UnfinishedFile:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        take = partial(self._area.folder.take, upload.id, is_new=not upload.flushed)
        while True:
            try:
                file = await self._area.in_thread(take)
            except FileNotFoundError:
                # it may have been finished, or ended, this moment
                raise await self._lost(await self._reread(upload)) from None
            if file is not None:
                return file
            self._area.shared.want(upload.id)
            if time.monotonic() >= deadline:
                raise Locked("Another request is writing to this upload; wait until it has ended.")
            await asyncio.sleep(_LOOKED_AGAIN_AFTER_SECONDS)

    async def _reread(self, upload: UploadRecord) -> UploadRecord:
        return await self._area.in_thread(self._find, upload.owner, upload.id)

    async def _lost(self, upload: UploadRecord) -> RequestError:
        """Return what whoever wants the bytes of an upload is told, which are not there."""
        if upload.is_over:
            return Conflict("The upload was completed meanwhile; ask with HEAD what came of it.")
        logger.error("upload {} has fewer bytes than were flushed: it is ended", upload.id)
        await self._area.forget(upload.id)
        return NotFound("The bytes of this upload are lost. Begin a new one.")

    async def end(self, principal: Principal, upload_id: str) -> None:
        """Give an upload up; a file that came of it stays. Raises NotFound, Locked where somebody writes to it."""
        upload = await self.find(principal, upload_id)
        file = None
        if not upload.is_over:
            # where it is completed this moment there is nothing to take any more
            with contextlib.suppress(Conflict):
                file = await self._take(upload)
        try:
            await self._area.forget(upload_id)
        finally:
            if file is not None:
                file.close()

    async def give_up(self, upload: UploadRecord) -> None:
        """End an upload whose client has not been told of it. Does what it can: its time ends in any case."""
        with contextlib.suppress(RequestError):
            await self._area.forget(upload.id)

    async def join(
        self, principal: Principal, parts: Sequence[str], wanted: "Joined", require_room: Callable[[int], None]
    ) -> UploadRecord:
        """Make one file of the caller's parts, in their order; they are over then. Durable when it returns.

        ``require_room`` is asked whether there is room for so many bytes more, before and while they are copied. The
        same parts joined once more give the same upload: the answer may have been lost. Raises NotFound, Locked where
        they are being joined, BadRequest where one is no part or not whole, DigestMismatch, TooLarge, OutOfSpace.
        """
        if earlier := await self._find_joined(principal, parts, wanted.concat):
            return earlier
        try:
            return await self._hold_and_join(principal, parts, wanted, require_room)
        except (Conflict, BadRequest):
            # it may have waited for one who has joined the same
            if earlier := await self._find_joined(principal, parts, wanted.concat):
                return earlier
            raise

    async def _hold_and_join(
        self, principal: Principal, parts: Sequence[str], wanted: "Joined", require_room: Callable[[int], None]
    ) -> UploadRecord:
        async with AsyncExitStack() as stack:
            held: dict[str, UnfinishedFile] = {}
            # in one order for all, so that two that name the same parts do not wait for each other
            for part in sorted(set(parts)):
                upload = await self.find(principal, part)
                _require_joinable(upload)
                held[part] = await self._take(upload)
                stack.callback(held[part].close)
            found = [await self.find(principal, part) for part in parts]
            for upload in found:
                _require_joinable(upload)
            return await self._join(principal, found, held, wanted, require_room)

    async def _find_joined(self, principal: Principal, parts: Sequence[str], concat: str) -> UploadRecord | None:
        """Return what just these parts were joined to already, None where they were not."""
        joined = {(await self.find(principal, part)).joined_as for part in parts}
        known = joined.pop() if len(joined) == 1 else None
        earlier = None if known is None else await self.find(principal, known)
        return earlier if earlier is not None and earlier.concat == concat else None

    async def _join(
        self, principal: Principal, parts: list[UploadRecord], held: dict[str, UnfinishedFile], wanted: "Joined",
        require_room: Callable[[int], None],
    ) -> UploadRecord:  # fmt: skip
        length = sum(part.flushed for part in parts)
        upload = self._new(principal.owner, length, wanted.details, wanted.concat)
        await self._require_joining(principal, upload, length, wanted.most)
        require_room(length)
        with await self._copy(parts, held, wanted.expected, require_room) as staged:
            if wanted.expected is not None:
                staged.require(ANNOUNCED_BY, wanted.expected)
            staged.hand_over()
        upload = replace(upload, flushed=length, digest=staged.digest)
        once = list({part.id: part for part in parts}.values())
        await self._area.committer.submit(FinishUpload(upload, (staged, wanted.wish), principal.quota, once))
        for part in once:
            await self._area.in_thread(self._area.folder.remove, part.id)
        return upload

    async def _require_joining(self, principal: Principal, upload: UploadRecord, length: int, most: int | None) -> None:
        """Raise TooLarge where so many bytes may not be one file of the caller's, before any are copied."""
        if most is not None and length > most:
            raise TooLarge(f"The parts have {length} bytes together; an upload may have {most}.")
        if principal.quota is not None:
            kept = await self._area.in_thread(self._kept, principal.owner, upload)
            if kept + length > principal.quota:
                raise over_quota(principal.quota, kept, length)

    async def _copy(
        self, parts: list[UploadRecord], held: dict[str, UnfinishedFile], expected: Digest | None,
        require_room: Callable[[int], None],
    ) -> Staged:  # fmt: skip
        own = self._area.staging.algorithm
        rest = sum(part.flushed for part in parts)
        async with self._area.staging.receive(tuple(hash_names(own, expected) - {own.value})) as receiver:
            for part in parts:
                async for piece in self._pieces(part, held[part.id]):
                    await receiver.write(piece)
                    rest -= len(piece)
                    if rest % _ROOM_CHECKED_EVERY < READ_BYTES:
                        require_room(rest)
            return await receiver.finish()

    async def _pieces(self, part: UploadRecord, file: UnfinishedFile) -> AsyncIterator[bytes]:
        position = 0
        while position < part.flushed:
            piece = await self._area.in_thread(file.read, position, min(READ_BYTES, part.flushed - position))
            if not piece:
                raise await self._lost(part)
            position += len(piece)
            yield piece

    async def end_expired(self) -> int:
        """Give up the uploads that nobody has gone on with in time, some at most; return how many."""
        area = self._area
        ended, _ = await end_expired(area.catalogue, area.committer, area.folder, area.in_thread)
        return ended


class Joined(NamedTuple):
    """What is to come of parts: ``Upload-Metadata`` and ``Upload-Concat`` as sent, what these say, the hash wanted.

    ``most`` is how many bytes it may have, None for any number.
    """

    details: str
    concat: str
    wish: Wish
    expected: Digest | None
    most: int | None


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


async def end_expired(
    catalogue: Catalogue, committer: Committer, folder: UnfinishedFolder, run: Callable[..., Awaitable[Any]]
) -> tuple[int, int]:
    """Give up uploads whose time is over, some at most; return how many, and how many bytes they had.

    ``run`` runs what blocks.
    """
    count = size = 0
    for upload in await run(catalogue.ended_uploads, now_milliseconds(), _ENDED_AT_ONCE):
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


def _require_joinable(part: UploadRecord) -> None:
    if not part.is_part:
        raise BadRequest(f"The upload {part.id} is no part: begin parts with Upload-Concat: partial.")
    if part.joined_as is not None:
        raise BadRequest(f"The part {part.id} was joined to others already.")
    if not part.is_whole:
        raise BadRequest(f"The part {part.id} is not complete: {part.flushed} bytes of it are there.")
