"""What every blob store promises."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from filestored.digest import Digest


@dataclass(frozen=True, slots=True)
class BlobStat:
    """What is known of a blob without reading it: its size in bytes and when it was stored (Unix seconds)."""

    size: int
    modified: int


class BlobHandle:
    """A blob held open: it can be read to its end whatever happens to its name meanwhile.

    Closes itself when the last reader lets go of it, so any number of downloads may share one.
    """

    __slots__ = ("descriptor", "identity", "modified", "size")

    def __init__(self, descriptor: int, status: os.stat_result) -> None:
        self.descriptor = descriptor
        self.size = status.st_size
        self.modified = int(status.st_mtime)
        self.identity = (status.st_ino, status.st_mtime_ns, status.st_size)

    def close(self) -> None:
        """Let go of the blob at once; what is known of it stays. Only for who alone holds it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class StagedBytes(Protocol):
    """A whole body waiting to become a blob: digest, size in bytes, and its name in the staging folder."""

    @property
    def digest(self) -> Digest:
        """The blob's name to be."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def name_in(self, staging: int) -> str:
        """Return the name, in the folder whose handle is given, of the bytes: written, and flushed if they must be."""


class BlobStore(Protocol):
    """Keeps blobs. A blob under its name is always whole, and never changes while it is there."""

    def open(self, digest: Digest) -> BlobHandle | None:
        """Open a blob for reading; None where there is none. Never follows a link."""

    def stat(self, digest: Digest) -> BlobStat | None:
        """Tell size and time of a blob; None where there is none."""

    def publish(self, staged: StagedBytes) -> bool:
        """Give staged bytes their name. True if that changed the store, False if the blob was there already.

        A blob of another size under that name is damaged, and is replaced. Not durable before :meth:`flush`.
        """

    def needs(self, staged: StagedBytes) -> bool:
        """Tell whether publishing these bytes would change the store."""

    def flush(self, digests: Iterable[Digest]) -> None:
        """Make the names of these blobs, or their absence, survive a power cut."""

    def remove(self, digest: Digest) -> bool:
        """Remove a blob; False where there was none, which is not an error. Not durable before :meth:`flush`."""

    def free_bytes(self) -> int:
        """Tell how many bytes can still be stored."""
