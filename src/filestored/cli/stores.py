"""The store that a command works on, beside a running daemon or without one."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from filestored import daemon, logs
from filestored.blobs.layout import StoreFolder
from filestored.blobs.opening import adopt_blobs, open_blobs, read_mark
from filestored.blobs.ownership import require_owner
from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.transaction import Transaction
from filestored.cli.options import setting_options
from filestored.cli.telling import tell
from filestored.committer import keep_reserve
from filestored.errors import BlobStoreUnavailable, CatalogueFull, CatalogueMissing, StartError
from filestored.filestore import Filestore
from filestored.recovery import claim, note_loss, note_unflushed, prepare, require_not_anew
from filestored.settings import Loaded, Settings, load_only

T = TypeVar("T")

Flags = Mapping[str, str | None]

_BUCKET = ("bucket_endpoint", "bucket_region", "bucket_path_style")
_NAMES = ("store", "spool", *_BUCKET, "catalogue", "hash")

store_options = setting_options(["store", "spool", *_BUCKET, "catalogue", "config"])
"""The options that name a store and its catalogue."""


def find_place(flags: Flags) -> Settings:
    """Return the settings that say where a store is. Raises SettingsError.

    What is not said of a bucket is as the daemon of the same spool was last started with.
    """
    settings = load_only(_NAMES, flags, os.environ)
    last = daemon.LastStart.recall(settings.folder)
    before = load_only(_NAMES, last.flags, last.variables) if last else None
    if before is None or before.bucket is None or before.folder != settings.folder:
        return settings
    left_out = {"store", *_BUCKET} - settings.model_fields_set
    return settings.model_copy(update={name: getattr(before, name) for name in left_out})


def recalled(loaded: Loaded) -> Loaded:
    """Return settings with what :func:`find_place` and :func:`find_catalogue` take from the last start on a spool."""
    settings = loaded.settings
    last = daemon.LastStart.recall(settings.folder)
    before = load_only(_NAMES, last.flags, last.variables) if last else None
    if before is None or before.bucket is None or before.folder != settings.folder:
        return loaded
    names = [name for name in ("store", *_BUCKET, "catalogue") if loaded.origins[name] == "default"]
    names = [name for name in names if name in before.model_fields_set]
    known = settings.model_copy(update={name: getattr(before, name) for name in names})
    return replace(loaded, settings=known, origins={**loaded.origins, **dict.fromkeys(names, "last start")})


def find_store_folder(flags: Flags, *, take_over: bool = False) -> StoreFolder:
    """Return the store that flags and variables name. Raises StartError where there is none, SettingsError.

    For ``take_over`` see ``recovery.claim``.
    """
    settings = find_place(flags)
    require_owner(settings.folder)
    _require_place(flags, settings, take_over=take_over)
    return StoreFolder.find(settings.folder, settings.hash, settings.bucket)


def adopt_store_folder(flags: Flags) -> StoreFolder:
    """Return the store that flags and variables name; what is none yet becomes one. Raises StartError, SettingsError.

    Of a bucket that cannot be reached nothing is asked where the spool has been in use.
    """
    settings = find_place(flags)
    require_owner(settings.folder)
    _require_place(flags, settings, may_be_new=True)
    folder = StoreFolder.adopt(settings.folder, settings.hash, settings.bucket)
    if folder.is_unused:
        adopt_blobs(folder)
    return folder


def _require_place(flags: Flags, settings: Settings, *, may_be_new: bool = False, take_over: bool = False) -> None:
    """Raise StartError where nothing has used the spool yet and it would be none: a mistake leaves no spool behind."""
    folder = StoreFolder(settings.folder, settings.hash, settings.bucket)
    if folder.path != settings.store and settings.bucket is None and not (folder.private / "format.json").exists():
        raise StartError(
            f"there is no spool at {folder.path}; name another one with --spool, or its bucket with --store"
        )
    StoreFolder.require(settings.folder, settings.hash, settings.bucket)
    if settings.bucket is None or not folder.is_unused:
        return
    if read_mark(settings.bucket) is None and not may_be_new:
        raise StartError(f"{settings.bucket} is no store: it has no mark; look at --store")
    if not take_over:
        require_not_anew(settings.bucket, find_catalogue(flags, folder))


def find_catalogue(flags: Flags, folder: StoreFolder) -> Address:
    """Return where a store's catalogue is: the one named, else the one that the store was last started with."""
    return load_only(_NAMES, flags, os.environ).catalogue_address or last_catalogue(folder)


def last_catalogue(folder: StoreFolder) -> Address:
    """Return where the catalogue is that a store was last started with: that inside it, unless told otherwise."""
    last = daemon.LastStart.recall(folder.path)
    given = load_only(_NAMES, last.flags, last.variables).catalogue_address if last else None
    return given or folder.catalogue_file


@contextmanager
def open_catalogue(
    flags: Flags, folder: StoreFolder, *, take_over: bool = False, needs_blobs: bool = True, mends_loss: bool = False
) -> Iterator[Catalogue]:
    """Open a store's catalogue, its tables brought up to date. Raises StartError where it cannot be used.

    Under a running daemon they are left as they are: an older one would not know the new ones. For ``take_over`` see
    ``recovery.claim``. Without ``needs_blobs`` a bucket that cannot be reached is told of, and done without. With
    ``mends_loss`` nothing is said of a catalogue that was lost: the caller makes good for it.
    """
    where = find_catalogue(flags, folder)
    has_been_used = folder.has_been_used
    is_new = Catalogue.prepare(where, may_change=daemon.running(folder.path) is None)
    catalogue = Catalogue(where, durable=True)
    try:
        try:
            with closing(open_blobs(folder)) as blobs:
                claim(folder, blobs, where, catalogue, take_over=take_over)
                if is_new and has_been_used and (loss := note_loss(folder, where, catalogue)) and not mends_loss:
                    tell(loss)
        except BlobStoreUnavailable as error:
            if needs_blobs:
                raise
            tell(f"{error.reason}; that this is the catalogue of {folder.bucket} cannot be seen")
        yield catalogue
    finally:
        catalogue.close()


def make_store_folder(flags: Flags) -> StoreFolder:
    """Return the store that flags and variables name; it becomes one where there is none. Raises StartError."""
    settings = find_place(flags)
    require_owner(settings.folder)
    _require_place(flags, settings, may_be_new=True)
    try:
        return StoreFolder.find(settings.folder, settings.hash, settings.bucket)
    except StartError:
        if settings.folder.is_dir() and any(settings.folder.iterdir()):
            raise
        return StoreFolder.adopt(settings.folder, settings.hash, settings.bucket)


@contextmanager
def open_filestore(flags: Flags, folder: StoreFolder, catalogue: Address) -> Iterator[Filestore]:
    """Open a store to add to it: as one more process beside a daemon's workers, or in its place. Raises StartError.

    Where no daemon runs none can start meanwhile: it would clear away what is under way.
    """
    settings = load_only(("min_free_space", "durability"), flags, os.environ)
    durable = settings.durability == "full"
    with ExitStack() as held:
        require_owner(folder.path)
        log_to_store(folder)
        require_no_lost_catalogue(catalogue, folder)
        if daemon.running(folder.path) is None:
            held.enter_context(daemon.StoreLock.take(folder.pid_file))
            prepare(folder, catalogue, durable=durable)
        else:
            Catalogue.prepare(catalogue, may_change=False)
            if not durable:
                note_unflushed(catalogue)
        filestore = Filestore(folder, catalogue, durable=durable, min_free_bytes=settings.min_free_space)
        held.callback(filestore.close)
        yield filestore


def log_to_store(folder: StoreFolder) -> None:
    """Write what is logged to the store's log, as a daemon's lines are."""
    last = daemon.LastStart.recall(folder.path)
    log_format = load_only(("log_format",), last.flags, last.variables).log_format if last else "text"
    logs.configure("info", log_format, folder.log_file)


def require_no_lost_catalogue(where: Address, folder: StoreFolder) -> None:
    """Raise StartError where a daemon works on with a file that was removed: it would not see a new one."""
    if isinstance(where, Path) and daemon.running(folder.path) is not None and not _has_tables(where):
        raise StartError(f"{where} is gone, and the daemon does not know it yet: restart it, then try again")


def _has_tables(path: Path) -> bool:
    """Tell whether a catalogue is there; a daemon that has lost it may have made an empty file of that name."""
    if not path.exists():
        return False
    try:
        with closing(Catalogue(path, durable=True)) as catalogue:
            catalogue.note("")
    except CatalogueMissing:
        return False
    return True


def change(catalogue: Catalogue, folder: StoreFolder, work: Callable[[Transaction], T]) -> T:
    """Do something inside a write transaction, on a full disk too: the store's reserve is given up for it."""
    with suppress(CatalogueFull), catalogue.transaction() as transaction:
        return work(transaction)
    folder.reserve_file.unlink(missing_ok=True)
    catalogue.reuse_wal()
    try:
        with catalogue.transaction() as transaction:
            return work(transaction)
    finally:
        with suppress(OSError):
            keep_reserve(folder.reserve_file)
