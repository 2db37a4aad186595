"""``/healthz`` and ``/readyz``: for load balancers, containers and ``filestored start``; open to all."""

import json
import sqlite3

from loguru import logger

from filestored.api.exchange import Exchange
from filestored.errors import MethodNotAllowed
from filestored.filestore import Filestore

PATHS = frozenset({"/healthz", "/readyz"})
_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


async def answer(exchange: Exchange, filestore: Filestore) -> None:
    """Say whether the process lives, and for ``/readyz`` whether store and catalogue are usable (else 503)."""
    if exchange.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(exchange.method, "GET, HEAD")
    fault = await filestore.in_thread(_fault, filestore) if exchange.path == "/readyz" else None
    body = {"status": "ok"} if fault is None else {"status": "unusable", "fault": fault}
    await exchange.answer(200 if fault is None else 503, _HEADERS, json.dumps(body).encode())


def _fault(filestore: Filestore) -> str | None:
    """Name what does not answer."""
    try:
        filestore.require_usable()
    except sqlite3.Error as error:
        logger.error("the catalogue does not answer: {}", error)
        return "catalogue"
    except OSError as error:
        logger.error("the store does not answer: {}", error)
        return "store"
    return None
