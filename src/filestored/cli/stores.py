"""The store that a command works on, beside a running daemon or without one."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filestored import daemon
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue, is_catalogue_full
from filestored.catalogue.transaction import Transaction
from filestored.cli.options import setting_options
from filestored.committer import keep_reserve
from filestored.settings import load_only

T = TypeVar("T")

Flags = Mapping[str, str | None]

_NAMES = ("store", "catalogue", "hash")

store_options = setting_options(["store", "catalogue", "config"])
"""The options that name a store and its catalogue."""


def find_store_folder(flags: Flags) -> StoreFolder:
    """Return the store that flags and variables name. Raises StartError where there is none, SettingsError."""
    settings = load_only(_NAMES, flags, os.environ)
    return StoreFolder.find(settings.store, settings.hash)


def find_catalogue_path(flags: Flags, folder: StoreFolder) -> Path:
    """Return the path of a store's catalogue: the one named, else the one that the store was last started with."""
    given = load_only(_NAMES, flags, os.environ).catalogue_path
    if given is None:
        last = daemon.LastStart.recall(folder.path)
        given = load_only(_NAMES, last.flags, last.variables).catalogue_path if last else None
    return given or folder.catalogue_file


@contextmanager
def open_catalogue(flags: Flags, folder: StoreFolder) -> Iterator[Catalogue]:
    """Open a store's catalogue, its tables brought up to date. Raises StartError where it cannot be used.

    Under a running daemon they are left as they are: an older one would not know the new ones.
    """
    path = find_catalogue_path(flags, folder)
    Catalogue.prepare(path, may_change=daemon.running(folder.path) is None)
    catalogue = Catalogue(path, durable=True)
    try:
        yield catalogue
    finally:
        catalogue.close()


def change(catalogue: Catalogue, folder: StoreFolder, work: Callable[[Transaction], T]) -> T:
    """Do something inside a write transaction, on a full disk too: the store's reserve is given up for it."""
    try:
        with catalogue.transaction() as transaction:
            return work(transaction)
    except sqlite3.Error as error:
        if not is_catalogue_full(error):
            raise
    folder.reserve_file.unlink(missing_ok=True)
    catalogue.reuse_wal()
    try:
        with catalogue.transaction() as transaction:
            return work(transaction)
    finally:
        with suppress(OSError):
            keep_reserve(folder.reserve_file)
