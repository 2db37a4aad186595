"""Making a store ready to be opened: tables up to date, and what a crash has left behind settled."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from loguru import logger

from filestored.blobs.address import BucketAddress
from filestored.blobs.flushing import flush_filesystem
from filestored.blobs.layout import RESERVE_BYTES, StoreFolder
from filestored.blobs.opening import open_blobs, read_keeper
from filestored.blobs.store import BlobStore
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import TokenRecord
from filestored.committer import keep_reserve
from filestored.errors import BlobStoreError, CatalogueError, CatalogueFull, CatalogueMissing, StartError
from filestored.keeping import CATALOGUE_NOTE
from filestored.removals import settle_removals
from filestored.resuming import clear_unfinished
from filestored.shared import Shared
from filestored.signing import KEY_NOTE, new_key
from filestored.staging import Staging
from filestored.unfinished import UnfinishedFolder

LOSS_NOTE = "made anew"
"""The name of the note that says since when a catalogue has stood in for one that was lost; empty once it is mended."""

DURABILITY_NOTE = "durability"
"""The name of the note that says how the last run of a store on a disk flushed: ``full`` or ``relaxed``."""

STORE_NOTE = "store"
"""The name of the note that says to which store a catalogue belongs."""

_ID_BYTES = 16


def prepare(folder: StoreFolder, catalogue: Address | None, *, durable: bool) -> list[TokenRecord]:
    """Make a store ready to be opened: tables up to date, leftovers of a crash settled. Return the tokens there are.

    Call it once, under the daemon's lock; ``durable`` says whether what is acknowledged from now on must survive a
    power cut. Its cost does not grow with the store. Raises StartError.
    """
    has_room, has_been_used = True, folder.has_been_used
    where = catalogue or folder.catalogue_file
    try:
        is_new = Catalogue.prepare(where)
    except StartError:
        # SQLite needs a little room to open its files; who cannot start cannot delete either
        if not _give_up_reserve(folder):
            raise
        has_room = False
        is_new = Catalogue.prepare(where)
    try:
        with _recovering(folder, catalogue) as (blobs, rows):
            claim(folder, blobs, where, rows)
            if is_new and has_been_used and (loss := note_loss(folder, where, rows)):
                logger.warning(loss)
            if rows.note(KEY_NOTE) is None:
                with rows.transaction() as transaction:
                    transaction.add_note(KEY_NOTE, new_key())
            staging = Staging(blobs.staging, folder.algorithm, ThreadPoolExecutor(1), durable=False)
            removed = staging.clear()
            with contextlib.closing(UnfinishedFolder(folder.uploads, staging)) as unfinished:
                removed += clear_unfinished(unfinished, rows)[0]
            _settle(rows, blobs)
            if folder.bucket is None:
                _flush_earlier(folder, rows, durable=durable)
            tokens = rows.tokens()
        if has_room:
            with contextlib.suppress(OSError):
                keep_reserve(folder.reserve_file)
        shared = Shared(folder.shared_file)
        shared.forget_counts()
        shared.close()
    except OSError as error:
        raise StartError(f"the store {folder.path} cannot be used: {error}") from error
    except (CatalogueError, BlobStoreError) as error:
        raise StartError(str(error)) from error
    if removed:
        logger.info("{} unfinished uploads of an earlier run were removed", removed)
    return tokens


def note_loss(folder: StoreFolder, where: Address, rows: Catalogue) -> str:
    """Note in a catalogue that was just made that files were there before it; return the sentence that says so.

    Empty where there are none. A bucket is not asked, since :func:`claim` refuses another catalogue there. Raises
    CatalogueError, OSError.
    """
    if folder.bucket is not None or not folder.has_files():
        return ""
    with rows.transaction() as transaction:
        transaction.set_note(LOSS_NOTE, datetime.now(UTC).isoformat(timespec="seconds"))
    return (
        f"the catalogue {where} was lost and is made anew, while {folder.path} holds files: their names, owners and "
        "lifetimes are gone, and so are all tokens, so that others may read and delete them; restore it from a backup "
        "while no daemon runs, or run 'filestored reindex' and make the tokens anew"
    )


def settle_loss(rows: Catalogue) -> None:
    """Note that the files which a lost catalogue knew have entries again. Raises CatalogueError."""
    if rows.note(LOSS_NOTE):
        with rows.transaction() as transaction:
            transaction.set_note(LOSS_NOTE, "")


def _flush_earlier(folder: StoreFolder, rows: Catalogue, *, durable: bool) -> None:
    """Flush what runs that left that to the system, or other programs, have brought here: it counts as stored now."""
    before, now = rows.note(DURABILITY_NOTE), "full" if durable else "relaxed"
    if durable:
        handle = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if before == now:
                # a folder of blobs may have been made just before a crash
                os.fsync(handle)
            elif folder.has_files():
                logger.info("what was not flushed before is flushed now: the whole file system of {}", folder.path)
                flush_filesystem(handle, however_much=True)
        finally:
            os.close(handle)
    # a disk that uploads have filled must not keep a daemon, which could delete, from starting
    with contextlib.suppress(CatalogueFull):
        if before != now:
            with rows.transaction() as transaction:
                transaction.set_note(DURABILITY_NOTE, now)


def note_unflushed(where: Address) -> None:
    """Note that what is added to a store is not flushed, though its daemon flushes. Raises CatalogueError."""
    with contextlib.closing(Catalogue(where, durable=True)) as rows, rows.transaction() as transaction:
        transaction.set_note(DURABILITY_NOTE, "relaxed")


def _settle(rows: Catalogue, blobs: BlobStore) -> None:
    """Carry out the removals that a crash left undone; of those in a bucket as many as take a moment."""
    try:
        settle_removals(rows, blobs, flush=True)
    except BlobStoreError as error:
        # the daemon's upkeep goes on with it
        logger.warning("removals that were left undone are not carried out yet: {}", error)


def claim(folder: StoreFolder, blobs: BlobStore, where: Address, rows: Catalogue, *, take_over: bool = False) -> None:
    """See that catalogue and store belong together: what another keeps is not for this one to remove.

    Nobody has to with a file beside the blobs: it is this machine's, and as a rule the store's. A bucket notes by which
    catalogue it is kept, since several daemons might each have one of their own; ``take_over`` notes this one in place
    of any other. Raises StartError, OSError, BlobStoreError.
    """
    if isinstance(where, Path) and folder.bucket is None:
        return
    shown = folder.bucket or folder.path
    if _noted(rows, STORE_NOTE, blobs.id) != blobs.id:
        raise StartError(
            f"the catalogue {where} belongs to another store than {shown}: name a database of its own with "
            "--catalogue; docs/operations.md says what to do where it is the same store, restored"
        )
    if folder.bucket is None:
        return
    own = _noted(rows, CATALOGUE_NOTE, secrets.token_hex(_ID_BYTES))
    if blobs.keep_for(own, take_over=take_over) != own:
        raise StartError(_kept_by_another(shown, where))


def require_not_anew(bucket: BucketAddress | None, where: Address) -> None:
    """Raise StartError where a catalogue that is not made yet is to keep a bucket that another keeps.

    So neither tables nor a spool are made for what :func:`claim` refuses.
    """
    if bucket is not None and not _is_made(where) and read_keeper(bucket):
        raise StartError(_kept_by_another(bucket, where))


def _is_made(where: Address) -> bool:
    if isinstance(where, Path):
        return where.exists()
    try:
        with contextlib.closing(Catalogue(where, durable=True)) as catalogue:
            catalogue.note(STORE_NOTE)
    except CatalogueMissing:
        return False
    except CatalogueError as error:
        raise StartError(str(error)) from error
    return True


def _kept_by_another(shown: object, where: Address) -> str:
    return (
        f"the bucket {shown} is kept by another catalogue than {where}: name that one with --catalogue; where it "
        "is lost: filestored reindex --take-over"
    )


def _noted(rows: Catalogue, name: str, value: str) -> str:
    """Return a note, which is ``value`` from now on where there is none."""
    known = rows.note(name)
    if known is None:
        with rows.transaction() as transaction:
            transaction.add_note(name, value)
        known = rows.note(name)
    return known or value


def _give_up_reserve(folder: StoreFolder) -> bool:
    """Give the reserve's space to a disk that has none left; False where that is no help."""
    space = os.statvfs(folder.path)
    if space.f_bavail * space.f_frsize >= RESERVE_BYTES or not folder.reserve_file.exists():
        return False
    folder.reserve_file.unlink()
    return True


@contextlib.contextmanager
def _recovering(folder: StoreFolder, catalogue: Address | None) -> Iterator[tuple[BlobStore, Catalogue]]:
    blobs = open_blobs(folder)
    try:
        rows = Catalogue(catalogue or folder.catalogue_file, durable=True)
        try:
            yield blobs, rows
        finally:
            rows.close()
    finally:
        blobs.close()
