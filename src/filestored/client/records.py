"""What the client returns: the server's JSON objects, typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class File:
    """A stored file, and what the server knows of it. ``size`` is in bytes, times are aware (UTC).

    ``is_new`` tells of an upload whether its bytes were sent and were new for the owner.
    """

    hash: str
    algorithm: str
    size: int
    name: str | None
    type: str
    owner: str | None
    created_at: datetime
    expires_at: datetime | None
    url: str
    is_new: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, said: Mapping[str, Any], *, is_new: bool = False) -> Self:
        """Make it of the server's file object. Raises KeyError, ValueError, TypeError where it is none."""
        return cls(
            hash=text(said["hash"]),
            algorithm=text(said["algorithm"]),
            size=whole(said["size"]),
            name=optional_text(said["name"]),
            type=text(said["type"]),
            owner=optional_text(said["owner"]),
            created_at=parse_time(said["created_at"]),
            expires_at=_parse_end(said["expires_at"]),
            url=text(said["url"]),
            is_new=is_new,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the server's file object, times as RFC 3339."""
        return {
            "hash": self.hash,
            "algorithm": self.algorithm,
            "size": self.size,
            "name": self.name,
            "type": self.type,
            "owner": self.owner,
            "created_at": spell_time(self.created_at),
            "expires_at": None if self.expires_at is None else spell_time(self.expires_at),
            "url": self.url,
        }


@dataclass(frozen=True, slots=True)
class Head:
    """What a server tells of a file to whoever may read it."""

    size: int
    name: str | None
    type: str


@dataclass(frozen=True, slots=True)
class Received:
    """A file that was downloaded and whose hash was checked; ``path`` is where it is, None for a stream.

    ``was_there`` tells that a file with this content had been in place already.
    """

    hash: str
    size: int
    name: str | None
    type: str
    path: Path | None
    was_there: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """An address that reads one file without a token until ``expires_at``."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Stats:
    """How much is kept, in numbers and bytes; ``free`` bytes on the server's disk, None where it has a bucket."""

    files: int
    blobs: int
    bytes: int
    free: int | None
    algorithm: str
    version: str

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> Self:
        """Make it of what the server says. Raises KeyError, TypeError where it is none."""
        files, blobs, size = (whole(said[name]) for name in ("files", "blobs", "bytes"))
        free = None if said["free"] is None else whole(said["free"])
        return cls(files, blobs, size, free, text(said["algorithm"]), text(said["version"]))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what it may do. ``quota`` is in bytes, None for none."""

    owner: str | None
    permissions: frozenset[str]
    quota: int | None
    expires_at: datetime | None
    algorithm: str


@dataclass(frozen=True, slots=True)
class Item:
    """A small file in memory that is uploaded together with others."""

    content: bytes
    name: str | None = None
    type: str | None = None


def text(value: object) -> str:
    """Return a text of a JSON answer. Raises TypeError where it is something else."""
    if not isinstance(value, str):
        raise TypeError
    return value


def optional_text(value: object) -> str | None:
    """Return a text or null of a JSON answer. Raises TypeError where it is something else."""
    return None if value is None else text(value)


def whole(value: object) -> int:
    """Return a whole number of a JSON answer, not below 0. Raises TypeError where it is something else."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError
    return value


def parse_time(spelled: str) -> datetime:
    """Read an RFC 3339 time. Raises ValueError where it has no zone."""
    time = datetime.fromisoformat(spelled)
    if time.tzinfo is None:
        raise ValueError(f"a time without a zone: {spelled}")
    return time.astimezone(UTC)


def _parse_end(spelled: str | None) -> datetime | None:
    return None if spelled is None else parse_time(spelled)


def spell_time(time: datetime) -> str:
    """Write a time as RFC 3339 in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
