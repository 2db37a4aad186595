"""What there is to copy, and what the two sides of a copy promise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filestored.catalogue.records import FileRecord
from filestored.digest import Algorithm, Digest
from filestored.errors import FilestoredError


class CopyFault(FilestoredError):
    """One blob cannot be copied; ``state`` is ``damaged``, ``missing`` or ``failed``."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state


class Gone(FilestoredError):
    """A blob was deleted at the source after it was listed: there is nothing to copy, and nothing wrong."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A blob to copy, with the files that name it. ``size`` in bytes.

    ``algorithms`` are those that may have made its digest; ``files`` is empty for a blob that no row names.
    """

    digest: Digest
    algorithms: tuple[Algorithm, ...]
    size: int
    files: tuple[FileRecord, ...]

    @property
    def owners(self) -> tuple[str, ...]:
        """Who keeps it; the empty name for nobody."""
        return tuple(file.owner for file in self.files) or ("",)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something at the source that is not copied. ``hides_others`` where it keeps more from being seen.

    ``state`` is that of a CopyFault, or ``skipped``: it is no blob.
    """

    name: str
    state: str
    reason: str
    hides_others: bool = False


class Pieces(Protocol):
    """A blob held open."""

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes, once."""

    def close(self) -> None:
        """Let go of it."""


class Origin(Protocol):
    """Where a copy comes from. Its methods block; ``open`` is called from several threads at once."""

    algorithms: list[Algorithm]
    """What its blobs are named by, as far as it says; the last names new ones."""

    def __iter__(self) -> Iterator[Entry | Trouble]:
        """Give all there is to copy. Raises FilestoredError, OSError."""

    def open(self, entry: Entry) -> Pieces:
        """Open a blob. Raises Gone, CopyFault."""

    def path_of(self, entry: Entry) -> Path | None:
        """Return where a blob lies as a file, None where it does not."""

    def has(self, digest: Digest, owner: str) -> bool:
        """Tell whether an owner keeps a file now; with the empty name, whether the blob is there."""


class Destination(Protocol):
    """Where a copy goes."""

    is_folder: bool
    """Whether it takes everything that a store has, and not only what HTTP tells."""

    async def settled(self, entries: Sequence[Entry]) -> set[Entry]:
        """Return the entries of which nothing is to be brought over: blob and files are there as they should be."""

    async def take(self, entry: Entry, origin: Origin) -> "Taken":
        """Bring over what is lacking. Raises Gone, CopyFault, other FilestoredErrors, OSError."""

    async def verify(self, entry: Entry) -> bool | None:
        """Re-read what is there; None where nothing is, False where it is damaged: taking the entry replaces it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of bringing an entry over: the hash it has there, and whether its bytes were sent."""

    hash: str
    was_sent: bool


class Proof:
    """The pieces of a blob, hashed on the way. Nothing that is said of it is believed: not its size either."""

    def __init__(self, entry: Entry, pieces: Pieces, read: Callable[[int], None]) -> None:
        """``read`` is told the sizes of the pieces."""
        self.algorithm = entry.algorithms[0]
        """What the blob is named by, once all pieces were given."""
        self._entry = entry
        self._pieces = pieces
        self._read = read

    def __iter__(self) -> Iterator[bytes]:
        """Give the pieces, once. Raises CopyFault where they are not what name and size say, at the latest at the end.

        No more bytes are given than the blob is said to have.
        """
        hashes = {algorithm: algorithm.new() for algorithm in self._entry.algorithms}
        size = 0
        for piece in self._pieces:
            size += len(piece)
            if size > self._entry.size:
                raise CopyFault("damaged", f"it has more than its {self._entry.size} bytes")
            self._read(len(piece))
            for each in hashes.values():
                each.update(piece)
            yield piece
        self._judge({algorithm: each.hexdigest() for algorithm, each in hashes.items()}, size)

    def _judge(self, found: dict[Algorithm, str], size: int) -> None:
        fitting = [algorithm for algorithm, digest in found.items() if digest == self._entry.digest]
        if not fitting:
            raise CopyFault("damaged", f"its {size} bytes have the hash {found[self.algorithm]}")
        if size != self._entry.size:
            raise CopyFault("damaged", f"it has {size} bytes instead of {self._entry.size}")
        self.algorithm = fitting[0]


def prove(entry: Entry, pieces: Pieces, read: Callable[[int], None]) -> Algorithm:
    """Read a blob to its end; return the algorithm of its name. Raises CopyFault where it is damaged."""
    proof = Proof(entry, pieces, read)
    for _ in proof:
        pass
    return proof.algorithm


def possible_algorithms(digest: Digest, listed: Sequence[Algorithm]) -> tuple[Algorithm, ...]:
    """Return which algorithms may have made a digest: those a store lists, else all with hashes of that length."""
    possible = all_algorithms(digest)
    return tuple(algorithm for algorithm in possible if algorithm in listed) or possible


def all_algorithms(digest: Digest) -> tuple[Algorithm, ...]:
    """Return the algorithms with hashes as long as a digest that can be worked out here."""
    same = [algorithm for algorithm in Algorithm if algorithm.hex_length == len(digest)]
    return tuple(algorithm for algorithm in same if algorithm.is_available)
