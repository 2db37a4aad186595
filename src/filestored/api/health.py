"""``/healthz`` and ``/readyz``: for load balancers, containers and ``filestored start``; open to all."""

import asyncio
from collections.abc import Callable
from functools import partial

from loguru import logger

from filestored.access import Principal
from filestored.api.exchange import Exchange
from filestored.api.models import Health
from filestored.api.routes import OPEN, Answer, Route, Target
from filestored.errors import STOPPING, BlobStoreError, CatalogueError, NotReady
from filestored.filestore import Filestore

READY_SECONDS = 3.0
"""How long store and catalogue may take to answer before the server is said not to be ready."""

_WELL = b'{"status": "ok"}'
_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


class HealthRoutes:
    """Whether the process lives, and whether what it needs does."""

    def __init__(self, filestore: Filestore) -> None:
        self._filestore = filestore
        self._looks: dict[str, asyncio.Task[object]] = {}
        self._silent: set[str] = set()

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes."""
        alive = {200: Answer("The process lives.", Health)}
        ready = {
            200: Answer("Store and catalogue are usable.", Health),
        }
        return [
            Route(method, path, OPEN, handle, summary, answers, errors=errors)
            for path, handle, summary, answers, errors in (
                ("/healthz", self._live, "Tell whether the process lives", alive, ()),
                ("/readyz", self._ready, "Tell whether store and catalogue are usable", ready, (NotReady,)),
            )
            for method in ("GET", "HEAD")
        ]

    async def _live(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await exchange.answer(200, _HEADERS, _WELL)

    async def _ready(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        fault = await self._find_fault()
        if fault is not None:
            raise NotReady(fault)
        await exchange.answer(200, _HEADERS, _WELL)

    async def _find_fault(self) -> str | None:
        """Name what does not answer, or not in time: whoever asks has other servers, and does not wait."""
        if self._filestore.shared.is_leaving:
            return STOPPING
        for name, look in (("store", self._filestore.require_usable), ("catalogue", self._filestore.require_catalogue)):
            try:
                await asyncio.wait_for(asyncio.shield(self._look(name, look)), READY_SECONDS)
            except TimeoutError:
                self._silent.add(name)
                logger.error("the {} has not answered for {:g} seconds", name, READY_SECONDS)
                return name
            except (OSError, CatalogueError, BlobStoreError) as error:
                self._silent.add(name)
                logger.error("the {} does not answer: {}", name, getattr(error, "reason", error))
                return name
            if name in self._silent:
                self._silent.discard(name)
                logger.info("the {} answers again", name)
        return None

    def _look(self, name: str, look: Callable[[], object]) -> "asyncio.Task[object]":
        """Return the one look of its kind that is under way: however many ask, a bucket is asked once at a time."""
        looking = self._looks.get(name)
        if looking is None:
            # in other threads than requests, which may all wait for the very same
            looking = self._looks[name] = asyncio.ensure_future(asyncio.to_thread(look))
            looking.add_done_callback(partial(self._end, name))
        return looking

    def _end(self, name: str, looking: "asyncio.Task[object]") -> None:
        del self._looks[name]
        if not looking.cancelled():
            # whoever still waits for it is told
            looking.exception()
