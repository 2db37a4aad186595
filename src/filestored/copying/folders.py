"""A store's folder or bucket as a side of a copy: blobs, files, tokens and the key of the links."""

import heapq
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

from filestored.access import ALL, Principal
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import open_blobs
from filestored.blobs.store import BlobHandle, Identity
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import NOBODY, FileRecord, now_milliseconds
from filestored.copying.entries import (
    CopyFault,
    Entry,
    Gone,
    Origin,
    Pieces,
    Proof,
    Taken,
    Trouble,
    all_algorithms,
    possible_algorithms,
    prove,
)
from filestored.digest import Algorithm, Digest
from filestored.errors import NotFound
from filestored.filestore import Filestore
from filestored.importing.underway import UnderWay
from filestored.removals import take_out_of_bucket
from filestored.staging import SMALL, Staged

_COPYING = Principal("copy-store", ALL)
# digests of the catalogue that are asked for together: those that begin with the same three digits
_STRETCHES = 16**3
# blobs of a bucket that are looked at together: all the requests end within some seconds
_LOOKED_AT_ONCE = 64
_SHARD = re.compile("[0-9a-f]{2}")


class FolderOrigin:
    """A store's folder or bucket, whose daemons may be running. Nothing in it is changed."""

    def __init__(self, folder: StoreFolder, catalogue: Catalogue | None, algorithms: Sequence[Algorithm] = ()) -> None:
        """``catalogue`` is None for a store that another program left: it has blobs alone.

        ``algorithms`` are what its mark says that its blobs are named by.
        """
        self.folder = folder
        self.catalogue = catalogue
        self.algorithms = list(algorithms)
        self._blobs = open_blobs(folder, for_reading=True)

    def close(self) -> None:
        """Let go of the folder."""
        self._blobs.close()

    def __iter__(self) -> Iterator[Entry | Trouble]:
        """Give all blobs and files, in the order of their digests, each blob once."""
        failures: list[Trouble] = []

        def failed(shard: str, error: OSError) -> None:
            reason = f"the folder cannot be listed: {error.strerror or error}"
            failures.append(Trouble(shard, "failed", reason, hides_others=True))

        if self.folder.bucket is None:
            yield from self._hidden()
        walk = self._blobs.walk(failed=failed)
        digests = (digest for digest, _ in groupby(heapq.merge(walk, self._named())))
        while together := list(islice(digests, _LOOKED_AT_ONCE)):
            yield from self._look_at_all(together)
            while failures:
                yield failures.pop()
        yield from failures
        if walk.others:
            yield Trouble("", "skipped", f"names in the store that are no blobs: {walk.others}")

    def _hidden(self) -> Iterator[Trouble]:
        """Give the folders of blobs that are links: they are not followed, here as in a daemon."""
        with os.scandir(self.folder.path) as entries:
            for entry in entries:
                if _SHARD.fullmatch(entry.name) and entry.is_symlink():
                    reason = "a symbolic link, which is not followed: what it holds is not copied"
                    yield Trouble(entry.name, "failed", reason, hides_others=True)

    def _named(self) -> Iterator[Digest]:
        """Give the digests that live files name, in order."""
        for number in range(_STRETCHES if self.catalogue else 0):
            start = f"{number:03x}"
            stop = f"{number + 1:03x}" if number + 1 < _STRETCHES else "g"
            assert self.catalogue is not None
            yield from sorted(self.catalogue.live_digests(start, stop, now_milliseconds()))

    def _look_at_all(self, digests: list[Digest]) -> list[Entry | Trouble]:
        """Return what there is to copy of some blobs."""
        self._blobs.foresee(digests)
        try:
            found = [self._look(digest) for digest in digests]
        finally:
            self._blobs.forget_foreseen()
        return [each for each in found if each is not None]

    def _look(self, digest: Digest) -> Entry | Trouble | None:
        """Return what there is to copy of a blob; None where it is not to be had by anybody."""
        blob = self._blobs.stat(digest)
        rows = self.catalogue.find(digest) if self.catalogue else []
        now = now_milliseconds()
        files = tuple(file for file in rows if file.is_live(now))
        if not files and (blob is None or rows or (self.catalogue and self.catalogue.is_going(digest))):
            return None
        sizes = {file.size for file in files}
        if blob is None or (sizes and sizes != {blob.size}):
            # looked at once more: the file may have been deleted, or uploaded anew, between the two looks
            self._blobs.forget_foreseen()
            if not self.has(digest, files[0].owner):
                return None
            blob = self._blobs.stat(digest)
        if blob is None:
            return Trouble(digest, "missing", f"a file of {files[0].owner or 'nobody'} names it, but there is no blob")
        if sizes and sizes != {blob.size}:
            return Trouble(digest, "damaged", f"its blob has {blob.size} bytes instead of {min(sizes)}")
        return Entry(digest, possible_algorithms(digest, self.algorithms), blob.size, files)

    def has(self, digest: Digest, owner: str) -> bool:
        """See Origin."""
        now = now_milliseconds()
        rows = self.catalogue.find(digest) if self.catalogue else []
        if owner == NOBODY:
            return self._blobs.stat(digest) is not None and (not rows or any(file.is_live(now) for file in rows))
        return any(file.owner == owner and file.is_live(now) for file in rows)

    def open(self, entry: Entry) -> Pieces:
        """See Origin."""
        try:
            blob = self._blobs.open(entry.digest, entry.size)
        except OSError as error:
            raise _unreadable(error) from error
        if blob is None:
            raise Gone(f"{entry.digest} was deleted meanwhile")
        return BlobPieces(blob)

    def path_of(self, entry: Entry) -> Path | None:
        """See Origin."""
        return self.folder.path / entry.digest[:2] / entry.digest if self.folder.bucket is None else None


class BlobPieces:
    """A blob of a store, held open: whole and unchanged whatever happens to its name."""

    def __init__(self, blob: BlobHandle) -> None:
        self._blob = blob

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._blob.pieces()
        except OSError as error:
            raise _unreadable(error) from error

    def close(self) -> None:
        """See Pieces."""
        self._blob.close()


def _unreadable(error: OSError) -> CopyFault:
    state = "failed" if isinstance(error, PermissionError) else "damaged"
    return CopyFault(state, f"it cannot be read: {error.strerror or error}")


class FolderDestination:
    """A store's folder or bucket, opened for adding to it: blobs keep their names, files what is said of them."""

    is_folder = True

    def __init__(
        self, folder: StoreFolder, filestore: Filestore, catalogue: Catalogue, under_way: UnderWay,
        read: Callable[[int], None],
    ) -> None:  # fmt: skip
        """``catalogue`` is the same as the filestore's, for looking and for moving damaged blobs; ``read`` is told how
        many bytes were read.
        """
        self._folder = folder
        self._filestore = filestore
        self._catalogue = catalogue
        self._under_way = under_way
        self._read = read
        self._blobs = open_blobs(folder)
        self._moving = threading.Lock()
        self._damaged: dict[Digest, Identity] = {}
        self._recorded = set(folder.algorithms())

    def close(self) -> None:
        """Let go of the folder."""
        self._blobs.close()

    async def settled(self, entries: Sequence[Entry]) -> set[Entry]:
        """See Destination."""
        return await self._under_way.read(self._settled, entries)

    def _settled(self, entries: Sequence[Entry]) -> set[Entry]:
        rows = self._catalogue.find_all([entry.digest for entry in entries])
        settled: set[Entry] = set()
        for start in range(0, len(entries), _LOOKED_AT_ONCE):
            together = entries[start : start + _LOOKED_AT_ONCE]
            self._blobs.foresee(entry.digest for entry in together)
            try:
                settled.update(entry for entry in together if self._is_settled(entry, rows.get(entry.digest, [])))
            finally:
                self._blobs.forget_foreseen()
        return settled

    def _is_settled(self, entry: Entry, rows: list[FileRecord]) -> bool:
        blob = self._blobs.stat(entry.digest)
        if blob is None or blob.size != entry.size or self._catalogue.is_going(entry.digest):
            return False
        now = now_milliseconds()
        live = [row for row in rows if row.is_live(now)]
        if not entry.files:
            # where all rows have expired the blob would go with them
            return not rows or bool(live)
        return all(file in live or (file.owner == NOBODY and live) for file in entry.files)

    async def take(self, entry: Entry, origin: Origin) -> Taken:
        """See Destination."""
        damaged = self._damaged.pop(entry.digest, None)
        blob = await self._under_way.read(self._blobs.stat, entry.digest)
        if blob is not None and blob.size == entry.size and damaged is None:
            with suppress(NotFound):
                await self._filestore.take_over(_COPYING, entry.digest, entry.files, None)
                return Taken(entry.digest, was_sent=False)
        self._filestore.require_room(entry.size)
        staged, algorithm = await self._stage(entry, origin)
        with staged:
            self._record(algorithm)
            # the name it has at the source, which its bytes have been found to deserve
            staged.digest = entry.digest
            if damaged is not None:
                await self._under_way.read(self._move_away, entry.digest, damaged)
            await self._filestore.take_over(_COPYING, entry.digest, entry.files, staged)
        return Taken(entry.digest, was_sent=True)

    def _record(self, algorithm: Algorithm) -> None:
        """Have the store's mark tell what the blob is named by."""
        if algorithm not in self._recorded:
            self._folder.record_algorithms([algorithm])
            self._recorded.add(algorithm)

    async def _stage(self, entry: Entry, origin: Origin) -> tuple[Staged, Algorithm]:
        """Stage a blob; return what names it, too. Raises CopyFault where its bytes are not what its name says."""
        if entry.size <= SMALL:
            return await self._under_way.read(self._stage_small, entry, origin)
        pieces = await self._under_way.read(origin.open, entry)
        try:
            proof = Proof(entry, pieces, self._read)
            proved = iter(proof)
            async with self._filestore.receive() as receiver:
                while piece := await self._under_way.read(next, proved, b""):
                    await receiver.write(piece)
                return await receiver.finish(may_hold=False), proof.algorithm
        finally:
            await self._under_way.read(pieces.close)

    def _stage_small(self, entry: Entry, origin: Origin) -> tuple[Staged, Algorithm]:
        # at one go: many that are open and wait for a thread would take all connections to a server
        with closing(origin.open(entry)) as pieces:
            proof = Proof(entry, pieces, self._read)
            return self._filestore.hold(b"".join(proof)), proof.algorithm

    async def verify(self, entry: Entry) -> bool | None:
        """See Destination."""
        return await self._under_way.read(self._verify, entry)

    def _verify(self, entry: Entry) -> bool | None:
        blob = self._blobs.open(entry.digest)
        if blob is None:
            return None
        # judged by its name alone: what the source says of algorithm and size may be wrong
        known = replace(entry, algorithms=all_algorithms(entry.digest), size=blob.size)
        try:
            prove(known, BlobPieces(blob), self._read)
        except CopyFault as fault:
            if fault.state != "damaged":
                raise
            self._damaged[entry.digest] = blob.identity
            return False
        return True

    def _move_away(self, digest: Digest, identity: Identity) -> None:
        """Take away a blob that was found damaged."""
        blobs = self._blobs
        # one thread at a time has the transaction
        with self._moving:
            if blobs.removes_at_once:
                # nobody publishes or removes meanwhile
                with self._catalogue.transaction([digest], flushed=False):
                    blobs.quarantine(digest, identity)
            elif blobs.quarantine(digest, identity) is not None:
                take_out_of_bucket(self._catalogue, blobs, digest, lambda: blobs.identity(digest) == identity)
        self._filestore.shared.renew(digest)
