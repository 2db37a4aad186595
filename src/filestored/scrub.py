"""Re-reading stored blobs at a chosen rate and comparing each with its name, beside a daemon or without one.

::

    Walk (names in the store) ┐
                              ├─ in the order of digests, each once ─ read ─ compare ─ quarantine ─ Finding
    live_digests (catalogue) ─┘                                            └ look whether it is missing ┘

How far a pass has come is in the catalogue's note ``scrub``, so that an interrupted one goes on where it stopped.
"""

import contextlib
import errno
import heapq
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from loguru import logger

from filestored.blobs.disk import DiskHandle
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import open_blobs
from filestored.blobs.store import BlobHandle
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import now_milliseconds
from filestored.digest import Algorithm, Digest
from filestored.errors import BlobBroken, BlobStoreError, CatalogueError
from filestored.passes import NOTE, Pass
from filestored.removals import take_out_of_bucket
from filestored.shared import have_forgotten

_PIECE = 1 << 20
_SMALLEST_PIECE = 4096
_PIECES_A_SECOND = 8
_SAVED_SECONDS = 0.25
# shorter waits are added up: each would take longer than it should
_SHORTEST_WAIT_SECONDS = 0.01
_NOTED_EVERY_SECONDS = 2.0
_WATCHED_EVERY_SECONDS = 0.5
# digests of the catalogue that are asked for together: those that begin with the same three digits
_STRETCHES = 16**3
# these are this process's own troubles, not a blob's
_NOT_THE_BLOBS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: ``state`` is "damaged" or "missing".

    ``name`` is the digest, or the folder of blobs that cannot be listed; ``moved_to`` is where the damaged blob lies
    now, None where it was left in its place.
    """

    name: str
    state: str
    reason: str
    moved_to: Path | str | None = None

    def __str__(self) -> str:
        moved = f"; moved to {self.moved_to}" if self.moved_to else ""
        return f"{self.name} {self.state}: {self.reason}{moved}"


class TokenBucket:
    """Bytes that may be read: as many each second as the rate says, saved up for at most a quarter of a second."""

    def __init__(self, rate: int | None) -> None:
        """``rate`` is in bytes a second, None for as many as there are."""
        self._rate = rate
        self._earned_at = time.monotonic()

    @property
    def piece(self) -> int:
        """How many bytes to read at a time, so that they come evenly."""
        return _PIECE if self._rate is None else max(_SMALLEST_PIECE, min(_PIECE, self._rate // _PIECES_A_SECOND))

    def take(self, count: int) -> float:
        """Take bytes; return for how many seconds to wait before the next."""
        if self._rate is None:
            return 0.0
        now = time.monotonic()
        self._earned_at = max(self._earned_at, now - _SAVED_SECONDS) + count / self._rate
        wait = self._earned_at - now
        return wait if wait >= _SHORTEST_WAIT_SECONDS else 0.0


class _Told(Exception):
    """The scrub is to stop."""


class Scrub:
    """A pass over a store, or the rest of one. Run it under ``exclusion.only_one``."""

    def __init__(
        self,
        folder: StoreFolder,
        catalogue: Catalogue,
        *,
        rate: int | None,
        pause: Callable[[float], bool],
        found: Callable[[Finding], None],
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """``rate`` is in bytes a second, None for no limit. ``pause`` waits for so many seconds, and tells whether to
        stop. ``found`` is called for each finding, ``watch`` now and then.
        """
        self.state = Pass()
        """How far the pass has come."""
        self.read_bytes = 0
        """How much this run has read."""
        self.others = 0
        """Names in the store that are no blobs, in what this run has looked at."""
        self._folder = folder
        self._catalogue = catalogue
        self._blobs = open_blobs(folder)
        self._algorithms = folder.algorithms()
        self._bucket = TokenBucket(rate)
        self._buffer = memoryview(bytearray(self._bucket.piece))
        self._pause = pause
        self._found = found
        self._watch = watch
        self._note_at = self._watch_at = 0.0

    def close(self) -> None:
        """Let go of the store."""
        self._blobs.close()

    def run(self, *, restart: bool = False) -> bool:
        """Go on with the pass that was interrupted, or begin one; False where it was told to stop before the end.

        Raises OSError, CatalogueError, StartError where the store or the catalogue cannot be used.
        """
        self.state = Pass.recall(self._catalogue.note(NOTE), restart=restart)
        self._note_if_possible()
        try:
            for digest, size in self._digests():
                self._look_at(digest, size)
                self.state.position = digest
                self._breathe(0)
        except _Told:
            self._note_if_possible()
            return False
        self.state.finish()
        try:
            self._note(flushed=True)
        except CatalogueError as error:
            # what was found is told all the same; only the next scrub will not know how far this one came
            logger.warning("that this scrub has ended could not be noted: {}", error)
        return True

    # what there is to look at

    def _digests(self) -> Iterator[tuple[Digest, int | None]]:
        """Give all digests behind the position in their order, with the size that the catalogue knows, if any."""
        walk = self._blobs.walk(self.state.position, failed=self._cannot_list)
        in_store: Iterator[tuple[Digest, int | None]] = ((digest, None) for digest in walk)
        for digest, group in groupby(heapq.merge(in_store, self._named(), key=itemgetter(0)), itemgetter(0)):
            self.others = walk.others
            yield digest, next((size for _, size in group if size is not None), None)
        self.others = walk.others

    def _named(self) -> Iterator[tuple[Digest, int | None]]:
        """Give the digests that live files name, in order, and their sizes."""
        position = self.state.position
        for number in range(int(position[:3] or "0", 16), _STRETCHES):
            start = f"{number:03x}"
            stop = f"{number + 1:03x}" if number + 1 < _STRETCHES else "g"
            digests = self._catalogue.live_digests(start, stop, now_milliseconds())
            yield from sorted((digest, size) for digest, size in digests.items() if digest > position)

    def _cannot_list(self, shard: str, error: OSError) -> None:
        self._report(Finding(shard, "damaged", f"the folder cannot be listed: {error.strerror or error}"))

    # looking at one of them

    def _look_at(self, digest: Digest, size: int | None) -> None:
        """Compare a blob with its name and, where the catalogue knows one, with its size."""
        blob = None
        try:
            blob = self._blobs.open(digest, size)
            fault = self._compare(digest, blob) if blob else None
        except OSError as error:
            if error.errno in _NOT_THE_BLOBS:
                raise
            self._report_unreadable(digest, blob, error.strerror or str(error))
            return
        except BlobBroken as error:
            # it stays in its place: its parts may be away for a while only
            self._report_unreadable(digest, blob, error.reason)
            return
        except BlobStoreError:
            # what was deleted meanwhile cannot be read to its end
            if blob is not None and self._blobs.identity(digest) != blob.identity:
                return
            raise
        if blob is not None and fault is not None:
            self._set_aside(digest, blob, fault)
            return
        if blob is not None:
            self.state.verified_blobs += 1
            self.state.verified_bytes += blob.size
        if size is not None and (blob is None or blob.size != size):
            self._look_whether_missing(digest)

    def _compare(self, digest: Digest, blob: BlobHandle) -> str | None:
        """Return what is wrong with a blob's bytes, None where they are what its name says. Raises OSError."""
        hashes: list[str] = []
        for algorithms in self._candidates(digest):
            hashes += self._hash(blob, algorithms)
            if digest in hashes:
                return None
        return f"its {blob.size} bytes have the hash {hashes[0]}"

    def _candidates(self, digest: Digest) -> list[list[Algorithm]]:
        """Return which algorithms may have made a digest: those the store lists, and then, before a blob is called
        damaged, the others of that length, since a mark that was made anew may not know them all.
        """
        possible = [algorithm for algorithm in Algorithm if algorithm.hex_length == len(digest)]
        listed = [algorithm for algorithm in possible if algorithm in self._algorithms]
        unlisted = [algorithm for algorithm in possible if algorithm not in listed]
        return [algorithms for algorithms in (listed, unlisted) if algorithms]

    def _hash(self, blob: BlobHandle, algorithms: list[Algorithm]) -> list[str]:
        """Read a blob and return its hashes. Raises OSError, BlobStoreError."""
        hashes = [algorithm.new() for algorithm in algorithms]
        for piece in self._from_disk(blob) if isinstance(blob, DiskHandle) else blob.pieces():
            for each in hashes:
                each.update(piece)
            self.read_bytes += len(piece)
            self._breathe(len(piece))
        return [each.hexdigest() for each in hashes]

    def _from_disk(self, blob: DiskHandle) -> Iterator[memoryview]:
        """Read a blob from the disk, and leave what the system keeps in memory as it is. Raises OSError."""
        descriptor, position = blob.descriptor, 0
        is_in_memory = _is_in_memory(blob)
        if is_in_memory:
            # what is to be compared is what the disk has; reading it puts it into memory again
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while count := os.preadv(descriptor, [self._buffer], position):
            yield self._buffer[:count]
            if not is_in_memory:
                os.posix_fadvise(descriptor, position, count, os.POSIX_FADV_DONTNEED)
            position += count

    def _report_unreadable(self, digest: Digest, blob: BlobHandle | None, reason: str) -> None:
        with contextlib.suppress(OSError):
            if blob is not None and self._blobs.identity(digest) != blob.identity:
                return
        self._report(Finding(digest, "damaged", f"it cannot be read: {reason}"))

    def _set_aside(self, digest: Digest, blob: BlobHandle, fault: str) -> None:
        """Move a damaged blob to quarantine, unless it was removed or replaced while it was read."""
        moved_to = None
        try:
            moved_to = self._move_away(digest, blob)
        except OSError as error:
            fault = f"{fault}; it cannot be moved away: {error.strerror or error}"
        except BlobStoreError as error:
            fault = f"{fault}; it cannot be moved away: {error.reason}"
        else:
            if moved_to is None:
                return
        finally:
            have_forgotten(self._folder.shared_file, [digest])
        self._report(Finding(digest, "damaged", fault, moved_to))

    def _move_away(self, digest: Digest, blob: BlobHandle) -> Path | str | None:
        """Move a blob to quarantine; return where it lies, None where it was removed or replaced meanwhile."""
        blobs, catalogue = self._blobs, self._catalogue
        if blobs.removes_at_once:
            # nobody publishes or removes meanwhile, and the open handle keeps the file's number from being used again
            with catalogue.transaction([digest], flushed=False):
                return blobs.quarantine(digest, blob.identity)
        # a copy, which may take long
        moved_to = blobs.quarantine(digest, blob.identity)
        if moved_to is None:
            return None
        is_out = take_out_of_bucket(catalogue, blobs, digest, lambda: blobs.identity(digest) == blob.identity)
        return moved_to if is_out else None

    def _look_whether_missing(self, digest: Digest) -> None:
        """Look again while nobody publishes or removes: an upload or a delete may have come between."""
        with self._catalogue.transaction([digest], flushed=False) as transaction:
            now = now_milliseconds()
            sizes = {file.size for file in transaction.find(digest) if file.is_live(now)}
            blob = self._blobs.stat(digest)
        if not sizes or (blob is not None and sizes == {blob.size}):
            return
        wanted = " or ".join(str(size) for size in sorted(sizes))
        if blob is not None:
            reason = f"its blob has {blob.size} bytes instead of {wanted}"
        else:
            reason = f"a file names it, but there is no blob (of {wanted} bytes)"
        if self._blobs.removes_at_once and (self._folder.quarantine / digest).exists():
            reason += "; a damaged one lies in quarantine"
        self._report(Finding(digest, "missing", reason))

    def _report(self, finding: Finding) -> None:
        if finding.state == "missing":
            self.state.missing += 1
        else:
            self.state.damaged += 1
        logger.error("scrub: {}", finding)
        self._found(finding)
        # at once, but together with the position: what is found again after a crash would be counted twice
        self._note_at = 0.0

    # between two pieces

    def _breathe(self, count: int) -> None:
        """Wait as long as the rate demands after ``count`` bytes; raise _Told where it is time to stop."""
        now = time.monotonic()
        if now >= self._watch_at:
            self._watch_at = now + _WATCHED_EVERY_SECONDS
            self._watch()
        if now >= self._note_at:
            self._note_if_possible()
        if self._pause(self._bucket.take(count)):
            raise _Told

    def _note_if_possible(self) -> None:
        # a full disk, or a catalogue that somebody keeps locked, is no reason to stop reading
        with contextlib.suppress(CatalogueError):
            self._note()

    def _note(self, *, flushed: bool = False) -> None:
        self._note_at = time.monotonic() + _NOTED_EVERY_SECONDS
        with self._catalogue.transaction(flushed=flushed) as transaction:
            transaction.set_note(NOTE, self.state.noted())


def _is_in_memory(blob: DiskHandle) -> bool:
    """Tell whether the system has a blob in memory, by its first and its last byte."""
    try:
        return all(
            os.preadv(blob.descriptor, [bytearray(1)], place, os.RWF_NOWAIT) for place in {0, max(0, blob.size - 1)}
        )
    except OSError:
        # not in memory, or a file system that cannot tell
        return False
