"""Work that may block, done in threads for a program with an event loop."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")

_POLL_SECONDS = 0.005


async def in_thread(work: Callable[[], T]) -> T:
    """Run something that may block in a thread; it has ended when this ends, also where the task is cancelled.

    A native ``asyncio`` cancel gets through the library's shield: what the thread works on would be cleared up under
    its hands.
    """
    errand = _Errand(work)
    try:
        await anyio.to_thread.run_sync(errand.run)
    except anyio.get_cancelled_exc_class():
        while not errand.is_over():
            with suppress(anyio.get_cancelled_exc_class()), anyio.CancelScope(shield=True):
                await anyio.sleep(_POLL_SECONDS)
        raise
    return errand.result


class _Errand(Generic[T]):
    """Work for a thread, which is not begun any more once nobody waits for it."""

    result: T

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._has_begun = False
        self._has_ended = False
        self._lock = threading.Lock()

    def run(self) -> None:
        """Do the work."""
        with self._lock:
            if self._has_ended:
                return
            self._has_begun = True
        try:
            self.result = self._work()
        finally:
            self._has_ended = True

    def is_over(self) -> bool:
        """Tell whether it has ended; where it has not begun, it never will."""
        with self._lock:
            self._has_ended = self._has_ended or not self._has_begun
            return self._has_ended
