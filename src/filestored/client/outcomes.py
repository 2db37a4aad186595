"""Many files at once: what is to be done, what came of each, and whoever watches the work."""

from dataclasses import dataclass
from typing import TypeAlias

from filestored.client.errors import ClientError
from filestored.client.manifest import Entry


@dataclass(frozen=True, slots=True)
class Found:
    """A file to be sent: what to open, what the caller knows it by, and its path in a manifest.

    ``is_followed`` where a symbolic link stands for what it points to: one that the user named, none in a folder.
    """

    path: str
    label: str
    place: str
    is_followed: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A file is on the server: ``size`` in bytes, ``is_new`` where its bytes were sent.

    ``label`` is what the caller knows it by; ``entry`` is its line of a manifest, where it has a path.
    """

    label: str
    hash: str
    size: int
    is_new: bool
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """A folder or a link, of which only the manifest tells; or, restored, any entry that is in its place.

    ``was_there`` tells that it had been in its place already.
    """

    entry: Entry
    was_there: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not work for this one; the error says why, and names it."""

    label: str
    error: ClientError


Outcome: TypeAlias = Stored | Noted | Failed


class Transfer:
    """One file under way. This one tells nobody."""

    def at(self, position: int, size: int | None) -> None:
        """Note that so many bytes have been moved, of ``size`` where that is known."""

    def end(self) -> None:
        """Note that it is over, one way or the other."""


class Watch:
    """Is told how work on many files goes, from any thread. This one tells nobody."""

    def begin(self, label: str, size: int | None) -> Transfer:
        """Note that a file is being transferred that is too large for one request."""
        return Transfer()

    def done(self, size: int) -> None:
        """Note that a file is over, of ``size`` bytes that no transfer told of."""
