"""Several things worked on at once, each read in a thread: many small ones, few large ones."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from filestored.staging import SMALL

_READERS = 8
_SMALL_AT_ONCE = 128
_LARGE_AT_ONCE = 4

T = TypeVar("T")


class UnderWay:
    """What is worked on, in the running event loop. Told to stop it begins nothing more, and finishes what is begun."""

    def __init__(self) -> None:
        self.is_stopping = False
        """Whether nothing more is begun."""
        self._readers = ThreadPoolExecutor(_READERS, "source")
        self._small = asyncio.Semaphore(_SMALL_AT_ONCE)
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None

    def stop(self) -> None:
        """Begin nothing more. Called again, what is begun is given up too."""
        if self.is_stopping:
            for task in self._tasks:
                task.cancel()
        self.is_stopping = True

    def stop_for(self, fault: BaseException) -> None:
        """Begin nothing more, and have :meth:`finish` raise the first of the faults."""
        self._fault = self._fault or fault
        self.is_stopping = True

    async def begin(self, size: int, work: Callable[[], Coroutine[None, None, None]]) -> bool:
        """Begin to work on something of so many bytes, as soon as there is a place; False where it is time to stop."""
        places = self._small if size <= SMALL else self._large
        await places.acquire()
        if self.is_stopping:
            places.release()
            return False

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            places.release()
            if not task.cancelled() and (fault := task.exception()) is not None:
                self.stop_for(fault)

        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(end)
        return True

    def close(self) -> None:
        """End the threads. Call it when everything is finished."""
        self._readers.shutdown()

    async def finish(self) -> None:
        """Wait for what is begun. Raises what has stopped it, where something has."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._fault is not None:
            raise self._fault

    async def read(self, work: Callable[..., T], *arguments: object) -> T:
        """Do something that blocks in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)
