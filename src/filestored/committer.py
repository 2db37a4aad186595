"""Group commit: one thread a process carries out all uploads and deletes that wait, and shares their flushes.

A durable small upload costs a share of a flush, not a flush. The order is that of the design: bytes flushed,
published by rename, folder flushed, catalogue committed, then the answer. The catalogue's write transaction is
the lock between publishing and removing: a blob is published, and found to be kept by nobody, only inside one.

Where the blobs lie in a bucket bodies are brought there before (``carriers``), and removed from there after that
(``removers``): what takes long happens in threads of its own, without a lock.
"""

import asyncio
import contextlib
import errno
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger

from filestored.blobs.layout import RESERVE_BYTES
from filestored.blobs.store import MOST_FORESEEN, BlobStore
from filestored.carriers import admit, forget_put_over
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import now_milliseconds
from filestored.catalogue.transaction import Transaction
from filestored.changes import Change
from filestored.digest import Digest
from filestored.errands import Errands
from filestored.errors import (
    Busy,
    CatalogueBusy,
    CatalogueConflict,
    CatalogueFault,
    CatalogueUnavailable,
    RequestError,
    StorageFault,
    is_full,
)
from filestored.pending import Pending, run_or_end, tell
from filestored.removals import settle_removals
from filestored.staging import Staged

MAX_BATCH = 256
# from this many files on one flush of the whole file system is cheaper than one of each file and folder
_SHARED_FLUSH = 4
_STOP_TIMEOUT_SECONDS = 60
_TRIES_LEFT = 3
_MAKE_ROOM_EVERY_SECONDS = 5.0
_TIDIED_EVERY_SECONDS = 2.0

T = TypeVar("T")


class Committer:
    """The thread through which every change of the store goes, in this process."""

    def __init__(
        self,
        blobs: BlobStore,
        catalogue: Catalogue,
        *,
        durable: bool,
        changed: Callable[[Digest], None],
        reserve: Path,
        flush_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """``changed`` is called for each digest after its change is committed and before it is answered.

        ``flush_failed`` is called, in the committer's thread, for each flush of folders or catalogue that the disk
        has failed; staged bytes tell of theirs themselves.
        """
        self._blobs = blobs
        self._catalogue = catalogue
        self._durable = durable
        self._changed = changed
        self._reserve = reserve
        self._flush_failed = flush_failed
        self._make_room_at = 0.0
        self._gathered: list[Pending[Any]] = []
        self._queue: queue.SimpleQueue[list[Pending[Any]]] = queue.SimpleQueue()
        self._errands = (
            None if blobs.removes_at_once else Errands(blobs, catalogue, self._queue.put, self._end, changed)
        )
        self._thread = threading.Thread(target=run_or_end, args=(self._run,), name="committer", daemon=True)
        self._thread.start()

    def submit(self, change: Change[T]) -> "asyncio.Future[T]":
        """Queue a change; the future has its outcome when it is durable."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if not self._gathered:
            # what one turn of the loop brings goes over in one piece: waking a thread costs more than a small upload
            loop.call_soon(self._hand_over)
        self._gathered.append(Pending(change, answer))
        return answer

    def require_kept(self) -> None:
        """Raise BlobStoreError where the store is a bucket that another catalogue keeps by now. Blocks."""
        if self._errands is not None:
            self._errands.keeping.require()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and self._errands is not None:
            self._errands.begin(gathered)
        elif gathered:
            self._queue.put(gathered)

    def close(self) -> None:
        """Carry out what waits, then end the thread."""
        self._hand_over()
        if self._errands is not None:
            self._errands.wait(_STOP_TIMEOUT_SECONDS)
        self._queue.put([])
        self._thread.join(_STOP_TIMEOUT_SECONDS)
        if self._errands is not None:
            self._errands.close()

    def _run(self) -> None:
        while batch := self._next():
            is_last = False
            with contextlib.suppress(queue.Empty):
                while len(batch) < MAX_BATCH and not is_last and self._may_grow(batch):
                    following = self._queue.get_nowait()
                    is_last = not following
                    batch += following
            if brought := self._brought(batch):
                self._commit(brought)
            self._end(batch if self._errands is None else self._errands.hand_on(batch))
            if self._errands is not None:
                self._errands.tidy()
            self._catalogue.limit_wal()
            if is_last:
                return

    def _may_grow(self, batch: list[Pending[Any]]) -> bool:
        """Tell whether a bucket can be asked about still more in the moment that a transaction has for it."""
        return self._errands is None or sum(len(each.change.digests) for each in batch) < MOST_FORESEEN

    def _next(self) -> list[Pending[Any]]:
        """Wait for the next changes; tidy up meanwhile what earlier ones have left behind in a bucket."""
        while self._errands is not None and self._errands.has_left_behind:
            try:
                return self._queue.get(timeout=_TIDIED_EVERY_SECONDS)
            except queue.Empty:
                self._errands.tidy()
        return self._queue.get()

    def _end(self, batch: list[Pending[Any]]) -> None:
        """Let go of what was staged for changes that are over, and tell who waits for them."""
        for pending in batch:
            for staged in pending.change.staged:
                # what cannot be removed now is removed at the next start
                with contextlib.suppress(OSError):
                    staged.discard()
        tell(batch)

    def _commit(self, batch: list[Pending[Any]]) -> None:
        """Carry out a batch; where it fails as a whole, each change by itself, so that one fault stays one's own."""
        try:
            _again(partial(self._carry_out, batch))
        except Exception as error:
            if len(batch) > 1 and not _is_fault(error):
                for waiting in batch:
                    self._commit([waiting])
                return
            for waiting in batch[1:]:
                waiting.error = error
                self._withdraw(waiting.change)
            batch[0].error = error
            if is_full(error):
                self._commit_on_full_disk(batch[0])
            self._withdraw(batch[0].change)

    def _brought(self, batch: list[Pending[Any]]) -> list[Pending[Any]]:
        """Return those changes whose bodies could be brought to the bucket; take back what the others have put."""
        if self._errands is None:
            return batch
        for pending in batch:
            if pending.error is not None:
                self._withdraw(pending.change)
        return [pending for pending in batch if pending.error is None]

    def _commit_on_full_disk(self, waiting: Pending[Any]) -> None:
        """Try once more, with more room: what the log gives back, and for a delete the reserve too."""
        first = waiting.error
        try:
            if waiting.change.frees_space:
                # it may be gone: another worker is using it, or the disk had no room for it
                self._reserve.unlink(missing_ok=True)
                # deletes of small blobs would otherwise add more to the log than they free
                self._catalogue.reuse_wal()
            elif not self._make_room():
                return
            waiting.error = None
            self._carry_out([waiting])
        except Exception as error:
            # what the second attempt lacks may only be what the first one has used up
            waiting.error = error if is_full(error) or waiting.change.frees_space else first
        with contextlib.suppress(OSError):
            keep_reserve(self._reserve)

    def _make_room(self) -> bool:
        """Have the log give back its space, for which it takes some; tell whether the disk has gained room.

        An upload gets that, and never the reserve. Tried every few seconds at most: it may have to wait for readers.
        """
        now = time.monotonic()
        if now < self._make_room_at or not self._catalogue.is_wal_worth_giving_back():
            return False
        self._make_room_at = now + _MAKE_ROOM_EVERY_SECONDS
        self._reserve.unlink(missing_ok=True)
        has_gained = self._catalogue.give_back_wal()
        try:
            keep_reserve(self._reserve)
        except OSError:
            return False
        return has_gained

    def _carry_out(self, batch: list[Pending[Any]]) -> None:
        if self._durable and self._errands is None:
            # what a bucket has answered is durable, and the staged bytes are not needed after that
            self._flush_staged([staged for waiting in batch for staged in waiting.change.staged])
        with self._transaction(batch) as transaction:
            now = now_milliseconds()
            admitted = batch if self._errands is None else admit(batch, transaction, self._blobs)
            for waiting in admitted:
                waiting.error = None
                try:
                    waiting.outcome = waiting.change.carry_out(transaction, self._blobs, now)
                    forget_put_over(waiting, transaction)
                except RequestError as refusal:
                    waiting.error = refusal
            digests = [digest for waiting in batch for digest in waiting.change.digests]
            if self._durable:
                with self._flushing():
                    if len(digests) < _SHARED_FLUSH or not self._blobs.flush_everything():
                        self._blobs.flush(digests)
        self._forget(digests)
        for waiting in batch:
            if waiting.error is not None:
                # refused now, but an attempt before, with others that failed, may have published already
                self._withdraw(waiting.change)
        removing = [waiting for waiting in batch if waiting.change.removed]
        if removing and self._errands is None:
            self._settle(removing)
            self._forget([digest for waiting in removing for digest in waiting.change.removed])

    @contextlib.contextmanager
    def _transaction(self, batch: list[Pending[Any]]) -> Iterator[Transaction]:
        """Run the write transaction of a batch; tell where the disk fails the flush that ends it."""
        names = [name for waiting in batch for name in waiting.change.names]
        try:
            must_last = any(waiting.change.must_last for waiting in batch)
            with self._catalogue.transaction(names, must_last=must_last) as transaction:
                yield transaction
        except CatalogueFault as error:
            if error.is_flush:
                self._flush_failed()
            raise
        finally:
            self._blobs.forget_foreseen()

    @contextlib.contextmanager
    def _flushing(self) -> Iterator[None]:
        """Tell of an error of the disk that ends a block in which nothing but a flush can end with one."""
        try:
            yield
        except OSError:
            self._flush_failed()
            raise

    def _forget(self, digests: list[Digest]) -> None:
        """Let every worker look anew at what it remembers."""
        for digest in digests:
            self._changed(digest)

    def _settle(self, removing: list[Pending[Any]]) -> None:
        """Remove the blobs whose removal is committed: whatever fails now, the decision stands."""
        told: RequestError = StorageFault(
            "The file is deleted, but its bytes could not be removed; that is tried again with the next delete. The "
            "server's log says why."
        )
        try:
            removed = [digest for waiting in removing for digest in waiting.change.removed]
            with self._flushing():
                stuck = _again(partial(settle_removals, self._catalogue, self._blobs, removed, flush=self._durable))
        except Exception as error:
            logger.warning("removed blobs stay noted as to be removed: {}", error)
            stuck = {digest for waiting in removing for digest in waiting.change.removed if self._blobs.stat(digest)}
            if isinstance(error, CatalogueUnavailable):
                told = Busy("The file is deleted, but its bytes could not be removed yet; try again.", retry_after=2)
        for waiting in removing:
            if not stuck.isdisjoint(waiting.change.removed):
                waiting.error = told

    def _flush_staged(self, bodies: list[Staged]) -> None:
        fresh = [staged for staged in bodies if not staged.is_flushed and self._blobs.needs(staged)]
        for staged in fresh:
            staged.write_out()
        if len(fresh) >= _SHARED_FLUSH:
            with self._flushing():
                is_flushed = self._blobs.flush_everything()
            if is_flushed:
                for staged in fresh:
                    staged.is_flushed = True
                return
        for staged in fresh:
            staged.start_flush()
        for staged in fresh:
            staged.flush()

    def _withdraw(self, change: Change[Any]) -> None:
        """Take back what a failed upload published, unless somebody keeps it by now."""
        if self._errands is not None:
            # what was put but not published, or perhaps put, too
            self._errands.withdraw([staged.digest for staged in change.staged if staged.is_brought])
        if not change.published or self._errands is not None:
            return
        try:
            with self._catalogue.transaction(change.published) as transaction:
                for digest in change.published:
                    if not transaction.is_named(digest):
                        self._blobs.remove(digest)
            self._forget(change.published)
        except Exception as error:
            logger.warning("a failed upload left a blob behind that no file names: {}", error)


def keep_reserve(path: Path) -> None:
    """Set the space aside that a delete needs on a full disk. Raises OSError where there is none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    finally:
        os.close(descriptor)


def _again(work: Callable[[], T]) -> T:
    """Do what a transaction does; once more where that was undone, for the sake of another or with the connection."""
    for _ in range(_TRIES_LEFT):
        with contextlib.suppress(CatalogueConflict):
            return work()
    return work()


def _is_fault(error: BaseException) -> bool:
    """Tell whether a batch failed as a whole, and nothing of it is to be tried again.

    After a fault of the disk a second flush would not fail any more; a catalogue that another program keeps
    locked would be waited for once for each change.
    """
    is_disk_fault = isinstance(error, OSError) and error.errno == errno.EIO
    return is_disk_fault or isinstance(error, CatalogueFault | CatalogueBusy | CatalogueUnavailable)
