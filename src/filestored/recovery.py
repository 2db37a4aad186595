"""Making a store ready to be opened: tables up to date, and what a crash has left behind settled."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loguru import logger

from filestored.blobs.disk import DiskBlobStore
from filestored.blobs.layout import RESERVE_BYTES, StoreFolder
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import TokenRecord
from filestored.committer import keep_reserve, settle_removals
from filestored.errors import CatalogueError, StartError
from filestored.resuming import clear_unfinished
from filestored.shared import Shared
from filestored.signing import KEY_NOTE, new_key
from filestored.staging import Staging
from filestored.unfinished import UnfinishedFolder

STORE_NOTE = "store"
"""The name of the note that says to which store a catalogue belongs."""


def prepare(folder: StoreFolder, catalogue: Address | None) -> list[TokenRecord]:
    """Make a store ready to be opened: tables up to date, leftovers of a crash settled. Return the tokens there are.

    Call it once, under the daemon's lock. Its cost does not grow with the store. Raises StartError.
    """
    has_room = True
    try:
        Catalogue.prepare(catalogue or folder.catalogue_file)
    except StartError:
        # SQLite needs a little room to open its files; who cannot start cannot delete either
        if not _give_up_reserve(folder):
            raise
        has_room = False
        Catalogue.prepare(catalogue or folder.catalogue_file)
    try:
        with _recovering(folder, catalogue) as (blobs, rows):
            claim(folder, catalogue or folder.catalogue_file, rows)
            if rows.note(KEY_NOTE) is None:
                with rows.transaction() as transaction:
                    transaction.add_note(KEY_NOTE, new_key())
            staging = Staging(blobs.staging, folder.algorithm, ThreadPoolExecutor(1), durable=False)
            removed = staging.clear()
            with contextlib.closing(UnfinishedFolder(folder.uploads, staging)) as unfinished:
                removed += clear_unfinished(unfinished, rows)[0]
            settle_removals(rows, blobs, flush=True)
            tokens = rows.tokens()
        if has_room:
            with contextlib.suppress(OSError):
                keep_reserve(folder.reserve_file)
        shared = Shared(folder.shared_file)
        shared.forget_counts()
        shared.close()
    except OSError as error:
        raise StartError(f"the store {folder.path} cannot be used: {error}") from error
    except CatalogueError as error:
        raise StartError(str(error)) from error
    if removed:
        logger.info("{} unfinished uploads of an earlier run were removed", removed)
    return tokens


def claim(folder: StoreFolder, where: Address, rows: Catalogue) -> None:
    """See that a database is this store's own: what another keeps is not for this one to remove.

    Nobody has to with a file: it is this machine's, and as a rule the store's. Raises StartError, OSError.
    """
    if isinstance(where, Path):
        return
    own = folder.identity()
    if rows.note(STORE_NOTE) is None:
        with rows.transaction() as transaction:
            transaction.add_note(STORE_NOTE, own)
    if rows.note(STORE_NOTE) != own:
        raise StartError(
            f"the catalogue {where} belongs to another store than {folder.path}: name a database of its own with "
            "--catalogue; docs/operations.md says what to do where it is the same store, restored"
        )


def _give_up_reserve(folder: StoreFolder) -> bool:
    """Give the reserve's space to a disk that has none left; False where that is no help."""
    space = os.statvfs(folder.path)
    if space.f_bavail * space.f_frsize >= RESERVE_BYTES or not folder.reserve_file.exists():
        return False
    folder.reserve_file.unlink()
    return True


@contextlib.contextmanager
def _recovering(folder: StoreFolder, catalogue: Address | None) -> Iterator[tuple[DiskBlobStore, Catalogue]]:
    blobs = DiskBlobStore(folder)
    try:
        rows = Catalogue(catalogue or folder.catalogue_file, durable=True)
        try:
            yield blobs, rows
        finally:
            rows.close()
    finally:
        blobs.close()
