"""Bytes on their way from the event loop to a thread that writes them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from filestored.errors import OutOfSpace, is_full

_GATHERED = 1 << 20
_MAX_WAITING = 4 << 20


class Pipeline:
    """Bytes on their way to a thread, which takes them while the loop goes on receiving; at most 4 MiB wait for it.

    ``take`` is called in one thread at a time, with what has gathered meanwhile.
    """

    def __init__(self, threads: Executor, take: Callable[[list[bytes | memoryview]], None]) -> None:
        self._threads = threads
        self._take = take
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0
        self._job: asyncio.Future[None] | None = None

    async def write(self, piece: bytes | memoryview) -> None:
        """Take in more bytes. Raises OutOfSpace where the disk is full."""
        self._waiting.append(piece)
        self._waiting_bytes += len(piece)
        if self._waiting_bytes <= _GATHERED:
            return
        if self._job is None or self._job.done() or self._waiting_bytes >= _MAX_WAITING:
            await self.settle()
            self._job = self._in_thread(self._take, self.hand_over())

    def hand_over(self) -> list[bytes | memoryview]:
        """Return what waits, and let go of it."""
        pieces, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return pieces

    async def run(self, work: Callable[..., None], *arguments: object) -> None:
        """Have the thread do something else once it has done what it does. Raises OutOfSpace where the disk is full."""
        await self.settle()
        self._job = self._in_thread(work, *arguments)
        await self.settle()

    async def settle(self) -> None:
        """Wait for the thread's piece of work; raise what went wrong in it."""
        if self._job is None:
            return
        await asyncio.wait([self._job])
        job, self._job = self._job, None
        try:
            job.result()
        except OSError as error:
            if is_full(error):
                raise OutOfSpace("The disk is full; nothing was stored. Free some space and try again.") from error
            raise

    async def abandon(self) -> None:
        """Wait until the thread no longer works on it, whatever comes of that, and let go of all bytes."""
        if self._job is not None:
            await asyncio.wait([self._job])
        self.close()

    def close(self) -> None:
        """Let go of all bytes and of who takes them, which has this: both would stay until garbage is looked for."""
        self._job = None
        self.hand_over()
        self._take = _refuse

    def _in_thread(self, work: Callable[..., None], *arguments: object) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _refuse(pieces: list[bytes | memoryview]) -> None:
    raise RuntimeError("bytes came after the end")
