"""Bringing bodies to a bucket before they are committed: that takes long, and so happens without any lock.

::

    submitted ─► brought ─► committer: sees under the lock that all is there ─► committed
                    ▲                     │
                    └──── postponed: it is gone again, or is being removed ◄────┘

Not for stores on a disk, whose bodies are published by the committer itself.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from filestored.blobs.store import BlobStore
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import Removal
from filestored.catalogue.transaction import Transaction
from filestored.digest import Digest
from filestored.errors import BlobStoreError, Busy, CatalogueError, NotBrought
from filestored.keeping import Keeping
from filestored.pending import Pending, run_or_end
from filestored.removals import is_alive
from filestored.staging import Staged

LARGE_BYTES = 8 << 20
"""From this size on a body is brought beside the small ones, which do not wait for it."""

PATIENCE_SECONDS = 10.0
"""How long an upload is postponed at most, from the first time on."""

_SMALL_AT_ONCE = 8
_LARGE_AT_ONCE = 4
_LOOKED_AGAIN_AFTER_SECONDS = 0.05
_QUEUED_SECONDS = 600.0
_QUEUE_LOOKED_AT_EVERY_SECONDS = 5.0


class Carriers:
    """The threads of a process that bring bodies to its bucket: eight for small ones, four for large ones.

    What waits for them is bounded by the uploads under way, and waits ten minutes at most. A request that goes away
    meanwhile changes nothing.
    """

    def __init__(
        self, blobs: BlobStore, catalogue: Catalogue, keeping: Keeping, carried: Callable[[Pending[Any]], None]
    ) -> None:
        """``carried`` is called, in any thread, for each change whose bodies are there, or that has an error."""
        self._blobs = blobs
        self._catalogue = catalogue
        self._keeping = keeping
        self._carried = carried
        self._small = ThreadPoolExecutor(_SMALL_AT_ONCE, "carrier")
        self._large = ThreadPoolExecutor(_LARGE_AT_ONCE, "large carrier")
        self._lock = threading.Lock()
        self._postponed: list[Pending[Any]] = []
        self._queued: set[_Body] = set()
        self._has_work = threading.Event()
        self._is_closed = False
        self._watch = threading.Thread(target=run_or_end, args=(self._run,), name="postponed", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """End the threads. Nothing must be on its way any more."""
        self._is_closed = True
        self._has_work.set()
        self._watch.join()
        for threads in (self._small, self._large):
            threads.shutdown(wait=False, cancel_futures=True)

    def carry(self, pending: Pending[Any]) -> None:
        """Bring all bodies of a change, and hand it on."""
        load = _Load(pending)
        if not load.left:
            self._carried(pending)
        bodies = [_Body(load, staged) for staged in pending.change.staged]
        with self._lock:
            self._queued.update(bodies)
        self._has_work.set()
        for body in bodies:
            threads = self._large if body.staged.size >= LARGE_BYTES else self._small
            threads.submit(self._bring, body)

    def _bring(self, body: "_Body") -> None:
        with self._lock:
            if body not in self._queued:
                # given up
                return
            self._queued.remove(body)
        pending = body.load.pending
        try:
            if pending.error is None:
                self._keeping.require()
                self._blobs.bring(body.staged, anew=body.staged.digest in pending.put_over)
        except BaseException as error:
            # the library's own failures are no Exception
            pending.error = error
        self._put_down(body.load)

    def _put_down(self, load: "_Load") -> None:
        with self._lock:
            load.left -= 1
            is_last = load.left == 0
        if is_last:
            self._carried(load.pending)

    def _give_up_late(self) -> None:
        """Refuse what has waited too long for a thread: all of them are busy with bodies that take long."""
        now = time.monotonic()
        with self._lock:
            late = [body for body in self._queued if now > body.until]
            self._queued.difference_update(late)
        for body in late:
            body.load.pending.error = Busy("Too many uploads wait for the object store; try again.", retry_after=30)
            self._put_down(body.load)

    def carry_again(self, pending: Pending[Any]) -> None:
        """Bring the bodies of a postponed change once more, as soon as nobody removes what it is about."""
        if pending.postponed_until is None:
            pending.postponed_until = time.monotonic() + PATIENCE_SECONDS
        pending.put_over = {}
        with self._lock:
            self._postponed.append(pending)
        self._has_work.set()

    def _run(self) -> None:
        while not self._is_closed:
            self._has_work.wait(_QUEUE_LOOKED_AT_EVERY_SECONDS if self._queued else None)
            self._give_up_late()
            with self._lock:
                waiting, self._postponed = self._postponed, []
            waiting = self._look_at(waiting) if waiting else []
            with self._lock:
                self._postponed += waiting
                if not self._postponed:
                    self._has_work.clear()
            time.sleep(_LOOKED_AGAIN_AFTER_SECONDS)

    def _look_at(self, waiting: list[Pending[Any]]) -> list[Pending[Any]]:
        """Let those go on that can; return the others."""
        try:
            removals = self._catalogue.removals_of(digest for each in waiting for digest in each.change.claims)
        except CatalogueError as error:
            for pending in waiting:
                pending.error = error
                self._carried(pending)
            return []
        return [pending for pending in waiting if not self._goes_on(pending, removals)]

    def _goes_on(self, pending: Pending[Any], removals: dict[Digest, Removal]) -> bool:
        mine = [removals[digest] for digest in pending.change.claims if digest in removals]
        is_over = pending.postponed_until is not None and time.monotonic() >= pending.postponed_until
        if is_over:
            pending.error = pending.obstacle
            self._carried(pending)
        elif any(is_alive(removal.age) for removal in mine):
            return False
        else:
            # so old that they cannot happen any more, or have: the bytes must be younger
            pending.put_over = {removal.digest: removal.sent_at for removal in mine if removal.sent_at is not None}
            self.carry(pending)
        return True


class _Body:
    """One of them, that waits for a thread until some time (monotonic seconds)."""

    def __init__(self, load: "_Load", staged: Staged) -> None:
        self.load = load
        self.staged = staged
        self.until = time.monotonic() + _QUEUED_SECONDS


class _Load:
    """The bodies of one change, and how many of them are still to be brought."""

    def __init__(self, pending: Pending[Any]) -> None:
        self.pending = pending
        self.left = len(pending.change.staged)


def admit(batch: list[Pending[Any]], transaction: Transaction, blobs: BlobStore) -> list[Pending[Any]]:
    """Return those changes that can be carried out in a transaction, which holds the locks of all of them.

    Of the others those that bring bodies, or need some, have an obstacle now, and are to be brought again; the rest has
    an error. What the blob store has foreseen for them has to be forgotten when the transaction ends.
    """
    times = Counter(digest for pending in batch for digest in pending.change.digests)
    shared = {digest for digest, count in times.items() if count > 1}
    asks = {pending: pending.change.asks(transaction, shared) for pending in batch}
    unseen: BlobStoreError | None = None
    try:
        blobs.foresee({digest for digests in asks.values() for digest in digests})
    except BlobStoreError as error:
        unseen = error
    removals = transaction.removals_of(digest for pending in batch for digest in pending.change.claims)
    admitted = []
    for pending in batch:
        pending.error = None
        if unseen is not None and asks[pending]:
            pending.obstacle = unseen
        else:
            pending.obstacle = _obstacle(pending, removals, blobs)
        if pending.obstacle is None:
            admitted.append(pending)
        elif not pending.change.claims:
            pending.error = pending.obstacle
    return admitted


def forget_put_over(pending: Pending[Any], transaction: Transaction) -> None:
    """Forget the old removals over which a change has put its bytes anew, once it is carried out.

    Where it is refused they stay: what was put is nobody's, and goes by them.
    """
    for digest, sent_at in pending.put_over.items():
        transaction.forget_removal(digest, sent_at)


def _obstacle(pending: Pending[Any], removals: dict[Digest, Removal], blobs: BlobStore) -> Exception | None:
    """Return why a change cannot be carried out yet."""
    for digest in pending.change.claims:
        removal = removals.get(digest)
        if removal is None or removal.sent_at is None:
            # decided only, or not even that: whoever carries it out will see the new file
            continue
        if is_alive(removal.age) or pending.put_over.get(digest) != removal.sent_at:
            return Busy("These bytes are just being removed from the object store; try again.", retry_after=5)
    return next((NotBrought(staged.digest) for staged in pending.change.staged if blobs.needs(staged)), None)
