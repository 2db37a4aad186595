"""What the catalogue keeps, and what uploads say of it."""

import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from filestored.digest import Digest

NOBODY = ""
"""The owner of a file whose owner is not known: of a blob that ``reindex`` found. It holds nothing back from others."""


UNKNOWN_TYPE = "application/octet-stream"
"""The media type of a file of which nothing is known."""


def now_milliseconds() -> int:
    """Return the time in the catalogue's unit: milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000


def folded(name: str | None) -> str:
    """Return what a name is sorted and searched by: without the difference of case, composed letters as one."""
    return unicodedata.normalize("NFC", name).casefold() if name else ""


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

    ``guessed_type`` serves where no ``media_type`` is given; ``expires_at`` and ``created_at`` are in milliseconds
    since 1970, and the latter counts only for a file that is new: what is imported is as old as it was where it came
    from.
    """

    name: str | None = None
    media_type: str | None = None
    guessed_type: str = UNKNOWN_TYPE
    expires_at: int | None = None
    created_at: int | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What came of an upload: the file as it is now, and whether it is new for this owner."""

    file: FileRecord
    is_new: bool


class Kept(Enum):
    """What stays as it is."""

    KEPT = "kept"


KEPT = Kept.KEPT


@dataclass(frozen=True, slots=True)
class FileChange:
    """What is to be said anew about a file; ``KEPT`` where it stays. Values are those of FileRecord.

    ``media_type`` may be a function that guesses it from the name.
    """

    name: str | Kept | None = KEPT
    media_type: str | Callable[[str | None], str] | Kept = KEPT
    expires_at: int | Kept | None = KEPT

    def of(self, file: FileRecord) -> FileRecord:
        """Return the file as it is after the change."""
        name = file.name if self.name is KEPT else self.name
        media_type = file.media_type if self.media_type is KEPT else self.media_type
        return replace(
            file,
            name=name,
            media_type=media_type(name) if callable(media_type) else media_type,
            expires_at=file.expires_at if self.expires_at is KEPT else self.expires_at,
        )


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token, without its secret.

    ``secret_hash`` is SHA-256 in hex, ``permissions`` their names with commas between; times in milliseconds since
    1970, ``quota`` in bytes; None means for ever, and without limit.
    """

    id: str
    name: str
    secret_hash: str
    permissions: str
    created_at: int
    expires_at: int | None
    quota: int | None


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """A resumable upload (tus 1.0.0).

    ``details`` and ``concat`` are ``Upload-Metadata`` and ``Upload-Concat`` as the client sent them; ``length`` is None
    as long as the client has not said it; ``flushed`` is how many bytes survive a power cut, and so the offset to go on
    from. ``digest`` names the file that came of it, ``joined_as`` the upload into which a part went. ``daemon`` is the
    id of the one whose disk has the bytes, None where there is but one. Sizes in bytes, times in
    milliseconds since 1970.
    """

    id: str
    owner: str
    details: str
    concat: str | None
    length: int | None
    flushed: int
    digest: Digest | None
    joined_as: str | None
    created_at: int
    expires_at: int
    daemon: str | None = None

    @property
    def is_part(self) -> bool:
        """Whether it is to become part of another, and so never a file by itself."""
        return self.concat == PART

    @property
    def is_over(self) -> bool:
        """Whether its bytes are elsewhere by now: in a file, or in the upload it was joined to."""
        return self.digest is not None or self.joined_as is not None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is to come any more: it is a file, or a whole part."""
        return self.digest is not None or (self.is_part and self.is_whole)

    @property
    def is_whole(self) -> bool:
        """Whether all of its bytes are there."""
        return self.length == self.flushed


@dataclass(frozen=True, slots=True)
class Removal:
    """The decision that a blob is to go from a bucket.

    ``sent_at`` is when the bucket was asked for that last (the database's clock, in milliseconds since 1970), None
    where it was not asked yet; ``age`` is how long ago that is, in milliseconds.
    """

    digest: Digest
    sent_at: int | None
    age: int | None


@dataclass(frozen=True, slots=True)
class DaemonRecord:
    """A daemon of a cluster: its id, where the others reach it, and for how many milliseconds it has been silent.

    ``incarnation`` tells one start of it from another.
    """

    id: str
    url: str
    silent: int
    incarnation: str


PART = "partial"
"""What ``Upload-Concat`` says of a part."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How much is kept: files, the different blobs they name, and bytes.

    For one owner each file is a blob, and shared ones count in full; for all owners together a blob counts once.
    """

    files: int
    blobs: int
    bytes: int
