"""Telling what kind of source it is, by looking."""

import os
from pathlib import Path

from filestored.blobs.layout import is_laid_out_as_store
from filestored.errors import SettingsError, StartError
from filestored.importing.blobs import StoreSource
from filestored.importing.folder import FilebrowserSource, FolderSource, is_filebrowser
from filestored.importing.source import Source
from filestored.importing.transfersh import TransferShSource, is_transfer_sh

BUCKET = "s3"
KINDS = ("folder", "store", BUCKET, "transfer.sh", "filebrowser")
"""What ``--from`` takes."""

_SCHEME = "s3://"


def is_bucket(text: str) -> bool:
    """Tell whether a source is a bucket."""
    return text.startswith(_SCHEME)


def find_source(
    text: str, kind: str | None, store: Path, *, report: Path | None = None, endpoint: str | None = None,
    region: str | None = None, compare_etags: bool = True,
) -> Source:  # fmt: skip
    """Return the source that is meant; ``kind`` None tells it by looking. ``store`` is what is imported into.

    ``report`` is where the report is to be, unless it is in the store.

    Raises StartError where there is no such source, SettingsError where it cannot be of that kind.
    """
    if is_bucket(text) != (kind == BUCKET) and kind is not None:
        raise SettingsError(f"--from {kind}: {text} is {'a bucket' if is_bucket(text) else 'no s3://bucket/prefix'}")
    if is_bucket(text):
        # obstore takes long to import, and need not be installed
        from filestored.importing.bucket import BucketSource

        return BucketSource(text, endpoint=endpoint, region=region, compare_etags=compare_etags)
    root = Path(os.path.abspath(text))
    try:
        _require_apart(root, store)
        return _made(root, kind or _tell_kind(root), store, report)
    except OSError as error:
        raise StartError(f"{text} cannot be read: {error.strerror or error}") from error


def identify(text: str) -> str:
    """Return what names a source in its report, wherever the command is called from."""
    return text.rstrip("/") if is_bucket(text) else os.path.abspath(text)


def _tell_kind(root: Path) -> str:
    if (root / ".filestored" / "format.json").is_file() or is_laid_out_as_store(root):
        return StoreSource.kind
    if is_filebrowser(root):
        return FilebrowserSource.kind
    return TransferShSource.kind if is_transfer_sh(root) else FolderSource.kind


def _made(root: Path, kind: str, store: Path, report: Path | None) -> Source:
    if kind == StoreSource.kind:
        return StoreSource(root)
    kinds = {source.kind: source for source in (FolderSource, TransferShSource, FilebrowserSource)}
    return kinds[kind](root, store=store, report=report)


def _require_apart(root: Path, store: Path) -> None:
    """Raise StartError unless there is a folder that is not the store that it goes into, and not inside it."""
    if not root.is_dir():
        raise StartError(f"there is no folder {root} to import from")
    inner, outer = root.resolve(), store.resolve()
    if inner == outer or outer in inner.parents:
        raise StartError(f"{root} lies in the store {store} itself")
