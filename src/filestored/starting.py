"""What a daemon waits for while it starts, and goes on heeding signals: its bucket, and another daemon of its id."""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from filestored.blobs.layout import StoreFolder
from filestored.catalogue.address import PostgresAddress
from filestored.errors import CatalogueError, StartError
from filestored.kinds import AUTO
from filestored.settings import Settings
from filestored.signals import is_told_to_leave, leave_if_told

if TYPE_CHECKING:
    from filestored.cluster.daemons import Membership

_LOOKED_AT_EVERY_SECONDS = 0.1


def heeding_signals(ask: Callable[[], object]) -> None:
    """Ask a bucket something, in a thread: a signal would wait for one that does not answer, and now ends the program.

    It must be nothing that may not be left half done. Raises what it raises.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            ask()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="asking", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOKED_AT_EVERY_SECONDS)
        if thread.is_alive() and is_told_to_leave():
            # obstore aborts an interpreter that ends while it is at work
            os._exit(0)
    if failures:
        raise failures[0]


def join_others(settings: Settings, address: str, port: int, folder: StoreFolder) -> "Membership | None":
    """Register with the other daemons; None where there can be none. Blocks, for 10 s at worst. Raises StartError.

    ``address`` and ``port`` are where this one listens.
    """
    url = _peer_url(settings, address, port)
    if url is None:
        return None
    from filestored.catalogue.catalogue import Catalogue
    from filestored.cluster.daemons import Membership
    from filestored.cluster.incarnation import join, new_incarnation

    try:
        incarnation = new_incarnation(folder.pid_file)
        with contextlib.closing(Catalogue(settings.catalogue_address or folder.catalogue_file, durable=True)) as rows:
            join(rows, folder.identity(), url, incarnation, leave_if_told)
    except (CatalogueError, OSError) as error:
        raise StartError(str(error)) from error
    return Membership(url, incarnation)


def _peer_url(settings: Settings, address: str, port: int) -> str | None:
    """Return where other daemons reach this one; None where there can be none."""
    catalogue = settings.catalogue_address
    if not isinstance(catalogue, PostgresAddress):
        return None
    url = settings.peer_url
    if url == AUTO:
        from filestored.cluster.address import find_url

        scheme = "https" if settings.tls_cert else "http"
        url = find_url(scheme, address, port, catalogue)
    logger.info("other daemons with this catalogue reach this one at {}", url)
    return url
