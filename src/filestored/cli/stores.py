"""The store that a command works on, beside a running daemon or without one."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filestored import daemon
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue
from filestored.cli.options import setting_options
from filestored.settings import load_only

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
    """Open a store's catalogue, its tables brought up to date. Raises StartError where it cannot be used."""
    path = find_catalogue_path(flags, folder)
    Catalogue.prepare(path)
    catalogue = Catalogue(path, durable=True)
    try:
        yield catalogue
    finally:
        catalogue.close()
