"""Opening the blobs of a store, wherever they lie."""

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from filestored.blobs.address import BucketAddress
from filestored.blobs.disk import DiskBlobStore
from filestored.blobs.layout import StoreFolder
from filestored.blobs.store import BlobStore
from filestored.errors import BlobStoreError, StartError

if TYPE_CHECKING:
    from filestored.blobs.bucket.mark import Mark, Marks

T = TypeVar("T")


def open_blobs(folder: StoreFolder, *, for_reading: bool = False) -> BlobStore:
    """Return where a store's blobs lie: its folder or its bucket, which is not asked anything yet.

    The caller closes it. ``for_reading`` takes a folder that another program left as well, and publishes nothing.
    Raises OSError, LibraryMissing, and StartError where what is said of a bucket cannot be right.
    """
    if folder.bucket is None:
        return DiskBlobStore(folder, for_reading=for_reading)
    # only here: it brings obstore with it
    from filestored.blobs.bucket.store import BucketBlobStore

    return BucketBlobStore(folder)


def read_mark(bucket: BucketAddress) -> "Mark | None":
    """Return what a bucket says of itself, None where it has no mark; nothing is changed. Raises StartError."""
    return _read(bucket, lambda marks: marks.read())


def read_keeper(bucket: BucketAddress) -> str:
    """Return the id of the catalogue that keeps a bucket, empty where none does. Raises StartError."""
    return _read(bucket, lambda marks: marks.keeper())


def _read(bucket: BucketAddress, what: "Callable[[Marks], T]") -> T:
    # only here: they bring obstore with them
    from filestored.blobs.bucket.connecting import READ, connect
    from filestored.blobs.bucket.faults import Faults
    from filestored.blobs.bucket.mark import Marks

    try:
        return what(Marks(connect(bucket, READ), Faults(bucket), bucket))
    except BlobStoreError as error:
        raise StartError(f"the bucket {bucket} cannot be used: {error.reason}") from error


def has_blobs(folder: StoreFolder) -> bool:
    """Tell whether there is any blob. Raises StartError, LibraryMissing."""
    found = []
    _ask(folder, lambda blobs: found.append(next(iter(blobs.walk(failed=lambda shard, error: None)), None)))
    return found != [None]


def adopt_blobs(folder: StoreFolder) -> None:
    """See that a store's blobs can be used; an empty bucket becomes a store. Raises StartError, LibraryMissing."""
    if folder.bucket is not None:
        _ask(folder, lambda blobs: blobs.id)


def _ask(folder: StoreFolder, what: Callable[[BlobStore], object]) -> None:
    try:
        with closing(open_blobs(folder)) as blobs:
            what(blobs)
    except BlobStoreError as error:
        raise StartError(f"the bucket {folder.bucket} cannot be used: {error.reason}") from error
