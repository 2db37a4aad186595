"""What the catalogue keeps, and what uploads say of it."""

import time
from dataclasses import dataclass

from filestored.digest import Digest


def now_milliseconds() -> int:
    """Return the time in the catalogue's unit: milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file: what an owner keeps under a digest.

    ``size`` in bytes; ``created_at`` and ``expires_at`` in milliseconds since 1970 (UTC); ``expires_at`` None
    means for ever; ``name`` None means that nobody gave one.
    """

    digest: Digest
    owner: str
    name: str | None
    media_type: str
    size: int
    created_at: int
    expires_at: int | None

    def is_live(self, now: int) -> bool:
        """Tell whether the file is still to be had at ``now`` (milliseconds since 1970)."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class Wish:
    """What an upload says about its file; None where it says nothing.

    ``guessed_type`` serves where no ``media_type`` is given; ``expires_at`` is in milliseconds since 1970.
    """

    name: str | None = None
    media_type: str | None = None
    guessed_type: str = "application/octet-stream"
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What came of an upload: the file as it is now, and whether it is new for this owner."""

    file: FileRecord
    is_new: bool
