"""One upload in the hands of its only writer, and what all of them are carried on with."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from filestored.access import Permission, Principal
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import Added, UploadRecord, Wish, now_milliseconds
from filestored.changes import EndUpload, FinishUpload, NoteUpload
from filestored.committer import Committer
from filestored.digest import Algorithm, Digest, Hash, algorithm_of
from filestored.errors import BadRequest, Busy, DigestMismatch, NotFound
from filestored.pipeline import Pipeline
from filestored.shared import Shared
from filestored.staging import Staged, Staging
from filestored.unfinished import UnfinishedFile, UnfinishedFolder

NOTED_EVERY_BYTES = 32 << 20
NOTED_EVERY_SECONDS = 10.0
"""After how many bytes of one request, or how long, these are flushed and noted: what a crash takes back, and the few
MiB besides that are on their way to the disk. What comes with a checksum counts as a whole, and is noted at its end."""

YIELDING_SECONDS = 5.0
"""How long a writer may be silent before it gives way to another that waits."""

ANNOUNCED_BY = "hash in Upload-Metadata"
"""What says which hash an upload must have."""

READ_BYTES = 1 << 20
"""How much is read at a time of what lies on the disk."""

_REMEMBERED_HASHES = 1024
_GIVEN_BACK_BYTES = 1 << 20
_READ_IN_A_GO = 64 << 20

T = TypeVar("T")


class Hashes:
    """Hashes of the first ``position`` bytes of an upload, by algorithm."""

    def __init__(self, names: set[str]) -> None:
        self.position = 0
        self.by_name: dict[str, Hash] = {name: Algorithm(name).new() for name in names}

    def update(self, piece: bytes | memoryview) -> None:
        """Take in what comes next."""
        for hash_ in self.by_name.values():
            hash_.update(piece)
        self.position += len(piece)

    def copy(self) -> "Hashes":
        """Return some that go on by themselves from here."""
        twin = Hashes(set())
        twin.position = self.position
        twin.by_name = {name: hash_.copy() for name, hash_ in self.by_name.items()}
        return twin


class UploadArea:
    """What resumable uploads are carried on with: the folder of their bytes, the catalogue, threads. One a process."""

    def __init__(
        self, path: Path, staging: Staging, catalogue: Catalogue, committer: Committer, shared: Shared,
        threads: Executor, *, life_seconds: float,
    ) -> None:  # fmt: skip
        """``path`` is the folder for their bytes; ``life_seconds`` how long one may rest before it is given up."""
        self.folder = UnfinishedFolder(path, staging)
        self.staging = staging
        self.catalogue = catalogue
        self.committer = committer
        self.shared = shared
        # those longest ago first
        self._hashes: OrderedDict[str, Hashes] = OrderedDict()
        self._threads = threads
        self._life_ms = int(life_seconds * 1000)

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run blocking work in one of the few threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def end_of_life(self) -> int:
        """Return when an upload ends that rests from now on, in milliseconds since 1970."""
        return now_milliseconds() + self._life_ms

    def remember(self, upload_id: str, hashes: Hashes) -> None:
        """Keep what this process has hashed of an upload, for when it goes on here."""
        self._hashes[upload_id] = hashes
        while len(self._hashes) > _REMEMBERED_HASHES:
            self._hashes.popitem(last=False)

    def recall(self, upload_id: str) -> Hashes | None:
        """Return what this process has hashed of an upload, and forget it; None for nothing."""
        return self._hashes.pop(upload_id, None)

    async def forget(self, upload_id: str) -> None:
        """Remove an upload and its bytes, whoever's it is. Durable when it returns."""
        self.recall(upload_id)
        await self.committer.submit(EndUpload(upload_id))
        await self.in_thread(self.folder.remove, upload_id)


class Continuation:
    """An upload in the hands of its only writer: an ``async with`` block.

    What has come is written as it comes. Now and then, when :attr:`is_due`, and at the end :meth:`settle` it, and then
    either :meth:`finish` where it is whole, or :meth:`keep`; whatever is not kept is cut off when the block is left.
    """

    def __init__(
        self, area: UploadArea, upload: UploadRecord, file: UnfinishedFile, expected: Digest | None, quota: int | None
    ) -> None:
        """``expected`` is the hash that the whole must have, ``quota`` how many bytes its owner may keep in all."""
        self.upload = upload
        """The upload as it is noted."""
        self._quota = quota
        self._area = area
        self._file = file
        self._pipeline = Pipeline(area.staging.threads, self._take)
        self._expected = expected
        self._hashes = self._begin_hashes()
        self._noted_hashes = self._hashes.copy()
        self._noted_at = time.monotonic()
        self._has_failed = False
        self._may_be_blob = self._may_be_noted = False
        self._wanted = area.shared.wanted(upload.id)

    async def __aenter__(self) -> "Continuation":
        return self

    async def __aexit__(self, *_: object) -> None:
        # the thread may still write to the file that is about to be closed
        await self._pipeline.abandon()
        if self.upload.digest is None and not self._may_be_blob and not self._may_be_noted:
            # bytes that nothing counts must not take room
            await self._area.in_thread(self._file.cut_rest, self.upload.flushed)
            if self._noted_hashes.position:
                self._area.remember(self.upload.id, self._noted_hashes)
        self._file.close()

    def _begin_hashes(self) -> Hashes:
        """Return what this process has hashed of the upload, nothing where it does not know it; none for a part."""
        own = self._area.staging.algorithm
        names = set() if self.upload.is_part else hash_names(own, self._expected)
        return self._area.recall(self.upload.id) or Hashes(names)

    @property
    def offset(self) -> int:
        """How many bytes are there, of which the last ones may not be flushed."""
        return self._file.written

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are there. Only after :meth:`settle`."""
        return self._file.written == self.upload.length

    @property
    def is_due(self) -> bool:
        """Whether so much has come, or so long ago, since the upload was noted last that it should be again."""
        more = self._file.written - self.upload.flushed
        return more >= NOTED_EVERY_BYTES or (more > 0 and time.monotonic() - self._noted_at >= NOTED_EVERY_SECONDS)

    def has_to_end(self, silent: float) -> bool:
        """Tell whether who has sent nothing for ``silent`` seconds should: somebody else waits, or the daemon stops."""
        shared = self._area.shared
        is_wanted = silent >= YIELDING_SECONDS and shared.wanted(self.upload.id) != self._wanted
        return is_wanted or shared.is_stopping

    def set_length(self, length: int) -> None:
        """Note how long the upload will be. Raises BadRequest where it is longer already, or was said otherwise."""
        known = self.upload.length
        if length < self.offset or known not in (None, length):
            raise BadRequest(f"Upload-Length is {length}, but the upload has {known or self.offset} bytes.")
        self.upload = replace(self.upload, length=length)

    async def write(self, piece: bytes | memoryview) -> None:
        """Take in more bytes. Raises OutOfSpace where the disk is full."""
        await self._pipeline.write(piece)

    async def settle(self) -> None:
        """Write and flush what has come.

        Raises OutOfSpace where the disk is full; called once more, it flushes what the disk has taken.
        """
        await self._pipeline.run(self._take_last, self._pipeline.hand_over())

    async def give_back(self) -> None:
        """Cut off the end of what a full disk has taken: noting how far the upload has come takes room, too.

        Call :meth:`settle` before, and :meth:`keep` after it.
        """
        size = max(self.upload.flushed, self._file.written - _GIVEN_BACK_BYTES)
        await self._area.in_thread(self._file.cut, size)
        if self._hashes.position > size:
            self._hashes = Hashes(set(self._hashes.by_name))

    async def keep(self) -> UploadRecord:
        """Note how far the upload has come, and that it has come so far just now. Durable when it returns.

        Call :meth:`settle` before. Raises NotFound where it was ended, TooLarge where its owner has too much under way.
        """
        upload = replace(self.upload, flushed=self._file.written, expires_at=self._area.end_of_life())
        try:
            is_there = await self._area.committer.submit(NoteUpload(upload, self._quota))
        except Busy:
            # the catalogue may have noted it all the same, and then needs the bytes
            self._may_be_noted = True
            raise
        if not is_there:
            await self._area.in_thread(self._area.folder.remove, upload.id)
            raise NotFound("This upload was ended meanwhile.")
        self.upload = upload
        self._noted_hashes = self._hashes.copy()
        self._noted_at = time.monotonic()
        return upload

    async def finish(self, principal: Principal, wish: Wish) -> Added:
        """Make the whole upload the caller's file. Durable when it returns.

        Raises DigestMismatch where it has not the hash it must have, and the upload is ended; TooLarge where the quota
        has no room, and the upload stays as it was noted.
        """
        area, file = self._area, self._file
        principal.require(Permission.WRITE)
        with await self._stage() as staged:
            try:
                if self._expected is not None:
                    staged.require(ANNOUNCED_BY, self._expected)
            except DigestMismatch:
                await area.forget(self.upload.id)
                raise
            staged.hand_over()
        whole = replace(self.upload, flushed=file.written, digest=staged.digest, expires_at=area.end_of_life())
        # cancelled while it waits, it cannot know what comes of it
        self._may_be_blob = True
        try:
            added = await area.committer.submit(FinishUpload(whole, (staged, wish), self._quota))
        except Exception:
            self._may_be_blob = False
            raise
        self.upload = whole
        await area.in_thread(area.folder.remove, whole.id)
        return added[0]

    async def _stage(self) -> Staged:
        hashes = self._hashes
        await self._hash_up_to(self.upload.flushed)
        if hashes.position == self.upload.flushed:
            # should what follows fail, this need not be read again
            self._noted_hashes = hashes.copy()
        await self._hash_up_to(self._file.written)
        own = self._area.staging.algorithm
        others = {name: hash_.digest() for name, hash_ in hashes.by_name.items() if name != own.value}
        digest = Digest(hashes.by_name[own.value].hexdigest())
        return await self._area.in_thread(self._file.stage, digest, others)

    async def _hash_up_to(self, end: int) -> None:
        while self._hashes.position < end:
            # in several goes: other requests need the few threads, too
            await self._area.in_thread(self._hash_more, self._hashes, end)

    def _hash_more(self, hashes: Hashes, end: int) -> None:
        end = min(hashes.position + _READ_IN_A_GO, end)
        while hashes.position < end:
            piece = self._file.read(hashes.position, min(READ_BYTES, end - hashes.position))
            if not piece:
                raise OSError("the bytes of an upload became fewer while they were read")
            hashes.update(piece)

    def _take(self, pieces: list[bytes | memoryview]) -> None:
        if self._has_failed:
            # what follows a gap is of no use
            return
        self._has_failed = True
        for piece in pieces:
            position = self._file.written
            self._file.append(piece)
            if self._hashes.position == position:
                self._hashes.update(piece)
        self._has_failed = False
        if self._area.staging.durable:
            # while the rest is still arriving, so that the flush finds little to do
            self._file.start_flush()

    def _take_last(self, pieces: list[bytes | memoryview]) -> None:
        self._take(pieces)
        self._file.flush()


def hash_names(own: Algorithm, expected: Digest | None) -> set[str]:
    """Return the algorithms that an upload must be hashed by."""
    return {own.value} if expected is None else {own.value, algorithm_of(expected, own).value}
