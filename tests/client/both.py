"""One face for the client that blocks and the one with an event loop, so that one suite holds for both."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from filestored.client import AsyncClient, Client, File


class Awaited:
    """An AsyncClient that is called like a Client, its loop in a thread of its own."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._running = start_blocking_portal()
        self._portal: BlockingPortal = self._running.__enter__()
        self._client = AsyncClient(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *arguments, **named: self._portal.call(lambda: method(*arguments, **named))

    def __enter__(self) -> "Awaited":
        return self

    def __exit__(self, *_: object) -> None:
        self._portal.call(self._client.close)
        self._running.__exit__(None, None, None)

    @property
    def url(self) -> str:
        return self._client.url

    def list(self, **query: Any) -> Iterator[File]:
        async def gathered() -> list[File]:
            return [file async for file in self._client.list(**query)]

        return iter(self._portal.call(gathered))

    @contextmanager
    def stream(self, file_hash: str) -> Iterator["Gathered"]:
        with self._portal.wrap_async_context_manager(self._client.stream(file_hash)) as stream:
            yield Gathered(self._portal, stream)


class Gathered:
    """A stream of an AsyncClient that is iterated over like one of a Client."""

    def __init__(self, portal: BlockingPortal, stream: Any) -> None:
        self._portal = portal
        self.size, self.name, self.type = stream.size, stream.name, stream.type
        self._pieces = aiter(stream)

    def __iter__(self) -> Iterator[bytes]:
        async def following() -> bytes | None:
            return await anext(self._pieces, None)

        return iter(lambda: self._portal.call(following), None)


KINDS: Iterable[Any] = (Client, Awaited)
