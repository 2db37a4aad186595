"""Manifests: what a folder holds, as JSON, so that it can be restored from a server.

::

    {"filestored_manifest": 1, "algorithm": "sha256", "entries": [
    {"type": "folder", "path": "photos", "mode": "0755", "mtime_ns": 1764098314000000000},
    {"type": "file", "path": "photos/1.jpg", "hash": "ab…", "size": 52133, "mode": "0644", "mtime_ns": 1764…},
    {"type": "link", "path": "latest", "target": "photos/1.jpg", "mtime_ns": 1764…}
    ]}

Paths are relative and separated by ``/``. A path or target that is not UTF-8 stands as ``path_base64`` or
``target_base64`` in place of ``path`` or ``target``. A manifest may come from anybody: :func:`parse_manifest` takes
none that would write outside the folder it is restored to, and no path or target above 4,096 bytes.
"""

import base64
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO, TypeAlias

from filestored.client.errors import ClientError, shown
from filestored.digest import Algorithm, parse_digest

VERSION = 1
"""The version of the format that is written, and the only one that is read."""

PERMISSION_BITS = 0o777
"""The bits of a mode that are kept and restored: no setuid, setgid or sticky bit."""

_VERSION_KEY = "filestored_manifest"
_MODE = re.compile(r"0[0-7]{3,4}", re.ASCII)
_MAX_TIME = 2**63 - 1
# as many links as the system follows in one path before it gives up (path_resolution(7))
_MAX_LINKS = 40
# PATH_MAX of Linux: nothing longer could be made
_MAX_PATH_BYTES = 4096
# what folders may take that no entry names: a short manifest must not make many of them
_MAX_UNNAMED = 64 * 1024 * 1024


class ManifestError(ClientError):
    """A manifest is malformed, or would write where it must not."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file: its hash, its ``size`` in bytes, permission bits, and when it was changed, in Unix nanoseconds."""

    path: str
    hash: str
    size: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """A folder, an empty one too."""

    path: str
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class LinkEntry:
    """A symbolic link to ``target``, which lies in the same tree."""

    path: str
    target: str
    mtime_ns: int


Entry: TypeAlias = FileEntry | FolderEntry | LinkEntry


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder holds; folders come before what is in them. ``algorithm`` is that of the hashes."""

    algorithm: Algorithm
    entries: tuple[Entry, ...]


class ManifestWriter:
    """Writes a manifest entry by entry, so that it may have any number of them. It is complete after ``finish``."""

    def __init__(self, stream: TextIO, algorithm: Algorithm) -> None:
        self._stream = stream
        self._separator = "\n"
        stream.write(f'{{"{_VERSION_KEY}": {VERSION}, "algorithm": {json.dumps(str(algorithm))}, "entries": [')

    def add(self, entry: Entry) -> None:
        """Write the next entry, on a line of its own."""
        self._stream.write(self._separator + json.dumps(_described(entry)))
        self._separator = ",\n"

    def finish(self) -> None:
        """Write the end."""
        self._stream.write("\n]}\n")
        self._stream.flush()


def _described(entry: Entry) -> dict[str, object]:
    path = spelled("path", entry.path)
    if isinstance(entry, LinkEntry):
        return {"type": "link", **path, **spelled("target", entry.target), "mtime_ns": entry.mtime_ns}
    rest = {"mode": f"{entry.mode & PERMISSION_BITS:04o}", "mtime_ns": entry.mtime_ns}
    if isinstance(entry, FolderEntry):
        return {"type": "folder", **path, **rest}
    return {"type": "file", **path, "hash": entry.hash, "size": entry.size, **rest}


def spelled(key: str, path: str) -> dict[str, str]:
    """Return a path for JSON under ``key``, or ``{key}_base64``: JSON cannot write bytes that are not UTF-8."""
    raw = os.fsencode(path)
    try:
        return {key: raw.decode()}
    except UnicodeDecodeError:
        return {f"{key}_base64": base64.b64encode(raw).decode("ascii")}


def parse_manifest(text: str | bytes) -> Manifest:
    """Read a manifest and judge it whole.

    Raises ManifestError where it is malformed, or holds a path that is absolute, has ``..``, ``.`` or NUL in it, comes
    twice, is longer than 4,096 bytes or leads through something that is no folder, a link that leads out of the tree,
    or a hash that is none of the algorithm's.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise ManifestError("the manifest is not JSON") from None
    if not isinstance(said, dict) or said.get(_VERSION_KEY) != VERSION or not isinstance(said.get("entries"), list):
        raise ManifestError(f"this is no manifest of a folder, or not one of version {VERSION}")
    try:
        algorithm = Algorithm(str(said.get("algorithm")))
    except ValueError:
        raise ManifestError("the manifest names no hash function that is known here") from None
    entries = tuple(_parse_entry(item, number, algorithm) for number, item in enumerate(said["entries"], 1))
    require_harmless(entries)
    return Manifest(algorithm, entries)


def _parse_entry(said: object, number: int, algorithm: Algorithm) -> Entry:
    if not isinstance(said, dict):
        raise ManifestError(f"entry {number} of the manifest is no object")
    try:
        entry = _make_entry(said)
    except (KeyError, ValueError, TypeError):
        raise ManifestError(f"entry {number} of the manifest is malformed") from None
    if isinstance(entry, FileEntry) and len(entry.hash) != algorithm.hex_length:
        raise ManifestError(f"entry {number} of the manifest has a hash that is none of {algorithm}")
    target = entry.target if isinstance(entry, LinkEntry) else ""
    if max(len(os.fsencode(text)) for text in (entry.path, target)) > _MAX_PATH_BYTES:
        raise ManifestError(f"entry {number} of the manifest has a path longer than {_MAX_PATH_BYTES} bytes")
    return entry


def _make_entry(said: Mapping[str, Any]) -> Entry:
    """Make an entry. Raises KeyError, ValueError, TypeError where something is missing or makes no sense."""
    path, mtime_ns = _text(said, "path"), _whole(said["mtime_ns"], -_MAX_TIME)
    match said["type"]:
        case "link":
            return LinkEntry(path, _text(said, "target"), mtime_ns)
        case "folder":
            return FolderEntry(path, _mode(said["mode"]), mtime_ns)
        case "file":
            digest = parse_digest(said["hash"]) if isinstance(said["hash"], str) else None
            if digest is None:
                raise ValueError("no hash")
            return FileEntry(path, digest, _whole(said["size"], 0), _mode(said["mode"]), mtime_ns)
    raise ValueError("unknown type")


def _text(said: Mapping[str, Any], key: str) -> str:
    encoded = said.get(f"{key}_base64")
    if encoded is not None:
        return os.fsdecode(base64.b64decode(encoded, validate=True))
    text = said[key]
    if not isinstance(text, str):
        raise TypeError("no text")
    # raises where halves of surrogate pairs would stand for other bytes
    return os.fsdecode(text.encode("utf-8"))


def _whole(number: object, least: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= _MAX_TIME:
        raise ValueError("no number")
    return number


def _mode(text: object) -> int:
    if not isinstance(text, str) or not _MODE.fullmatch(text):
        raise ValueError("no mode")
    return int(text, 8) & PERMISSION_BITS


def require_harmless(entries: Iterable[Entry]) -> None:
    """Raise ManifestError unless all entries stay within the folder they are restored to, each with its own path."""
    by_path: dict[str, Entry] = {}
    for entry in entries:
        _require_inside(entry.path)
        if entry.path in by_path:
            raise ManifestError(f"the manifest has the path {shown(entry.path)} twice")
        by_path[entry.path] = entry
    unnamed: set[str] = set()
    room = _MAX_UNNAMED
    for path, entry in by_path.items():
        room -= _require_folders_above(path, by_path, unnamed)
        if room < 0:
            raise ManifestError("the manifest has too many paths in folders that it does not name")
        if isinstance(entry, LinkEntry):
            _require_link_inside(entry, by_path)


def _require_inside(path: str) -> None:
    if "\0" in path or path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise ManifestError(f"the manifest has the path {shown(path[:200])!r}, which is none inside a folder")


def _require_folders_above(path: str, by_path: Mapping[str, Entry], unnamed: set[str]) -> int:
    """Raise ManifestError unless only folders are above; return how long those are that are not in ``unnamed`` yet."""
    length = 0
    above = path.rpartition("/")[0]
    while above and above not in unnamed:
        found = by_path.get(above)
        if isinstance(found, FolderEntry):
            # what is above that one is looked at in its turn
            break
        if found is not None:
            raise ManifestError(f"the path {shown(path)} of the manifest leads through {shown(above)}, no folder")
        unnamed.add(above)
        length += len(above)
        above = above.rpartition("/")[0]
    return length


def _require_link_inside(entry: LinkEntry, by_path: Mapping[str, Entry]) -> None:
    def target_at(path: str) -> str | None:
        found = by_path.get(path)
        return found.target if isinstance(found, LinkEntry) else None

    if not entry.target or "\0" in entry.target or leads_out(entry.path, entry.target, target_at):
        raise ManifestError(
            f"the link {shown(entry.path)} of the manifest leads out of the folder, to {shown(entry.target[:200])!r}"
        )


def leads_out(path: str, target: str, target_at: Callable[[str], str | None]) -> bool:
    """Tell whether a link at ``path`` leads out of the tree, also by way of other links, or is absolute.

    ``target_at`` returns where the link at a path of the tree points to, None where there is none.
    """
    # the paths of the folders on the way, so that none is put together twice
    here = list(itertools.accumulate(path.split("/")[:-1], lambda above, name: f"{above}/{name}"))
    ahead = _parts_last_first(target)
    followed = 0
    while ahead:
        part = ahead.pop()
        if part == "/" or (part == ".." and not here):
            return True
        if part == "..":
            here.pop()
            continue
        place = _below(here, part)
        onward = target_at(place) if len(place) <= _MAX_PATH_BYTES else None
        if onward is None:
            here.append(place)
            continue
        followed += 1
        if followed > _MAX_LINKS:
            # a loop: nobody can follow it
            return False
        ahead += _parts_last_first(onward)
    return False


def _below(here: list[str], part: str) -> str:
    """Return the path of a name in the last folder; one that is too long to be anything grows no longer."""
    if not here:
        return part
    return here[-1] if len(here[-1]) > _MAX_PATH_BYTES else f"{here[-1]}/{part}"


def _parts_last_first(target: str) -> list[str]:
    """Return the parts of a target, a leading slash being one, so that the next to be followed is the last."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    return [*reversed(parts), *(["/"] if target.startswith("/") else [])]
