"""A change that waits to be carried out, what has become of it, and telling whoever waits for it."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from loguru import logger

from filestored.changes import Change
from filestored.digest import Digest
from filestored.errors import BlobStoreError, CatalogueError, FilestoredError, OutOfSpace, StorageFault, is_full

T = TypeVar("T")

# a thread of its own writes the log
_LOGGED_WITHIN_SECONDS = 0.5


@dataclass(slots=True, eq=False)
class Pending(Generic[T]):
    """A change on its way, in the hands of one thread at a time, but that several may bring its bytes."""

    change: Change[T]
    answer: "asyncio.Future[T] | Future[T]"
    """The request that waits, or the thread."""
    outcome: T | None = None
    error: BaseException | None = None
    obstacle: Exception | None = None
    """Why it is postponed: its bytes have to be brought to the bucket once more before it can be carried out."""
    postponed_until: float | None = None
    """Until when it may be postponed (monotonic seconds); None where it never was."""
    put_over: dict[Digest, int] = field(default_factory=dict)
    """For which removals, by the time they were sent at, its bytes were put anew since."""


def tell(batch: Sequence[Pending[Any]]) -> None:
    """Tell everybody who waits for a change of a batch what has become of it. Call it in any thread."""
    loops = set()
    for pending in batch:
        if isinstance(pending.answer, Future):
            _answer(pending)
        else:
            loops.add(pending.answer.get_loop())
    for loop in loops:
        mine = [each for each in batch if not isinstance(each.answer, Future) and each.answer.get_loop() is loop]
        # one that is closed has nobody who waits
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_answer_all, mine)


def run_or_end(work: Callable[[], None]) -> None:
    """Do the work of a thread that others wait for; where it breaks off end the process, which is started anew.

    Else whoever waits would do so for ever, in a process that seems to be well.
    """
    try:
        work()
    except BaseException as error:
        logger.opt(exception=error).critical("a thread that all changes go through has failed: this process ends")
        time.sleep(_LOGGED_WITHIN_SECONDS)
        os._exit(1)


def _answer_all(batch: list[Pending[Any]]) -> None:
    for pending in batch:
        _answer(pending)


def _answer(pending: Pending[Any]) -> None:
    if pending.answer.done():
        return
    if pending.error is not None:
        pending.answer.set_exception(explained(pending.error))
    else:
        pending.answer.set_result(pending.outcome)


def explained(error: BaseException) -> BaseException:
    """Turn a fault of disk, bucket or database into what the client is told; the log has the rest."""
    if isinstance(error, FilestoredError) and not isinstance(error, CatalogueError | BlobStoreError):
        return error
    if is_full(error):
        return OutOfSpace("The disk is full; nothing was stored. Free some space and try again.")
    if isinstance(error, CatalogueError | BlobStoreError) and error.is_passing:
        return error.told()
    logger.opt(exception=error).error("the store failed")
    if isinstance(error, BlobStoreError):
        return error.told()
    return StorageFault("The server's disk or catalogue failed; nothing was changed. Its log says why.")
