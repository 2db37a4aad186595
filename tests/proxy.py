"""A bad network: a TCP proxy before a daemon that is slow, cuts its connections, freezes them, or is not there."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar

_Result = TypeVar("_Result")
_PIECE = 16 * 1024
# what the kernel may take in advance: a client must not seem faster than the limit
_SOCKET_BUFFER = 64 * 1024
_RESET_WHEN_CLOSED = struct.pack("ii", 1, 0)
_PATIENCE_SECONDS = 20


class Proxy:
    """Passes connections on to ``target`` (host and port), from an address of its own that stays the same.

    Everything may be called from the test's thread at any time; the bytes are moved by a thread of the proxy's own.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._rate: float | None = None
        self._due = 0.0
        self.uploaded = 0
        """Bytes passed on from clients to the target, head and body."""
        self.connections = 0
        """How many connections have been made so far."""
        self._host, self._port = "127.0.0.1", 0
        self._call(self._listen())
        self._loop.call_soon_threadsafe(self._flows.set)

    @property
    def url(self) -> str:
        """Address to use instead of the target's."""
        return f"http://{self._host}:{self._port}"

    def aim(self, target: tuple[str, int]) -> None:
        """Pass new connections on to another target, such as the same daemon started again."""
        self._target = target

    def limit(self, bytes_per_second: float | None) -> None:
        """Let no more through from clients to the target, all connections together; None takes the limit away."""
        self._rate = bytes_per_second

    def cut(self) -> int:
        """Reset all connections now, on both sides; return how many there were."""
        return self._call(self._cut())

    def freeze(self) -> None:
        """Move nothing any more and say nothing either: what a lost radio link looks like. ``thaw`` ends it."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def thaw(self) -> None:
        """Go on after ``freeze``."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def vanish(self) -> None:
        """Cut all connections and refuse new ones until ``come_back``."""
        self._call(self._vanish())

    def come_back(self) -> None:
        """Accept connections again, at the same address."""
        self._call(self._listen())

    def wait_for(self, uploaded: int, *, seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait until so many bytes have been passed on to the target."""
        deadline = time.monotonic() + seconds
        while self.uploaded < uploaded:
            assert time.monotonic() < deadline, f"only {self.uploaded} of {uploaded} bytes came through"
            time.sleep(0.005)

    def close(self) -> None:
        """End it, with all its connections."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)

    async def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER)
        listener.bind((self._host, self._port))
        self._port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=listener)

    async def _vanish(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _end(self) -> None:
        await self._vanish()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            with contextlib.suppress(OSError):
                from_target, to_target = await asyncio.open_connection(*self._target)
                link.add(to_target)
                await asyncio.gather(
                    self._pass_on(reader, to_target, self._pace), self._pass_on(from_target, writer, _no_pace)
                )
                await link.close()
        finally:
            self._links.discard(link)
            link.reset()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pace: Callable[[int], Coroutine[Any, Any, None]],
    ) -> None:
        while piece := await reader.read(_PIECE):
            await pace(len(piece))
            await self._flows.wait()
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _pace(self, size: int) -> None:
        if self._rate is not None:
            now = self._loop.time()
            self._due = max(self._due, now) + size / self._rate
            await asyncio.sleep(self._due - now)
        self.uploaded += size


async def _no_pace(_: int) -> None:
    return


class _Link:
    """One connection: its two sides."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self._sides = [client]

    def add(self, target: asyncio.StreamWriter) -> None:
        self._sides.append(target)

    async def close(self) -> None:
        """Close both sides once everything has been sent."""
        for side in self._sides:
            side.close()
            await side.wait_closed()

    def reset(self) -> None:
        """Close both sides by RST, dropping what waits in them; harmless where they are closed."""
        for side in self._sides:
            transport_socket = side.get_extra_info("socket")
            with contextlib.suppress(OSError):
                transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_WHEN_CLOSED)
            side.transport.abort()


@contextlib.contextmanager
def proxy_before(target: tuple[str, int]) -> Iterator[Proxy]:
    """Run a proxy before a daemon for the time of a block."""
    with Proxy(target) as proxy:
        yield proxy
