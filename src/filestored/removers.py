"""Carrying out removals in a bucket beside the committer, whose changes do not wait for that."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loguru import logger

from filestored.blobs.store import BlobStore
from filestored.digest import Digest
from filestored.errors import Busy
from filestored.pending import Pending
from filestored.removals import AT_ONCE, Do, remove_from_bucket

_ERRANDS_AT_ONCE = 4


class Removers:
    """The threads of a process that have its bucket remove blobs. What waits for them is bounded by the requests."""

    def __init__(self, blobs: BlobStore, do: Do, told: Callable[[list[Pending[Any]]], None]) -> None:
        """``do`` carries out a change in the committer, and may be called in any thread.

        ``told`` is called, in any thread, for the changes whose removals are over, or have an error.
        """
        self._blobs = blobs
        self._do = do
        self._told = told
        self._errands = ThreadPoolExecutor(_ERRANDS_AT_ONCE, "remover")
        self._requests = ThreadPoolExecutor(AT_ONCE, "removal")

    def close(self) -> None:
        """End the threads. Nothing must be on its way any more."""
        for threads in (self._errands, self._requests):
            threads.shutdown(wait=False, cancel_futures=True)

    def carry_out(self, batch: list[Pending[Any]]) -> None:
        """Remove what changes have decided on, and hand them on."""
        self._errands.submit(self._run, batch)

    def remove(self, digests: list[Digest]) -> None:
        """Remove blobs whose removal is decided, and for which nobody waits."""
        self._errands.submit(self._remove, digests)

    def _run(self, batch: list[Pending[Any]]) -> None:
        stuck = self._remove([digest for pending in batch for digest in pending.change.removed])
        for pending in batch:
            if not stuck.isdisjoint(pending.change.removed):
                pending.error = Busy(
                    "The file is deleted, but its bytes could not be removed yet, which is tried again.", retry_after=2
                )
        self._told(batch)

    def _remove(self, digests: list[Digest]) -> set[Digest]:
        """Return those that are still to be removed."""
        try:
            return remove_from_bucket(digests, self._blobs, self._do, self._requests)
        except Exception as error:
            logger.warning("removed blobs stay noted as to be removed: {}", error)
            return set(digests)
