"""Carrying out removals that are decided: at once on a disk, step by step in a bucket.

A bucket may carry out a DELETE long after whoever sent it was killed, and so lost its locks. Hence::

    decided ─ a row in removals ─► sent ─ sent_at, committed ─► DELETE, without a transaction ─► over ─ the row goes
       │                            │
       └ named again: forgotten     └ no answer: the row stays; after SENT_LIFE_MS anybody may send it again

Nobody publishes a digest whose removal is sent. Whoever wants to waits until the row is gone, or is so old that no
request of that time can be alive; then the bytes are put anew. A request is signed before ``sent_at`` is set, and good
for half a minute: the engine refuses it later, however long it or its sender was held up. ``docs/architecture.md`` has
the argument.
"""

import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from loguru import logger

from filestored.blobs.store import BlobStore, Permit
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import now_milliseconds
from filestored.catalogue.statements import CLOCK_STEP_MS
from filestored.catalogue.transaction import Transaction
from filestored.changes import Change
from filestored.digest import Digest
from filestored.errors import BlobStoreError, BlobStoreUnavailable, CatalogueError, FilestoredError

SENT_LIFE_MS = 60_000
"""How long after it was sent a removal may still happen, in milliseconds: longer than any request lives."""

AT_ONCE = 16
"""How many requests to remove a blob are under way at once, in a process."""

# together with the longest life of a request this stays far below SENT_LIFE_MS
_BEGUN_WITHIN_SECONDS = 20.0
_PATIENCE_SECONDS = 5.0
_TRIED_AGAIN_AFTER_SECONDS = 0.3

T = TypeVar("T")

Do = Callable[[Change[Any]], Any]
"""What carries out a change, and returns its outcome once that is durable."""


def is_alive(age: int | None) -> bool:
    """Tell whether a removal that was sent ``age`` milliseconds ago may still happen; None was not sent."""
    return age is not None and age < SENT_LIFE_MS


class SendRemovals(Change[dict[Digest, int]]):
    """Note that the bucket is asked now for those removals that are still to be: when, by digest."""

    frees_space = True
    must_last = True

    def asks(self, transaction: Transaction, shared: Container[Digest] = ()) -> list[Digest]:
        """See Change."""
        return []

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> dict[Digest, int]:
        """Forget those whose blob has a file again; leave those that somebody else is at."""
        sent = {}
        for digest, removal in transaction.removals_of(self.digests).items():
            if removal.age is not None and removal.age < -CLOCK_STEP_MS:
                # the clock was set back since: its life begins anew, and so is over in a minute
                transaction.send_removal(digest)
                continue
            if is_alive(removal.age):
                continue
            if transaction.is_named(digest):
                transaction.drop_removal(digest)
            else:
                sent[digest] = transaction.send_removal(digest)
        return sent


class EndRemovals(Change[None]):
    """Note what has become of removals, by the time they were sent at."""

    frees_space = True

    def __init__(self, over: dict[Digest, int], unsent: dict[Digest, int]) -> None:
        """``over`` are those that the bucket has answered, ``unsent`` those that never reached it."""
        super().__init__([*over, *unsent])
        self._over = over
        self._unsent = unsent

    def asks(self, transaction: Transaction, shared: Container[Digest] = ()) -> list[Digest]:
        """See Change."""
        return []

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> None:
        """Note it, of those that nobody has sent again since."""
        for digest, sent_at in self._over.items():
            transaction.forget_removal(digest, sent_at)
        for digest, sent_at in self._unsent.items():
            transaction.unsend_removal(digest, sent_at)


class ResumeRemovals(Change[int]):
    """Take up removals that were left undone, some hundreds at most; how many."""

    frees_space = True

    def __init__(self) -> None:
        super().__init__([])

    def carry_out(self, transaction: Transaction, blobs: BlobStore, now: int) -> int:
        """Choose them: that they are decided is noted already."""
        self.removed = transaction.due_removals(SENT_LIFE_MS)
        return len(self.removed)


def remove_from_bucket(digests: Sequence[Digest], blobs: BlobStore, do: Do, threads: Executor) -> set[Digest]:
    """Carry out removals that are decided; return those that are still to be. Blocks, some 20 s at most.

    Those that somebody else carries out just now count as done. Raises FilestoredError where nothing could be noted.
    """
    # before the moment that the database notes
    began = _now()
    permits = blobs.permits(digests)
    sent: dict[Digest, int] = do(SendRemovals(list(digests)))
    if not sent:
        return set()
    requests = _Requests(blobs, began, permits)
    unsent = requests.remove(list(sent), threads)
    over = {digest: sent[digest] for digest in requests.over}
    try:
        do(EndRemovals(over, {digest: sent[digest] for digest in unsent}))
    except FilestoredError as error:
        # they are gone all the same, and are asked for once more in a minute
        logger.warning("blobs were removed, which could not be noted: {}", error)
    return set(sent) - requests.over


class _Requests:
    """The requests of one go. After one that fails no other is begun but to look whether it was for a moment."""

    def __init__(self, blobs: BlobStore, began: float, permits: Mapping[Digest, Permit]) -> None:
        self.over: set[Digest] = set()
        """What the bucket has answered."""
        self._blobs = blobs
        self._began = began
        self._permits = permits
        self._has_failed = False

    def remove(self, digests: list[Digest], threads: Executor) -> list[Digest]:
        """Send them; return those that surely did not reach the bucket."""
        while True:
            self._has_failed = False
            reached = list(threads.map(self._reaches, digests))
            digests = [digest for digest, is_sent in zip(digests, reached, strict=True) if not is_sent]
            if not digests or _now() > self._began + _PATIENCE_SECONDS:
                return digests
            time.sleep(_TRIED_AGAIN_AFTER_SECONDS)

    def _reaches(self, digest: Digest) -> bool:
        """Ask for one removal; tell whether the bucket may have heard of it."""
        if self._has_failed or _is_late(self._began):
            return False
        try:
            self._blobs.remove(digest, self._permits.get(digest))
        except BlobStoreError as error:
            if not self._has_failed:
                self._has_failed = True
                logger.warning("blob {} cannot be removed yet: {}", digest, error)
            return error.was_sent
        self.over.add(digest)
        return True


def _now() -> float:
    """Return seconds that also pass while the machine sleeps: what was begun before must not go on after that."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_late(began: float) -> bool:
    """Tell whether no request may be begun any more for what was begun then."""
    return _now() > began + _BEGUN_WITHIN_SECONDS


def settle_removals(
    catalogue: Catalogue, blobs: BlobStore, removed: Sequence[Digest] = (), *, flush: bool, is_patient: bool = False
) -> set[Digest]:
    """Carry out the removals that are committed, except of blobs that an owner keeps by now.

    ``removed`` are those that the caller has decided on; of all others only those are removed that nobody else is
    changing. Done right after each delete, and at start for what a crash left undone. Returns the blobs that the system
    does not let go; their removal stays noted, and holds up no other. ``is_patient`` goes on until a bucket has none
    left, where otherwise some hundreds must do.
    """
    if not blobs.removes_at_once:
        return _settle_in_bucket(catalogue, blobs, is_patient=is_patient)
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


def _settle_in_bucket(catalogue: Catalogue, blobs: BlobStore, *, is_patient: bool) -> set[Digest]:
    do = partial(_do, catalogue, blobs)
    with ThreadPoolExecutor(AT_ONCE, "removal") as threads:
        while True:
            due = ResumeRemovals()
            do(due)
            stuck = remove_from_bucket(due.removed, blobs, do, threads) if due.removed else set()
            if not due.removed or stuck or not is_patient:
                return stuck


def _do(catalogue: Catalogue, blobs: BlobStore, change: Change[T]) -> T:
    with catalogue.transaction(change.names, must_last=change.must_last) as transaction:
        return change.carry_out(transaction, blobs, now_milliseconds())


def take_out_of_bucket(catalogue: Catalogue, blobs: BlobStore, digest: Digest, is_still: Callable[[], bool]) -> bool:
    """Remove a damaged blob, whatever names it; False where that is not to be, or cannot be.

    ``is_still`` is asked, while nobody publishes or removes it, whether it still is the one that was found damaged.
    Raises BlobStoreError where it may be there or not; the next uploads of it wait then, for a minute at most.
    """
    began = _now()
    permit = blobs.permits([digest]).get(digest)
    with catalogue.transaction([digest], must_last=True) as transaction:
        removal = transaction.removals_of([digest]).get(digest)
        if (removal is not None and is_alive(removal.age)) or not is_still():
            return False
        transaction.add_removal(digest)
        sent_at = transaction.send_removal(digest)
    try:
        if _is_late(began):
            raise _held_up()
        blobs.remove(digest, permit)
    except BlobStoreError as error:
        if not error.was_sent:
            _note_end(catalogue, digest, sent_at, was_decided=removal is not None)
        raise
    _note_end(catalogue, digest, sent_at)
    return True


def _note_end(catalogue: Catalogue, digest: Digest, sent_at: int, *, was_decided: bool = False) -> None:
    """Note that a removal is over, or, where it was decided before, that it is still to be sent."""
    try:
        with catalogue.transaction([digest]) as transaction:
            if was_decided:
                transaction.unsend_removal(digest, sent_at)
            else:
                transaction.forget_removal(digest, sent_at)
    except CatalogueError as error:
        logger.warning("what has become of the removal of blob {} could not be noted: {}", digest, error)


def _held_up() -> BlobStoreUnavailable:
    error = BlobStoreUnavailable("the catalogue took too long to note a removal, which is not carried out now")
    error.was_sent = False
    return error
