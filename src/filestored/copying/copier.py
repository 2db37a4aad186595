"""Going through one store and bringing to the other what it lacks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from filestored.client.errors import NotAllowed, TooMuch, Unreachable
from filestored.copying.entries import CopyFault, Destination, Entry, Gone, Origin, Trouble
from filestored.copying.ledger import Ledger
from filestored.errors import BlobStoreUnavailable, CatalogueError, FilestoredError, OutOfSpace
from filestored.importing.underway import UnderWay

_LISTED_AT_ONCE = 256
# what would befall every other blob as well
_ENDS_IT = (CatalogueError, BlobStoreUnavailable, Unreachable, NotAllowed)
_NO_ROOM = (OutOfSpace, TooMuch)
# bytes: where as many do not fit there is no room for anything
_LARGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to tell of one blob.

    ``state`` is ``damaged``, ``missing``, ``failed`` or ``skipped`` (no blob); ``healed`` (it was damaged at the
    target); ``gone`` (deleted at the source since it was copied); ``renamed`` (it has another ``hash`` there);
    ``apart`` (something of access that did not come).
    """

    name: str
    state: str
    reason: str
    hash: str | None = None


@dataclass(slots=True)
class Totals:
    """How many blobs became what; sizes in bytes."""

    copied: int = 0
    copied_bytes: int = 0
    updated: int = 0
    """Blobs that were there, and whose files have become what they are at the source."""
    present: int = 0
    verified: int = 0
    healed: int = 0
    read_bytes: int = 0
    damaged: int = 0
    missing: int = 0
    skipped: int = 0
    """What is no blob."""
    failed: int = 0
    gone: int = 0

    def add_read(self, count: int) -> None:
        """Count bytes that were read. From any thread: it serves those who watch, and is not exact."""
        self.read_bytes += count

    @property
    def is_all_well(self) -> bool:
        """Whether everything that should be at the target is."""
        return not (self.damaged or self.missing or self.failed)


class Copy:
    """One run from a source to a target."""

    def __init__(
        self, origin: Origin, destination: Destination, ledger: Ledger, under_way: UnderWay, totals: Totals, *,
        verify: bool, told: Callable[[Finding], None],
    ) -> None:  # fmt: skip
        """``verify`` re-reads what the target has already; ``told`` is called for each finding."""
        self.totals = totals
        self._origin = origin
        self._destination = destination
        self._ledger = ledger
        self._under_way = under_way
        self._verify = verify
        self._told = told
        self._is_whole = True

    async def run(self) -> bool:
        """Bring over what is lacking; False where it was told to stop before the end.

        Raises FilestoredError, OSError where one of the stores cannot be used, or takes no more.
        """
        try:
            await self._begin_all(iter(self._origin))
        finally:
            await self._under_way.finish()
        if self._under_way.is_stopping:
            return False
        # what could not be listed has not gone
        if self._is_whole:
            await self._tell_gone()
        return True

    async def _begin_all(self, entries: Iterator[Entry | Trouble]) -> None:
        while not self._under_way.is_stopping and (batch := await self._under_way.read(_next_of, entries)):
            for trouble in batch:
                if isinstance(trouble, Trouble):
                    self._note_trouble(trouble)
            present = [entry for entry in batch if isinstance(entry, Entry)]
            settled = await self._destination.settled(present)
            for entry in present:
                if entry in settled and not self._verify:
                    self._settle(entry, self._ledger.hash_of(entry.digest) or entry.digest)
                elif not await self._under_way.begin(entry.size, partial(self._copy, entry, entry in settled)):
                    break

    def _note_trouble(self, trouble: Trouble) -> None:
        self._is_whole = self._is_whole and not trouble.hides_others
        self._ledger.meet(trouble.name)
        self._count_fault(trouble.name, trouble.state, trouble.reason)

    async def _copy(self, entry: Entry, is_settled: bool) -> None:
        try:
            is_well = await self._destination.verify(entry) if self._verify else None
            if is_well:
                self.totals.verified += 1
            if is_well and is_settled:
                self._settle(entry, self._ledger.hash_of(entry.digest) or entry.digest)
                return
            taken = await self._destination.take(entry, self._origin)
            if is_well is False:
                self.totals.healed += 1
                self._told(Finding(entry.digest, "healed", "it was damaged at the target, and has been copied anew"))
        except Gone:
            return
        except CopyFault as fault:
            self._ledger.meet(entry.digest)
            self._count_fault(entry.digest, fault.state, str(fault))
        except _NO_ROOM as error:
            if entry.size > _LARGE:
                # smaller ones may fit
                self._ledger.meet(entry.digest)
                self._count_fault(entry.digest, "failed", str(error))
            else:
                self._under_way.stop_for(error)
        except _ENDS_IT as error:
            self._under_way.stop_for(error)
        except FilestoredError as error:
            if not await self._under_way.read(self._origin.has, entry.digest, entry.owners[0]):
                # what went wrong is that it was deleted meanwhile
                return
            self._ledger.meet(entry.digest)
            self._count_fault(entry.digest, "failed", str(error))
        else:
            self._note_taken(entry, taken.hash, was_sent=taken.was_sent)

    def _note_taken(self, entry: Entry, hash_: str, *, was_sent: bool) -> None:
        if was_sent:
            self.totals.copied += 1
            self.totals.copied_bytes += entry.size
        else:
            self.totals.updated += 1
        if hash_ != entry.digest:
            self._told(Finding(entry.digest, "renamed", "the target names it by another algorithm", hash_))
        self._ledger.add(entry, hash_, by_owner=self._destination.is_folder)

    def _settle(self, entry: Entry, hash_: str) -> None:
        self.totals.present += 1
        self._ledger.add(entry, hash_, by_owner=self._destination.is_folder)

    def _count_fault(self, name: str, state: str, reason: str) -> None:
        setattr(self.totals, state, getattr(self.totals, state) + 1)
        self._told(Finding(name, state, reason))

    async def _tell_gone(self) -> None:
        """Tell what was copied once and is not at the source any more."""
        for digest, owner, hash_ in self._ledger.not_met():
            if await self._under_way.read(self._origin.has, digest, owner):
                continue
            whose = f"{owner}'s file" if owner else "the blob"
            self.totals.gone += 1
            self._told(Finding(digest, "gone", f"{whose} was deleted at the source since it was copied", hash_))


def _next_of(entries: Iterator[Entry | Trouble]) -> list[Entry | Trouble]:
    return list(islice(entries, _LISTED_AT_ONCE))
