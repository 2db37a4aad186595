"""A load balancer as plain as can be: each connection goes to the next daemon of those whose ``/readyz`` says 200."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Self

from tests.processes import wait_until

_PIECE = 64 * 1024
_LOOKED_AT_EVERY_SECONDS = 0.2
_PATIENCE_SECONDS = 10
_QUESTION = b"GET /readyz HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n"

Address = tuple[str, int]


class Balancer:
    """Passes connections on to daemons, from an address that stays the same; its work is done by a thread."""

    def __init__(self, addresses: list[Address]) -> None:
        self.ready: set[Address] = set()
        """The daemons that were ready when they were asked last."""
        self.connections: Counter[Address] = Counter()
        """How many connections each has been given."""
        self._addresses = addresses
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="balancer")
        self._thread.start()
        self._server: asyncio.Server = self._call(self._listen())
        self.url = "http://{}:{}".format(*self._server.sockets[0].getsockname())

    def __enter__(self) -> Self:
        assert wait_until(lambda: self.ready == set(self._addresses), seconds=60), self.ready
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.close()

    def is_ready(self, address: Address) -> bool:
        """Tell whether a daemon gets new connections."""
        return address in self.ready

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)

    async def _listen(self) -> asyncio.Server:
        for address in self._addresses:
            self._start(self._watch(address))
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, address: Address) -> None:
        while True:
            note: Callable[[Address], None] = self.ready.add if await _is_ready(address) else self.ready.discard
            note(address)
            await asyncio.sleep(_LOOKED_AT_EVERY_SECONDS)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = self._next()
        with contextlib.closing(writer), contextlib.suppress(OSError):
            other_reader, other_writer = await asyncio.open_connection(*address)
            with contextlib.closing(other_writer):
                await asyncio.gather(_pass_on(reader, other_writer), _pass_on(other_reader, writer))

    def _next(self) -> Address:
        ready = [address for address in self._addresses if address in self.ready]
        self._turn += 1
        address = ready[self._turn % len(ready)]
        self.connections[address] += 1
        return address


async def _is_ready(address: Address) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection(*address)
            with contextlib.closing(writer):
                writer.write(_QUESTION)
                return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    except (OSError, TimeoutError):
        return False


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on to their end, and the end, too."""
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
