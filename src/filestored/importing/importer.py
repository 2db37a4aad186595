"""Importing: several items at a time are read, their bytes proved, and added to the store.

::

    source ─► what the report has as stored, unchanged, and still is ─► counted
           └► read, hashed ─► as the source says? ─► add ─► as the store says? ─► report

Small files go into the committer together, so that they share its flushes.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from filestored.access import Permission, Principal
from filestored.api.names import guess_type
from filestored.catalogue.records import UNKNOWN_TYPE, Added, Wish, now_milliseconds
from filestored.digest import Digest, Hash, parse_digest
from filestored.errors import Busy, FilestoredError, OutOfSpace, StorageFault
from filestored.filestore import Filestore
from filestored.importing.report import Entry, Report
from filestored.importing.source import Content, Item, Left, NotAFile, Source, SourceFault
from filestored.importing.underway import UnderWay
from filestored.staging import SMALL, Staged

_LISTED_AT_ONCE = 256
# bytes: where as many do not fit there is no room for anything; of a larger item it says nothing
_LARGE = 1 << 20
_TRIES = 5
_PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class Totals:
    """How many items became what, and their bytes."""

    new: int = 0
    new_bytes: int = 0
    known: int = 0
    known_bytes: int = 0
    unchanged: int = 0
    unchanged_bytes: int = 0
    skipped: int = 0
    failed: int = 0
    read_bytes: int = 0

    def count(self, entry: Entry) -> None:
        """Count what became of an item."""
        match entry.state:
            case "new":
                self.new, self.new_bytes = self.new + 1, self.new_bytes + (entry.size or 0)
            case "known":
                self.known, self.known_bytes = self.known + 1, self.known_bytes + (entry.size or 0)
            case "skipped":
                self.skipped += 1
            case _:
                self.failed += 1

    def count_unchanged(self, entry: Entry) -> None:
        """Count an item that an earlier run has imported."""
        self.unchanged += 1
        self.unchanged_bytes += entry.size or 0


class Import:
    """One run over a source. Its items become files of ``owner``, whatever the quota of its token says."""

    def __init__(
        self, filestore: Filestore, source: Source, report: Report, owner: str, *, told: Callable[[Entry], None]
    ) -> None:
        """``told`` is called for each item that is left out, or of which something could not be kept or imported."""
        self.totals = Totals()
        self._filestore = filestore
        self._source = source
        self._report = report
        self._principal = Principal(owner, Permission.READ | Permission.WRITE)
        self._told = told
        self._under_way = UnderWay()

    def stop(self) -> None:
        """Begin with no further item; what is under way is finished. Called again, that is given up too."""
        self._under_way.stop()

    async def run(self) -> bool:
        """Import all there is; False where it was told to stop before the end.

        Raises FilestoredError, OSError where the source cannot be listed, the report cannot be written, or the disk is
        full.
        """
        try:
            await self._begin_all(iter(self._source))
        finally:
            # not cancelled: what is under way is finished also where something else has failed
            try:
                await self._under_way.finish()
            finally:
                self._under_way.close()
        await self._filestore.in_thread(self._report.flush)
        return not self._under_way.is_stopping

    async def _begin_all(self, items: Iterator[Item | Left]) -> None:
        while not self._under_way.is_stopping and (batch := await self._under_way.read(_next_of, items)):
            for item in await self._sort_out(batch):
                if not await self._under_way.begin(item.size, partial(self._import, item)):
                    break

    # which are to be read

    async def _sort_out(self, batch: list[Item | Left]) -> list[Item]:
        """Return the items that are to be read, and settle the others."""
        items = [item for item in batch if isinstance(item, Item)]
        for left in batch:
            if isinstance(left, Left):
                state = "failed" if left.is_fault else "skipped"
                self._settle(Entry(left.key, left.size, None, None, None, state, left.reason))
        done = {item: entry for item in items if (entry := self._as_reported(item))}
        missing = await self._find_missing(done)
        reading = []
        for item in items:
            entry = done.get(item)
            if entry is None or entry.hash in missing:
                reading.append(item)
            else:
                self.totals.count_unchanged(entry)
        return reading

    def _as_reported(self, item: Item) -> Entry | None:
        """Return what the report says of an item that is as it was when it was imported."""
        entry = self._report.find(item.key)
        if entry is None or not entry.is_done or entry.version != item.version:
            return None
        return entry if parse_digest(entry.hash or "") else None

    async def _find_missing(self, done: dict[Item, Entry]) -> set[str]:
        digests = {digest for entry in done.values() if entry.hash and (digest := parse_digest(entry.hash))}
        return set(await self._filestore.find_missing(self._principal, list(digests))) if digests else set()

    # reading one

    async def _import(self, item: Item) -> None:
        proof = Proof(item, self._filestore)
        try:
            added = await self._try(item, proof)
        except OutOfSpace as error:
            if item.size <= _LARGE:
                self._under_way.stop_for(error)
            self._settle(_failed(item, str(error)))
        except NotAFile as left:
            self._settle(Entry(left.key, item.size, None, None, None, "skipped", str(left)))
        except FilestoredError as error:
            self._settle(_failed(item, str(error)))
        except OSError as error:
            self._settle(_failed(item, f"it cannot be stored: {error.strerror or error}"))
        else:
            old_hash = item.expected.hash if item.expected else None
            state = "new" if added.is_new else "known"
            digest = added.file.digest
            self._settle(Entry(item.key, proof.size, item.version, old_hash, digest, state, item.note))

    async def _try(self, item: Item, proof: "Proof") -> Added:
        """Read an item and add it; again where the store could not just then: its daemon may be starting anew."""
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._add(item, proof)
            except (StorageFault, Busy):
                if not tries_left:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError

    async def _add(self, item: Item, proof: "Proof") -> Added:
        self._filestore.require_room(item.size)
        proof.begin()
        staged, media_type = await self._stage(item, proof)
        with staged:
            digest = proof.finish()
            wish = _wish(item, media_type)
            (added,) = await self._filestore.add(self._principal, [(staged, wish)])
        if added.file.digest != digest:
            raise SourceFault(f"its bytes have the hash {digest}, but were stored as {added.file.digest}")
        return added

    def _open(self, item: Item) -> Content:
        with _reading():
            return self._source.open(item)

    async def _stage(self, item: Item, proof: "Proof") -> tuple[Staged, str | None]:
        """Read an item to its end; return its bytes, and what the source says of its type now that it is open."""
        if item.size <= SMALL:
            staged, media_type = await self._under_way.read(self._stage_small, item, proof)
            self.totals.read_bytes += staged.size
            return staged, media_type
        content = await self._under_way.read(self._open, item)
        try:
            pieces = proof.taking(content)
            async with self._filestore.receive() as receiver:
                while piece := await self._under_way.read(next, pieces, b""):
                    self.totals.read_bytes += len(piece)
                    await receiver.write(piece)
                return await receiver.finish(may_hold=False), content.media_type
        finally:
            await self._under_way.read(content.close)

    def _stage_small(self, item: Item, proof: "Proof") -> tuple[Staged, str | None]:
        with contextlib.closing(self._open(item)) as content:
            return self._filestore.hold(b"".join(proof.taking(content))), content.media_type

    # what became of it

    def _settle(self, entry: Entry) -> None:
        """Count what became of an item, and write it to the report."""
        self.totals.count(entry)
        self._report.add(entry)
        if entry.reason:
            self._told(entry)


class Proof:
    """That the bytes of an item are the right ones: hashed as they are read, and compared with what is said of them."""

    def __init__(self, item: Item, filestore: Filestore) -> None:
        self.size = 0
        self._item = item
        self._algorithm = filestore.algorithm
        self._hashes: dict[str, Hash] = {}

    def begin(self) -> None:
        """Begin anew."""
        expected = self._item.expected.algorithms if self._item.expected else ()
        self.size = 0
        self._hashes = {algorithm: algorithm.new() for algorithm in {self._algorithm, *expected}}

    def taking(self, content: Content) -> Iterator[bytes]:
        """Give the pieces of an item on, and hash them on the way. No more than it is said to have."""
        pieces = iter(content)
        while True:
            with _reading():
                piece = next(pieces, b"")
            if not piece:
                return
            self.size += len(piece)
            if self.size > self._item.size:
                raise SourceFault(f"it has grown beyond its {self._item.size} bytes while it was read; import again")
            for each in self._hashes.values():
                each.update(piece)
            yield piece

    def finish(self) -> Digest:
        """Return the digest that the store is to give it. Raises SourceFault where the bytes are not the right ones."""
        if self.size != self._item.size:
            raise SourceFault(f"{self.size} bytes came instead of {self._item.size}; import again")
        found = {name: each.hexdigest() for name, each in self._hashes.items()}
        expected = self._item.expected
        if expected and expected.hash not in (found[algorithm] for algorithm in expected.algorithms):
            shown = found[expected.algorithms[0]]
            raise SourceFault(f"damaged: its bytes have the hash {shown}, which is not what {expected.said_by} says")
        return Digest(found[self._algorithm])


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Tell an error of the source from one of the store."""
    try:
        yield
    except OSError as error:
        raise SourceFault(f"it cannot be read: {error.strerror or error}") from error


def _wish(item: Item, media_type: str | None) -> Wish:
    guessed = guess_type(item.name) if item.name else UNKNOWN_TYPE
    created_at = now_milliseconds() if item.created_at is None else item.created_at
    return Wish(item.name, item.media_type or media_type, guessed, item.expires_at, created_at)


def _failed(item: Item, reason: str) -> Entry:
    old_hash = item.expected.hash if item.expected else None
    return Entry(item.key, item.size, item.version, old_hash, None, "failed", reason)


def _next_of(items: Iterator[Item | Left]) -> list[Item | Left]:
    return list(islice(items, _LISTED_AT_ONCE))
