"""Parts of an upload that came one beside the other, made one file (tus 1.0.0, concatenation).

They may lie on several machines: those of others are fetched from their daemons.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from filestored.access import Principal
from filestored.catalogue.records import UploadRecord, Wish
from filestored.changes import FinishUpload, over_quota
from filestored.continuation import ANNOUNCED_BY, READ_BYTES, hash_names
from filestored.digest import Digest
from filestored.errors import BadRequest, Busy, Conflict, NotFound, TooLarge
from filestored.resuming import ResumableUploads
from filestored.staging import Staged
from filestored.unfinished import UnfinishedFile

MAX_PARTS = 500
"""How many parts one upload may be joined from."""

_ROOM_CHECKED_EVERY = 16 << 20

Fetch = Callable[[UploadRecord], AsyncIterator[bytes]]
"""What returns the bytes of a part that another daemon has."""

Sources = Mapping[str, Callable[[], AsyncIterator[bytes]]]
"""What returns the bytes of each part, by its id."""


class Parts:
    """The parts among the uploads under way."""

    def __init__(self, uploads: ResumableUploads) -> None:
        self._uploads = uploads

    async def join(
        self, principal: Principal, parts: Sequence[str], wanted: "Joined", require_room: Callable[[int], None],
        fetch: "Fetch | None" = None,
    ) -> UploadRecord:  # fmt: skip
        """Make one file of the caller's parts, in their order; they are over then. Durable when it returns.

        ``require_room`` is asked whether there is room for so many bytes more, before and while they are copied.
        ``fetch`` returns the bytes of a part that another daemon has; without it these cannot be joined. The same
        parts joined once more give the same upload: the answer may have been lost. Raises NotFound, Locked where they
        are being joined, BadRequest where one is no part or not whole, DigestMismatch, TooLarge, OutOfSpace, Busy.
        """
        if earlier := await self._find_joined(principal, parts, wanted.concat):
            return earlier
        try:
            return await self._hold_and_join(principal, parts, wanted, require_room, fetch)
        except (Conflict, BadRequest):
            # it may have waited for one who has joined the same
            if earlier := await self._find_joined(principal, parts, wanted.concat):
                return earlier
            raise

    async def _hold_and_join(
        self, principal: Principal, parts: Sequence[str], wanted: "Joined", require_room: Callable[[int], None],
        fetch: "Fetch | None",
    ) -> UploadRecord:  # fmt: skip
        async with AsyncExitStack() as stack:
            held: dict[str, UnfinishedFile] = {}
            # in one order for all, so that two that name the same parts do not wait for each other
            for part in sorted(set(parts)):
                upload = await self._uploads.find(principal, part)
                _require_joinable(upload)
                if self._uploads.is_elsewhere(upload):
                    # its daemon holds it while it is fetched; that it still is as it was the transaction will see
                    continue
                held[part] = await self._uploads.take(upload)
                stack.callback(held[part].close)
            found = [await self._uploads.find(principal, part) for part in parts]
            for upload in found:
                _require_joinable(upload)
            sources = {part.id: partial(self._read_part, part, held, fetch) for part in found}
            return await self._join(principal, found, sources, wanted, require_room)

    async def _find_joined(self, principal: Principal, parts: Sequence[str], concat: str) -> UploadRecord | None:
        """Return what just these parts were joined to already, None where they were not."""
        joined = {(await self._uploads.find(principal, part)).joined_as for part in parts}
        known = joined.pop() if len(joined) == 1 else None
        earlier = None if known is None else await self._uploads.find(principal, known)
        return earlier if earlier is not None and earlier.concat == concat else None

    async def _join(
        self, principal: Principal, parts: list[UploadRecord], sources: "Sources", wanted: "Joined",
        require_room: Callable[[int], None],
    ) -> UploadRecord:  # fmt: skip
        length = sum(part.flushed for part in parts)
        upload = self._uploads.new(principal.owner, length, wanted.details, wanted.concat)
        await self._require_joining(principal, upload, length, wanted.most)
        require_room(length)
        with await self._copy(parts, sources, wanted.expected, require_room) as staged:
            if wanted.expected is not None:
                staged.require(ANNOUNCED_BY, wanted.expected)
            staged.hand_over()
        upload = replace(upload, flushed=length, digest=staged.digest)
        once = list({part.id: part for part in parts}.values())
        await self._uploads.area.committer.submit(FinishUpload(upload, (staged, wanted.wish), principal.quota, once))
        for part in once:
            await self._uploads.area.in_thread(self._uploads.area.folder.remove, part.id)
        return upload

    async def _require_joining(self, principal: Principal, upload: UploadRecord, length: int, most: int | None) -> None:
        """Raise TooLarge where so many bytes may not be one file of the caller's, before any are copied."""
        if most is not None and length > most:
            raise TooLarge(f"The parts have {length} bytes together; an upload may have {most}.")
        if principal.quota is not None:
            kept = await self._uploads.area.in_thread(self._uploads.kept, principal.owner, upload)
            if kept + length > principal.quota:
                raise over_quota(principal.quota, kept, length)

    async def _copy(
        self, parts: list[UploadRecord], sources: "Sources", expected: Digest | None,
        require_room: Callable[[int], None],
    ) -> Staged:  # fmt: skip
        own = self._uploads.area.staging.algorithm
        rest = sum(part.flushed for part in parts)
        async with self._uploads.area.staging.receive(tuple(hash_names(own, expected) - {own.value})) as receiver:
            for part in parts:
                async for piece in sources[part.id]():
                    await receiver.write(piece)
                    rest -= len(piece)
                    if rest % _ROOM_CHECKED_EVERY < READ_BYTES:
                        require_room(rest)
            return await receiver.finish()

    async def _read_part(
        self, part: UploadRecord, held: dict[str, UnfinishedFile], fetch: "Fetch | None"
    ) -> AsyncIterator[bytes]:
        """Return the bytes of a part, wherever they lie. Raises Busy where they are not all to be had."""
        if part.id in held:
            pieces = self._pieces(part, held[part.id])
        elif fetch is not None:
            pieces = fetch(part)
        else:
            raise Busy(f"The part {part.id} lies on another machine; try again.")
        size = 0
        async for piece in pieces:
            size += len(piece)
            yield piece
        if size != part.flushed:
            raise Busy(f"The machine that has the part {part.id} gave {size} of {part.flushed} bytes; try again.")

    async def open_part(self, principal: Principal, upload_id: str) -> "OpenPart":
        """Return a whole part for another daemon that joins it: an ``async with`` block. Raises NotFound, Locked."""
        part = await self._uploads.find(principal, upload_id)
        if self._uploads.is_elsewhere(part) or not part.is_part or not part.is_whole or part.is_over:
            raise NotFound("There is no such part here.")
        return OpenPart(part.flushed, self._pieces, part, await self._uploads.take(part))

    async def _pieces(self, part: UploadRecord, file: UnfinishedFile) -> AsyncIterator[bytes]:
        position = 0
        while position < part.flushed:
            piece = await self._uploads.area.in_thread(file.read, position, min(READ_BYTES, part.flushed - position))
            if not piece:
                raise await self._uploads.lost(part)
            position += len(piece)
            yield piece


class OpenPart:
    """A whole part, held until the ``async with`` block is left: nobody else joins or ends it meanwhile."""

    def __init__(
        self, size: int, read: Callable[[UploadRecord, UnfinishedFile], AsyncIterator[bytes]], part: UploadRecord,
        file: UnfinishedFile,
    ) -> None:  # fmt: skip
        self.size = size
        """How many bytes it has."""
        self._read = read
        self._part = part
        self._file = file

    async def __aenter__(self) -> "OpenPart":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._file.close()

    def pieces(self) -> AsyncIterator[bytes]:
        """Return its bytes."""
        return self._read(self._part, self._file)


class Joined(NamedTuple):
    """What is to come of parts: ``Upload-Metadata`` and ``Upload-Concat`` as sent, what these say, the hash wanted.

    ``most`` is how many bytes it may have, None for any number.
    """

    details: str
    concat: str
    wish: Wish
    expected: Digest | None
    most: int | None


def _require_joinable(part: UploadRecord) -> None:
    if not part.is_part:
        raise BadRequest(f"The upload {part.id} is no part: begin parts with Upload-Concat: partial.")
    if part.joined_as is not None:
        raise BadRequest(f"The part {part.id} was joined to others already.")
    if not part.is_whole:
        raise BadRequest(f"The part {part.id} is not complete: {part.flushed} bytes of it are there.")
