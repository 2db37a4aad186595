"""What every source of files gives: items, and their bytes in pieces."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from filestored.api.names import clean_name
from filestored.catalogue.records import now_milliseconds
from filestored.digest import Algorithm
from filestored.errors import FilestoredError

PIECE = 1 << 20
"""How many bytes are read at a time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND = 253402300799999
_UNDECODABLE = re.compile("[\udc80-\udcff]")
# O_NONBLOCK: opening a pipe that somebody put there must not hang; it means nothing for files
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SourceFault(FilestoredError):
    """An item cannot be had as it should be: damaged, changed while it was read, or not to be read at all."""


class NotAFile(SourceFault):
    """What was listed turns out to be nothing to import; ``key`` is what it is called properly."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


@dataclass(frozen=True, slots=True)
class Expected:
    """What the source says the bytes hash to, by one of several algorithms; ``said_by`` is who says so."""

    hash: str
    algorithms: tuple[Algorithm, ...]
    said_by: str


@dataclass(frozen=True, slots=True)
class Item:
    """A file there is to import.

    ``key`` tells it from all others of its source; ``version`` differs as soon as its bytes may differ. ``size`` in
    bytes, None where only reading tells; times in milliseconds since 1970. ``name`` and ``media_type`` are None where
    the source has none. ``note`` says what of it cannot be kept.
    """

    key: str
    size: int
    version: str
    name: str | None = None
    media_type: str | None = None
    created_at: int | None = None
    expires_at: int | None = None
    expected: Expected | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """Something of the source that is not imported, and why. ``is_fault`` where it should have been."""

    key: str
    reason: str
    is_fault: bool = False
    size: int | None = None


class Content(Protocol):
    """An item held open."""

    media_type: str | None
    """What the source says of its type now that it is open; None where the item had it."""

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes, once. Raises SourceFault at the end where the source has changed meanwhile; OSError."""

    def close(self) -> None:
        """Let go of it."""


class Source(Protocol):
    """Where files come from. Its methods block; ``open`` is called from several threads at once."""

    kind: str
    """What ``--from`` calls it."""

    def __iter__(self) -> Iterator[Item | Left]:
        """Give all there is. Raises OSError, FilestoredError where the source cannot be listed."""

    def open(self, item: Item) -> Content:
        """Open an item. Raises SourceFault, NotAFile, OSError."""


class FileContent:
    """A file on the disk, held open."""

    media_type: str | None = None

    def __init__(self, path: str, item: Item) -> None:
        """Open the file that was found under ``path``: no link, and not changed since. Raises SourceFault, OSError."""
        self._descriptor = os.open(path, _READ)
        self._item = item
        try:
            self._require_unchanged("was listed")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        position = 0
        while piece := os.pread(self._descriptor, PIECE, position):
            position += len(piece)
            yield piece
        self._require_unchanged("was read")

    def _require_unchanged(self, when: str) -> None:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode) or version_of(status) != self._item.version:
            raise SourceFault(f"it has changed while it {when}; import again")

    def close(self) -> None:
        """See Content."""
        os.close(self._descriptor)


def version_of(status: os.stat_result) -> str:
    """Return what differs as soon as a file's bytes may differ: which file it is, when it was written, its size.

    And when it was changed in any way, which is what cannot be set back.
    """
    return f"{status.st_ino}.{status.st_mtime_ns}.{status.st_ctime_ns}.{status.st_size}"


def milliseconds(moment: datetime) -> int:
    """Return a time in milliseconds since 1970: none after the year 9999, which is where written times end."""
    return min((moment - _EPOCH) // timedelta(milliseconds=1), _LAST_MILLISECOND)


def within_bounds(moment: int) -> int:
    """Return a time in milliseconds since 1970 that a file can have been made at: not before that, and not to come."""
    return min(max(0, moment), now_milliseconds())


def fit_name(raw: str) -> tuple[str | None, str | None]:
    """Return the name under which a file of this name is kept, and a note where it is not the same.

    Bytes of a name that are no UTF-8 are written in hex, as in an address: ``caf%E9``.
    """
    name = clean_name(_UNDECODABLE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", raw))
    if name is None:
        return None, "its name cannot be kept"
    return name, None if name == raw else f"its name is kept as {name!r}"
