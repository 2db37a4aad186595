"""What a daemon waits for while it starts: that its store is ready, and that no other daemon goes by its id."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from loguru import logger

from filestored.apart import begin_apart, call_apart
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.address import Address, PostgresAddress
from filestored.errors import CatalogueError, StartError
from filestored.kinds import AUTO
from filestored.settings import Settings
from filestored.signals import leave_if_told

if TYPE_CHECKING:
    from filestored.catalogue.records import TokenRecord
    from filestored.cluster.daemons import Membership


def begin_ready(settings: Settings, folder: StoreFolder) -> "Callable[[], list[TokenRecord]]":
    """Begin to make a store ready to be opened, once, under the daemon's lock, in a process of its own.

    What is returned waits until it is, returns the store's tokens, and raises StartError.
    """
    return begin_apart(partial(_prepare, folder, settings.catalogue_address, settings.durability == "full"))


def _prepare(folder: StoreFolder, catalogue: Address | None, durable: bool) -> "list[TokenRecord]":
    from filestored.recovery import prepare

    return prepare(folder, catalogue, durable=durable)


def join_others(settings: Settings, address: str, port: int, folder: StoreFolder) -> "Membership | None":
    """Register with the other daemons; None where there can be none. Blocks, for 10 s at worst. Raises StartError.

    ``address`` and ``port`` are where this one listens.
    """
    if not isinstance(settings.catalogue_address, PostgresAddress):
        return None
    return call_apart(partial(_join, settings, settings.catalogue_address, address, port, folder), may_break_off=True)


def _join(
    settings: Settings, catalogue: PostgresAddress, address: str, port: int, folder: StoreFolder
) -> "Membership | None":
    from filestored.catalogue.catalogue import Catalogue
    from filestored.cluster.daemons import Membership
    from filestored.cluster.incarnation import join, new_incarnation

    url = _peer_url(settings, catalogue, address, port)
    if url is None:
        return None
    try:
        incarnation = new_incarnation(folder.pid_file)
        with contextlib.closing(Catalogue(catalogue, durable=True)) as rows:
            join(rows, folder.identity(), url, incarnation, leave_if_told)
    except (CatalogueError, OSError) as error:
        raise StartError(str(error)) from error
    return Membership(url, incarnation)


def _peer_url(settings: Settings, catalogue: PostgresAddress, address: str, port: int) -> str | None:
    """Return where other daemons reach this one; None where there can be none."""
    url = settings.peer_url
    if url == AUTO:
        from filestored.cluster.address import find_url

        scheme = "https" if settings.tls_cert else "http"
        url = find_url(scheme, address, port, catalogue)
    logger.info("other daemons with this catalogue reach this one at {}", url)
    return url
