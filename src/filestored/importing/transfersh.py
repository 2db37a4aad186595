"""transfer.sh's folder (``--provider local --basedir``): ``TOKEN/name``, and beside each what is said of it.

``TOKEN/name.metadata`` is JSON: ``ContentType``, ``ContentLength`` (of newer versions), ``Downloads``, ``MaxDownloads``
(-1 for no limit), ``MaxDate`` (``0001-01-01T00:00:00Z`` for never), ``DeletionToken``, ``Encrypted``,
``DecryptedContentType``.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from filestored.api.names import parse_media_type
from filestored.errors import BadRequest
from filestored.importing.folder import FolderSource, modified, walk
from filestored.importing.source import Content, Item, Left, fit_name, milliseconds, version_of

_SUFFIX = ".metadata"
_MOST_BYTES = 64 * 1024
_LOOKED_AT = 200
_AND = "+"
_FOREIGN = "it is not what transfer.sh writes"
# Go writes up to nine digits of a second, Python reads six
_FINER = re.compile(r"(\.\d{6})\d+")


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What transfer.sh says of a file; times in milliseconds since 1970, sizes in bytes."""

    media_type: str | None
    size: int | None
    downloads: int
    max_downloads: int
    expires_at: int | None
    is_encrypted: bool
    is_compressed: bool

    @classmethod
    def read(cls, path: str) -> "_Metadata":
        """Read a file of metadata. Raises OSError, ValueError where it is none."""
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            text = file.read(_MOST_BYTES)
        try:
            return cls._parse(json.loads(text))
        except (TypeError, OverflowError, RecursionError):
            raise ValueError(_FOREIGN) from None

    @classmethod
    def _parse(cls, fields: Any) -> "_Metadata":
        if not isinstance(fields, dict) or "MaxDownloads" not in fields or "DeletionToken" not in fields:
            raise ValueError(_FOREIGN)
        size = fields.get("ContentLength")
        return cls(
            _media_type(str(fields.get("ContentType") or "")),
            size if isinstance(size, int) and size > 0 else None,
            int(fields.get("Downloads") or 0),
            int(fields["MaxDownloads"]),
            _time(str(fields.get("MaxDate") or "")),
            bool(fields.get("Encrypted")),
            bool(fields.get("Compressed")),
        )


class TransferShSource(FolderSource):
    """The files that transfer.sh would still serve; of the others, why it would not."""

    kind = "transfer.sh"

    def __iter__(self) -> Iterator[Item | Left]:
        for key, status in walk(self.root, leave_out=self._leave_out):
            if isinstance(status, Left):
                yield status
            elif not self._is_metadata(key):
                yield self._judge(key, status)

    def open(self, item: Item) -> Content:
        """See Source."""
        return super().open(replace(item, version=item.version.partition(_AND)[0]))

    def _is_metadata(self, key: str) -> bool:
        """Tell whether a file says something of another: somebody may have uploaded one that is called so."""
        return (
            key.endswith(_SUFFIX)
            and not os.path.lexists(os.path.join(self.root, key + _SUFFIX))
            and os.path.lexists(os.path.join(self.root, key.removesuffix(_SUFFIX)))
        )

    def _judge(self, key: str, status: os.stat_result) -> Item | Left:
        try:
            said = _Metadata.read(os.path.join(self.root, key + _SUFFIX))
        except FileNotFoundError:
            return Left(key, "nothing is said of it, and so transfer.sh does not serve it", size=status.st_size)
        except (OSError, ValueError) as error:
            return Left(key, f"what is said of it cannot be read: {error}", is_fault=True)
        reason = _reason_to_leave(said, status)
        if reason is not None:
            return Left(key, reason.text, reason.is_fault, status.st_size)
        name, note = fit_name(os.path.basename(key))
        notes = "; ".join(filter(None, (note, *_losses(said)))) or None
        return Item(
            key,
            status.st_size,
            # what is said of it may change, too; all but how often it was downloaded
            f"{version_of(status)}{_AND}{said.expires_at}.{said.media_type}",
            name,
            said.media_type,
            modified(status),
            said.expires_at,
            note=notes,
        )


@dataclass(frozen=True, slots=True)
class _Reason:
    text: str
    is_fault: bool = False


def _reason_to_leave(said: _Metadata, status: os.stat_result) -> _Reason | None:
    if said.expires_at is not None and said.expires_at <= datetime.now(UTC).timestamp() * 1000:
        return _Reason(f"it expired on {datetime.fromtimestamp(said.expires_at / 1000, UTC):%Y-%m-%d}")
    if said.max_downloads != -1 and said.downloads >= said.max_downloads:
        return _Reason(f"it has been downloaded {said.downloads} times, as often as it was to be")
    if said.is_compressed:
        return _Reason("it lies there compressed, which is not what was uploaded; download it instead", is_fault=True)
    if said.size not in (None, status.st_size) and not said.is_encrypted:
        return _Reason(f"it has {status.st_size} bytes instead of {said.size}: its upload broke off", is_fault=True)
    return None


def _losses(said: _Metadata) -> Iterator[str]:
    if said.max_downloads != -1:
        yield f"its limit of {said.max_downloads} downloads is not kept"
    if said.is_encrypted:
        yield "it is encrypted (OpenPGP), and stays so: gpg --decrypt opens it with its password"


def is_transfer_sh(root: Path) -> bool:
    """Tell whether a folder is transfer.sh's: nothing but folders, and in these files of which something is said."""
    found = False
    with os.scandir(root) as entries:
        for token in islice(entries, _LOOKED_AT):
            if not token.is_dir(follow_symlinks=False):
                return False
            found = found or _holds_metadata(token.path)
    return found


def _holds_metadata(folder: str) -> bool:
    with os.scandir(folder) as entries:
        for entry in islice(entries, _LOOKED_AT):
            if entry.name.endswith(_SUFFIX) and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                try:
                    _Metadata.read(entry.path)
                except (OSError, ValueError):
                    continue
                return True
    return False


def _media_type(text: str) -> str | None:
    """Return a media type fit to be kept; None for one that says nothing."""
    try:
        return parse_media_type(text)
    except BadRequest:
        return None


def _time(text: str) -> int | None:
    """Return a time of Go's (RFC 3339) in milliseconds since 1970; None for its zero, which is never."""
    if not text or text.startswith("0001-"):
        return None
    moment = datetime.fromisoformat(_FINER.sub(r"\1", text))
    return milliseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
