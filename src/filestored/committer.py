"""Group commit: one thread a process carries out all uploads and deletes that wait, and shares their flushes.

A durable small upload costs a share of a flush, not a flush. The order is that of the design: bytes flushed,
published by rename, folder flushed, catalogue committed, then the answer. The catalogue's write transaction is
the lock between publishing and removing: a blob is published, and found to be kept by nobody, only inside one.
"""

import asyncio
import contextlib
import errno
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from loguru import logger

from filestored.blobs.disk import DiskBlobStore
from filestored.blobs.layout import RESERVE_BYTES
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import now_milliseconds
from filestored.catalogue.transaction import Transaction
from filestored.changes import Change
from filestored.digest import Digest
from filestored.errors import (
    Busy,
    CatalogueBusy,
    CatalogueConflict,
    CatalogueError,
    CatalogueFault,
    CatalogueUnavailable,
    FilestoredError,
    OutOfSpace,
    RequestError,
    StorageFault,
    is_full,
)
from filestored.staging import Staged

MAX_BATCH = 256
# from this many files on one flush of the whole file system is cheaper than one of each file and folder
_SHARED_FLUSH = 4
_STOP_TIMEOUT_SECONDS = 60
_TRIES_LEFT = 3
_MAKE_ROOM_EVERY_SECONDS = 5.0

T = TypeVar("T")


@dataclass(slots=True)
class _Waiting(Generic[T]):
    change: Change[T]
    answer: "asyncio.Future[T]"
    outcome: T | None = None
    error: BaseException | None = None


class Committer:
    """The thread through which every change of the store goes, in this process."""

    def __init__(
        self,
        blobs: DiskBlobStore,
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
        self._gathered: list[_Waiting[Any]] = []
        self._queue: queue.SimpleQueue[list[_Waiting[Any]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def submit(self, change: Change[T]) -> "asyncio.Future[T]":
        """Queue a change; the future has its outcome when it is durable."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if not self._gathered:
            # what one turn of the loop brings goes over in one piece: waking a thread costs more than a small upload
            loop.call_soon(self._hand_over)
        self._gathered.append(_Waiting(change, answer))
        return answer

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._queue.put(gathered)

    def close(self) -> None:
        """Carry out what waits, then end the thread."""
        self._hand_over()
        self._queue.put([])
        self._thread.join(_STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        while batch := self._queue.get():
            is_last = False
            with contextlib.suppress(queue.Empty):
                while len(batch) < MAX_BATCH and not is_last:
                    following = self._queue.get_nowait()
                    is_last = not following
                    batch += following
            self._commit(batch)
            for waiting in batch:
                for staged in waiting.change.staged:
                    # what cannot be removed now is removed at the next start
                    with contextlib.suppress(OSError):
                        staged.discard()
            for loop in {waiting.answer.get_loop() for waiting in batch}:
                loop.call_soon_threadsafe(_answer, [waiting for waiting in batch if waiting.answer.get_loop() is loop])
            self._catalogue.limit_wal()
            if is_last:
                return

    def _commit(self, batch: list[_Waiting[Any]]) -> None:
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

    def _commit_on_full_disk(self, waiting: _Waiting[Any]) -> None:
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

    def _carry_out(self, batch: list[_Waiting[Any]]) -> None:
        if self._durable:
            self._flush_staged([staged for waiting in batch for staged in waiting.change.staged])
        with self._transaction(batch) as transaction:
            now = now_milliseconds()
            for waiting in batch:
                waiting.error = None
                try:
                    waiting.outcome = waiting.change.carry_out(transaction, self._blobs, now)
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
        if removing:
            self._settle(removing)
            self._forget([digest for waiting in removing for digest in waiting.change.removed])

    @contextlib.contextmanager
    def _transaction(self, batch: list[_Waiting[Any]]) -> Iterator[Transaction]:
        """Run the write transaction of a batch; tell where the disk fails the flush that ends it."""
        names = [name for waiting in batch for name in waiting.change.names]
        try:
            with self._catalogue.transaction(names) as transaction:
                yield transaction
        except CatalogueFault as error:
            if error.is_flush:
                self._flush_failed()
            raise

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

    def _settle(self, removing: list[_Waiting[Any]]) -> None:
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
        if not change.published:
            return
        try:
            with self._catalogue.transaction(change.published) as transaction:
                for digest in change.published:
                    if not transaction.is_named(digest):
                        self._blobs.remove(digest)
            self._forget(change.published)
        except Exception as error:
            logger.warning("a failed upload left a blob behind that no file names: {}", error)


def settle_removals(
    catalogue: Catalogue, blobs: DiskBlobStore, removed: Sequence[Digest] = (), *, flush: bool
) -> set[Digest]:
    """Remove the blobs whose removal is committed, except those that an owner keeps by now.

    ``removed`` are those that the caller has decided on; of all others only those are removed that nobody else is
    changing. Done right after each delete, and at start for what a crash left undone. Returns the blobs that the system
    does not let go; their removal stays noted, and holds up no other.
    """
    stuck = set()
    with catalogue.transaction(removed, flushed=False) as transaction:
        decided = transaction.take_removals()
        for digest in decided:
            try:
                if not transaction.is_named(digest):
                    blobs.remove(digest)
            except OSError as error:
                logger.error("blob {} cannot be removed: {}", digest, error)
                transaction.add_removal(digest)
                stuck.add(digest)
        if flush:
            blobs.flush(decided)
    return stuck


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


def _answer(batch: list[_Waiting[Any]]) -> None:
    for waiting in batch:
        if waiting.answer.cancelled():
            continue
        if waiting.error is not None:
            waiting.answer.set_exception(_explained(waiting.error))
        else:
            waiting.answer.set_result(waiting.outcome)


def _is_fault(error: BaseException) -> bool:
    """Tell whether a batch failed as a whole, and nothing of it is to be tried again.

    After a fault of the disk a second flush would not fail any more; a catalogue that another program keeps
    locked would be waited for once for each change.
    """
    is_disk_fault = isinstance(error, OSError) and error.errno == errno.EIO
    return is_disk_fault or isinstance(error, CatalogueFault | CatalogueBusy | CatalogueUnavailable)


def _explained(error: BaseException) -> BaseException:
    """Turn a fault of disk or database into what the client is told; the log has the rest."""
    if isinstance(error, FilestoredError) and not isinstance(error, CatalogueError):
        return error
    if is_full(error):
        return OutOfSpace("The disk is full; nothing was stored. Free some space and try again.")
    if isinstance(error, CatalogueError) and error.is_passing:
        return error.told()
    logger.opt(exception=error).error("the store failed")
    return StorageFault("The server's disk or catalogue failed; nothing was changed. Its log says why.")
