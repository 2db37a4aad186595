"""``/healthz`` and ``/readyz``: for load balancers, containers and ``filestored start``; open to all."""

import json

from loguru import logger

from filestored.access import Principal
from filestored.api.exchange import Exchange
from filestored.api.models import Health
from filestored.api.routes import OPEN, Answer, Route, Target
from filestored.errors import CatalogueError
from filestored.filestore import Filestore

_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


class HealthRoutes:
    """Whether the process lives, and whether what it needs does."""

    def __init__(self, filestore: Filestore) -> None:
        self._filestore = filestore

    def routes(self) -> list[Route]:
        """Return the lines for the table of routes."""
        alive = {200: Answer("The process lives.", Health)}
        ready = {
            200: Answer("Store and catalogue are usable.", Health),
            503: Answer("One of them is not; `fault` names it.", Health),
        }
        return [
            Route(method, path, OPEN, handle, summary, answers)
            for path, handle, summary, answers in (
                ("/healthz", self._live, "Tell whether the process lives", alive),
                ("/readyz", self._ready, "Tell whether store and catalogue are usable", ready),
            )
            for method in ("GET", "HEAD")
        ]

    async def _live(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await _answer(exchange, None)

    async def _ready(self, exchange: Exchange, principal: Principal, target: Target) -> None:
        await _answer(exchange, await self._filestore.in_thread(self._find_fault))

    def _find_fault(self) -> str | None:
        """Name what does not answer."""
        try:
            self._filestore.require_usable()
        except CatalogueError as error:
            logger.error("the catalogue does not answer: {}", error.reason)
            return "catalogue"
        except OSError as error:
            logger.error("the store does not answer: {}", error)
            return "store"
        return None


async def _answer(exchange: Exchange, fault: str | None) -> None:
    body = {"status": "ok"} if fault is None else {"status": "unusable", "fault": fault}
    await exchange.answer(200 if fault is None else 503, _HEADERS, json.dumps(body).encode())
