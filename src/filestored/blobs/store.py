"""What every blob store promises."""

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from filestored.digest import Digest

Identity = tuple[int | str, int, int]
"""What tells one blob from another under the same name: inode or entity tag, time (nanoseconds since 1970), size."""

MOST_FORESEEN = 32
"""How many blobs a bucket is asked about at once: who needs more, and may, asks again."""

PIECE = 256 * 1024
"""How many bytes are read from a bucket at a time."""

Failed = Callable[[str, OSError], None]
"""What is called for each folder of blobs that cannot be listed."""


@dataclass(frozen=True, slots=True)
class BlobStat:
    """What is known of a blob without reading it: its size in bytes and when it was stored (Unix seconds)."""

    size: int
    modified: int


class BlobHandle(ABC):
    """A blob that can be read: a file held open, or what a bucket has answered.

    Closes itself when the last reader lets go of it, so any number of downloads may share one.
    """

    __slots__ = ("body", "identity", "modified", "size")

    def __init__(self, identity: Identity, body: bytes | None = None) -> None:
        self.identity = identity
        self.body = body
        """All bytes, where they are in memory already."""
        self.size = identity[2]
        self.modified = identity[1] // 1_000_000_000

    @abstractmethod
    def read(self, start: int, stop: int) -> bytes:
        """Read some bytes at once. Blocks. OSError or BlobStoreError where they are not all to be had."""

    @abstractmethod
    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Read on and on, a piece of at most some MiB after the other, in flat memory. Blocks; raises as ``read``."""

    def stream(self, start: int, stop: int, piece: int = PIECE) -> AsyncGenerator[bytes, None] | None:
        """Read on and on without blocking, in pieces of about as many bytes; None for a file, which a thread reads.

        Close the generator where it is not read to its end. Raises BlobStoreError.
        """
        return None

    def read_cached(self, start: int, stop: int, buffer: memoryview) -> bytes:
        """Return what the system has in memory already, as far as it fits a buffer; empty where that is nothing.

        Does not wait for anything.
        """
        return b""

    @abstractmethod
    def close(self) -> None:
        """Let go of the blob at once; what is known of it stays. Only for who alone holds it."""


class StagedBytes(Protocol):
    """A whole body waiting to become a blob: digest, size in bytes, and where its bytes are."""

    is_brought: bool
    """Whether a blob store has put them where :meth:`BlobStore.publish` finds them. The store's to change."""

    @property
    def digest(self) -> Digest:
        """The blob's name to be."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    @property
    def memory(self) -> bytes | None:
        """The bytes, where they are in memory."""

    def name_in(self, staging: int) -> str:
        """Return the name, in the folder whose handle is given, of the bytes: written, and flushed if they must be."""

    def open_in(self, staging: int) -> int:
        """Open the file of the bytes for reading, where they are not in memory; flushed or not. Raises OSError."""


class Walk(Protocol):
    """The digests of all blobs in their order. It takes the same memory for any store.

    What is stored meanwhile may be met or not, and what is met may be gone by then: look at each when you come to it.
    """

    others: int
    """Names met so far that are no blobs."""

    def __iter__(self) -> Iterator[Digest]:
        """Go through them. Raises BlobStoreError where a bucket cannot be listed to its end."""


class Permit(NamedTuple):
    """What lets one blob be removed from a bucket for a while, and what nobody carries out after that."""

    address: str
    """Where to send DELETE; whoever has it may."""
    until: float
    """When it ends, by CLOCK_BOOTTIME."""


class BlobStore(Protocol):
    """Keeps blobs. A blob under its name is always whole, and never changes while it is there.

    What goes wrong is an OSError of the local disk, or a BlobStoreError of the bucket. Every method may be called from
    any thread, and may block but for :meth:`is_in_place`.
    """

    @property
    def removes_at_once(self) -> bool:
        """Whether a removal is over when :meth:`remove` ends, however it ends; else it may still happen later."""

    @property
    def staging(self) -> int:
        """The handle of the local folder in which bodies arrive."""

    @property
    def id(self) -> str:
        """What tells this store from all others: a folder's, or the mark's in the bucket."""

    def keep_for(self, catalogue: str, *, take_over: bool = False) -> str:
        """Note which catalogue keeps the store, unless another is noted; return the one that is noted then.

        ``take_over`` writes it over any other. A store on disk notes none, and is content with any.
        """

    def keeper(self) -> str:
        """Return which catalogue is noted to keep the store; empty for none, and for a store on disk."""

    def open(self, digest: Digest, size: int | None = None) -> BlobHandle | None:
        """Open a blob for reading; None where there is none. Never follows a link.

        ``size`` is what it should have: from a bucket a small one comes whole, with the one request that finds it.
        """

    def stat(self, digest: Digest) -> BlobStat | None:
        """Tell size and time of a blob; None where there is none."""

    def identity(self, digest: Digest) -> Identity | None:
        """Return what tells the blob that has a name now from another one; None where there is none."""

    def is_in_place(self, digest: Digest, identity: Identity) -> bool:
        """Tell whether a blob that was opened still is the one under its name, as far as that costs nothing.

        Never asks a network: a bucket's blobs count as in place, and the catalogue says which are deleted.
        """

    def bring(self, staged: StagedBytes, *, anew: bool = False) -> bool:
        """Bring the bytes to where publishing them costs nothing. True if anything was put.

        May take long: call it without a lock or a transaction. A disk has nothing to do. To a bucket the bytes are put
        under their name, unless the blob is there with their size already; ``anew`` puts them even then. It has
        everything under its name when it returns, or raises. Sets ``staged.is_brought`` where it put.
        """

    def foresee(self, digests: Iterable[Digest], *, for_reader: bool = False) -> None:
        """Look at all these blobs at once, for the methods that this thread calls until :meth:`forget_foreseen`.

        Call it when the write transaction holds the locks of these digests; what is not among them is looked at once,
        when it is asked for. ``for_reader`` is for whoever holds no locks: it holds up nobody who does. A disk has
        nothing to do.
        """

    def forget_foreseen(self) -> None:
        """Forget what was seen: the transaction is over."""

    def needs(self, staged: StagedBytes) -> bool:
        """Tell whether publishing these bytes would change the store."""

    def publish(self, staged: StagedBytes) -> bool:
        """Give staged bytes their name. True if that changed the store, False if the blob was there already.

        A blob of another size under that name is damaged, and is replaced. Not durable before :meth:`flush`.
        In a bucket they have it since :meth:`bring`: True if that put them. Raises NotBrought where they are gone by
        now: end the transaction, bring them again, and repeat.
        """

    def flush(self, digests: Iterable[Digest]) -> None:
        """Make the names of these blobs, or their absence, survive a power cut."""

    def flush_everything(self) -> bool:
        """Make all names and staged bytes durable at once; False, and nothing done, where that is no gain."""

    def permits(self, digests: Sequence[Digest]) -> Mapping[Digest, Permit]:
        """Return what lets these blobs be removed for half a minute from now on: the engine refuses what comes later.

        Nothing on a disk, and where the credentials of a bucket cannot sign.
        """

    def remove(self, digest: Digest, permit: Permit | None = None) -> bool:
        """Remove a blob; False where there was none, which is not an error. Not durable before :meth:`flush`.

        A bucket cannot tell, and returns True. Where it raises, the blob may be there or not, or go later.
        """

    def quarantine(self, digest: Digest, identity: Identity) -> Path | str | None:
        """Take a damaged blob away from its name, durably; return where it lies now, beside earlier ones of that name.

        ``identity`` is that of the blob that was found damaged: None, and nothing done, where the name belongs to
        another by now, or to none. Call it inside a write transaction, which keeps others from publishing and removing.
        """

    def walk(self, after: str = "", *, failed: Failed) -> Walk:
        """Return all blobs in the order of their digests, those behind ``after`` only."""

    def presigned(self, digest: Digest, seconds: float, headers: Mapping[str, str]) -> tuple[str, bool] | None:
        """Return an address at which a bucket gives a blob to anybody for some seconds; None where there is none.

        And whether its answers carry the headers asked for: ``content-type``, ``content-disposition`` and
        ``cache-control``.
        """

    def free_bytes(self) -> int:
        """Tell how many bytes the local disk can still take: what is under way."""

    def require_usable(self) -> None:
        """Raise OSError or BlobStoreError where blobs cannot be read and stored now. Takes a few seconds at most."""

    def close(self) -> None:
        """Let go of it. Open blobs stay readable."""


def pread_all(descriptor: int, start: int, stop: int) -> bytes:
    """Read a span of a file; OSError where the file ends before it does. Blocks."""
    pieces = []
    while start < stop:
        piece = os.pread(descriptor, stop - start, start)
        if not piece:
            raise OSError(5, "the blob has become shorter while it was read")
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)
