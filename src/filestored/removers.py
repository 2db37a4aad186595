"""Carrying out removals in a bucket beside the committer, whose changes do not wait for that."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loguru import logger

from filestored.blobs.store import BlobStore
from filestored.digest import Digest
from filestored.errors import Busy
from filestored.keeping import Keeping
from filestored.pending import Pending
from filestored.removals import AT_ONCE, Do, remove_from_bucket

_ERRANDS_AT_ONCE = 4
# of what waits one thread takes so many blobs together: in an outage each errand takes as long as one alone
_BLOBS_TOGETHER = 256

_Over = Callable[[set[Digest]], None]


class Removers:
    """The threads of a process that have its bucket remove blobs. What waits for them is bounded by the requests."""

    def __init__(self, blobs: BlobStore, keeping: Keeping, do: Do, told: Callable[[list[Pending[Any]]], None]) -> None:
        """``do`` carries out a change in the committer, and may be called in any thread.

        ``told`` is called, in any thread, for the changes whose removals are over, or have an error.
        """
        self._blobs = blobs
        self._keeping = keeping
        self._do = do
        self._told = told
        self._lock = threading.Lock()
        self._waiting: deque[tuple[list[Digest], _Over]] = deque()
        self._errands = ThreadPoolExecutor(_ERRANDS_AT_ONCE, "remover")
        self._requests = ThreadPoolExecutor(AT_ONCE, "removal")

    def close(self) -> None:
        """End the threads. Nothing must be on its way any more."""
        for threads in (self._errands, self._requests):
            threads.shutdown(wait=False, cancel_futures=True)

    def carry_out(self, batch: list[Pending[Any]]) -> None:
        """Remove what changes have decided on, and hand them on."""
        digests = [digest for pending in batch for digest in pending.change.removed]
        self._begin(digests, lambda stuck: self._tell(batch, stuck))

    def remove(self, digests: list[Digest], over: Callable[[], None]) -> None:
        """Remove blobs whose removal is decided; call ``over`` when that is over, however it ends."""
        self._begin(digests, lambda stuck: over())

    def _begin(self, digests: list[Digest], over: _Over) -> None:
        with self._lock:
            self._waiting.append((digests, over))
        self._errands.submit(self._run)

    def _run(self) -> None:
        together = self._take()
        if not together:
            # another has done it
            return
        stuck = self._remove(list(dict.fromkeys(digest for digests, _ in together for digest in digests)))
        for _, over in together:
            over(stuck)

    def _take(self) -> list[tuple[list[Digest], _Over]]:
        """Take what waits, as much as is done together."""
        taken: list[tuple[list[Digest], _Over]] = []
        with self._lock:
            while self._waiting and sum(len(digests) for digests, _ in taken) < _BLOBS_TOGETHER:
                taken.append(self._waiting.popleft())
        return taken

    def _tell(self, batch: list[Pending[Any]], stuck: set[Digest]) -> None:
        for pending in batch:
            if not stuck.isdisjoint(pending.change.removed):
                pending.error = Busy(
                    "The file is deleted, but its bytes could not be removed yet, which is tried again.", retry_after=2
                )
        self._told(batch)

    def _remove(self, digests: list[Digest]) -> set[Digest]:
        """Return those that are still to be removed."""
        try:
            self._keeping.require()
            return remove_from_bucket(digests, self._blobs, self._do, self._requests)
        except BaseException as error:
            # the library's own failures are no Exception
            logger.warning("removed blobs stay noted as to be removed: {}", error)
            return set(digests)
