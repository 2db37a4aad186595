"""What a committer has done by other threads where the blobs lie in a bucket, and how much of that is under way."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from loguru import logger

from filestored.blobs.store import MOST_FORESEEN, BlobStore
from filestored.carriers import Carriers
from filestored.catalogue.catalogue import Catalogue
from filestored.changes import Change
from filestored.digest import Digest
from filestored.errors import Busy, CatalogueError
from filestored.keeping import Keeping
from filestored.pending import Pending
from filestored.removers import Removers

_MOST_LEFT_BEHIND = 10_000
_WITHDRAWN_AT_ONCE = 256
_INSIDE_SECONDS = 60.0


class Errands:
    """Carriers and removers of one committer. Its thread calls all methods that do not say otherwise."""

    def __init__(
        self,
        blobs: BlobStore,
        catalogue: Catalogue,
        queue_up: Callable[[list[Pending[Any]]], None],
        end: Callable[[list[Pending[Any]]], None],
        changed: Callable[[Digest], None],
    ) -> None:
        """``queue_up`` hands changes to the committer, ``end`` lets go of those that are over; both in any thread.

        For ``changed`` see Committer.
        """
        self._catalogue = catalogue
        self._queue_up = queue_up
        self._end = end
        self._changed = changed
        self.keeping = Keeping(blobs, catalogue)
        """Whether the bucket still is this catalogue's."""
        self._carriers = Carriers(blobs, catalogue, self.keeping, lambda pending: queue_up([pending]))
        self._removers = Removers(blobs, self.keeping, self._do, self._over)
        # put by changes that failed while the catalogue did: looked at again when that works
        self._left_behind: deque[Digest] = deque(maxlen=_MOST_LEFT_BEHIND)
        self._under_way = 0
        self._is_changed = threading.Condition()

    def begin(self, batch: list[Pending[Any]]) -> None:
        """Have changes carried out: their bodies are brought first. In any thread."""
        with self._is_changed:
            self._under_way += len(batch)
        empty = [pending for pending in batch if not pending.change.staged]
        for start in range(0, len(empty), MOST_FORESEEN):
            self._queue_up(empty[start : start + MOST_FORESEEN])
        for pending in batch:
            if pending.change.staged:
                self._carriers.carry(pending)

    def _do(self, change: Change[Any]) -> Any:
        """Have the committer carry out a change of an errand; return its outcome. In any thread but the committer's.

        Raises FilestoredError, also where the committer does not come to it in a minute.
        """
        answer: Future[Any] = Future()
        self._queue_up([Pending(change, answer)])
        try:
            return answer.result(_INSIDE_SECONDS)
        except TimeoutError as error:
            raise Busy("The committer has too much to do.") from error

    def hand_on(self, batch: list[Pending[Any]]) -> list[Pending[Any]]:
        """Return those changes of a batch that are over; of the others go on with bringing or removing."""
        over, removing = [], []
        for pending in batch:
            if pending.error is None and pending.obstacle is not None:
                self._carriers.carry_again(pending)
            elif pending.error is None and pending.change.removed:
                removing.append(pending)
            else:
                over.append(pending)
        if removing:
            self._removers.carry_out(removing)
        self._count(over)
        return over

    def _over(self, batch: list[Pending[Any]]) -> None:
        self._end(batch)
        self._count(batch)

    def _count(self, over: list[Pending[Any]]) -> None:
        with self._is_changed:
            # what an errand does itself is a part of what was begun
            self._under_way -= sum(not isinstance(pending.answer, Future) for pending in over)
            self._is_changed.notify_all()

    def withdraw(self, digests: list[Digest]) -> None:
        """Take back what a failed change has put, or may have, unless somebody keeps it by now.

        It is not readable from now on. Where that cannot be noted it is left for the next time.
        """
        digests = [*digests, *self._take_left_behind()]
        if not digests:
            return
        decided = []
        try:
            with self._catalogue.transaction(digests) as transaction:
                for digest in digests:
                    if not transaction.is_named(digest):
                        transaction.add_removal(digest)
                        decided.append(digest)
        except CatalogueError as error:
            self._left_behind.extend(digests)
            logger.warning("a failed upload left blobs behind that no file names, for now: {}", error)
            return
        for digest in decided:
            self._changed(digest)
        if decided:
            with self._is_changed:
                self._under_way += 1
            self._removers.remove(decided, self._taken_back)

    def _taken_back(self) -> None:
        with self._is_changed:
            self._under_way -= 1
            self._is_changed.notify_all()

    @property
    def has_left_behind(self) -> bool:
        """Whether something was put that could not be taken back."""
        return bool(self._left_behind)

    def tidy(self) -> None:
        """Take back what was left behind, if the catalogue works by now."""
        if self._left_behind:
            self.withdraw([])

    def _take_left_behind(self) -> list[Digest]:
        return [self._left_behind.popleft() for _ in range(min(_WITHDRAWN_AT_ONCE, len(self._left_behind)))]

    def wait(self, seconds: float) -> None:
        """Wait until nothing is under way any more, for so long at most. In any thread but the committer's."""
        deadline = time.monotonic() + seconds
        with self._is_changed:
            while self._under_way > 0 and self._is_changed.wait(deadline - time.monotonic()):
                pass

    def close(self) -> None:
        """End the threads. In any thread."""
        self._carriers.close()
        self._removers.close()
