"""The folder of a store: its layout, its mark, and the check that keeps a wrong path from being filled.

::

    <store>/ab/abcdef…                 blobs, read-only, exactly the uploaded bytes
    <store>/.filestored/format.json    the mark: layout version and the algorithms in use
                        catalogue.sqlite3
                        daemon.pid     locked by the running daemon
                        reserve        space given back when a delete finds the disk full
                        shared         counters that all workers of the daemon map
                        tmp/           bytes on their way in; emptied at start
                        uploads/       bytes of resumable uploads under way
                        quarantine/    blobs whose bytes are not their digest
                        imports/       reports of imports
                        copies/        what has been copied from which store
                        log/
"""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filestored.blobs.address import BucketAddress
from filestored.digest import Algorithm, algorithm_of, parse_digest
from filestored.errors import StartError

LAYOUT_VERSION = 1
RESERVE_BYTES = 1 << 20

PRIVATE = ".filestored"
"""The name of the folder, in a store or a spool, of everything that is no blob."""

_FOLDERS = ("tmp", "uploads", "quarantine", "log")
_SHARD = re.compile(r"[0-9a-f]{2}")
_PEEKED_PER_SHARD = 8
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """An adopted store: a marked folder in which every other part may work."""

    path: Path
    """The folder; where the blobs lie in a bucket its spool, for what is under way."""
    algorithm: Algorithm
    bucket: BucketAddress | None = None
    """Where the blobs lie, if not in the folder."""

    @property
    def private(self) -> Path:
        """The program's own corner of the store."""
        return self.path / PRIVATE

    @property
    def pid_file(self) -> Path:
        """The file that the running daemon holds locked."""
        return self.private / "daemon.pid"

    @property
    def log_file(self) -> Path:
        """Where a daemon in the background writes its log."""
        return self.private / "log" / "filestored.log"

    @property
    def reserve_file(self) -> Path:
        """Space that is given up so that a delete works on a full disk."""
        return self.private / "reserve"

    @property
    def shared_file(self) -> Path:
        """Counters mapped by all workers of one daemon."""
        return self.private / "shared"

    @property
    def catalogue_file(self) -> Path:
        """The catalogue, unless the settings name another."""
        return self.private / "catalogue.sqlite3"

    @property
    def uploads(self) -> Path:
        """Where the bytes of resumable uploads lie that are under way."""
        return self.private / "uploads"

    @property
    def quarantine(self) -> Path:
        """Where blobs lie whose bytes are not their digest."""
        return self.private / "quarantine"

    @property
    def is_unused(self) -> bool:
        """Whether no daemon ever came so far as to use it: the bucket that it was made for may not even exist."""
        return not any((self.private / name).exists() for name in ("shared", "catalogue.sqlite3", "store-id"))

    @property
    def has_been_used(self) -> bool:
        """Whether a daemon has worked here: a folder that an earlier program left, and was only marked, has not."""
        return any((self.private / name).exists() for name in ("shared", "store-id"))

    @property
    def lacks_catalogue(self) -> bool:
        """Whether the catalogue that was inside it is gone, or is empty, while there are files. Raises OSError."""
        kept = self.catalogue_file
        return self.has_been_used and not (kept.exists() and kept.stat().st_size) and self.has_files()

    def has_files(self) -> bool:
        """Tell whether a blob lies in the folder, after a look at 256 folders at most. Raises OSError."""
        return any(
            _SHARD.fullmatch(shard.name) and shard.is_dir(follow_symlinks=False) and any(_entries(Path(shard.path)))
            for shard in _entries(self.path)
        )

    def identity(self) -> str:
        """Return what tells this store from all others, made when it is asked for first. Raises OSError."""
        path = self.private / "store-id"
        try:
            with path.open("x", encoding="ascii") as file:
                file.write(f"{secrets.token_hex(16)}\n")
                file.flush()
                os.fsync(file.fileno())
            flush_folder(self.private)
        except FileExistsError:
            pass
        return path.read_text(encoding="ascii").strip()

    def algorithms(self) -> list[Algorithm]:
        """Return the algorithms that the store's mark says its blobs are named by. Raises StartError, OSError."""
        mark = _read_mark(self.path)
        return [Algorithm(name) for name in mark.algorithms if name in list(Algorithm)] if mark else []

    def record_algorithms(self, algorithms: Iterable[Algorithm]) -> None:
        """Note in the store's mark what its blobs are named by besides; new ones are named as before.

        Raises StartError, OSError.
        """
        known = _read_mark(self.path) or _Mark([self.algorithm.value], str(self.bucket) if self.bucket else None)
        more = [algorithm.value for algorithm in algorithms if algorithm.value not in known.algorithms]
        if more:
            _write_mark(self.path, _Mark([*more, *known.algorithms], known.bucket))

    @classmethod
    def adopt(cls, path: Path, algorithm: Algorithm, bucket: BucketAddress | None = None) -> "StoreFolder":
        """Open the store at ``path``, making or marking it where needed; ``algorithm`` names new blobs.

        An empty or missing folder becomes a store; a folder laid out as one (left by an earlier program) is
        marked and served as it is. With ``bucket`` it is the spool of that bucket, which is not looked at here.
        Raises StartError for everything else.
        """
        try:
            _make_folder(path)
            mark = _read_mark(path)
            if mark is None:
                known = _require_store_layout(path, algorithm) if bucket is None else _require_empty(path)
                _write_mark(path, _Mark([*known, algorithm.value], None if bucket is None else str(bucket)))
            else:
                if mark.bucket is not None and bucket is not None and cls(path, algorithm).is_unused:
                    mark = mark._replace(bucket=str(bucket))
                    _write_mark(path, mark)
                _require_kind(path, mark.bucket, bucket)
                if algorithm not in mark.algorithms:
                    _write_mark(path, _Mark([*mark.algorithms, algorithm.value], mark.bucket))
            for name in _FOLDERS:
                _make_folder(path / PRIVATE / name)
            _require_no_links(path / PRIVATE)
        except OSError as error:
            raise StartError(f"the store {path} cannot be used: {error.strerror or error}") from error
        return cls(path, algorithm, bucket)

    @classmethod
    def require(cls, path: Path, algorithm: Algorithm, bucket: BucketAddress | None = None) -> None:
        """Raise StartError where :meth:`adopt` would, as far as that can be told without changing anything."""
        try:
            if not path.is_dir():
                return
            mark = _read_mark(path)
            _require_no_links(path / PRIVATE)
            if mark is None:
                _ = _require_store_layout(path, algorithm) if bucket is None else _require_empty(path)
            elif bucket is None or mark.bucket is None or not cls(path, algorithm).is_unused:
                _require_kind(path, mark.bucket, bucket)
        except OSError as error:
            raise StartError(f"the store {path} cannot be used: {error.strerror or error}") from error

    @classmethod
    def find(cls, path: Path, algorithm: Algorithm, bucket: BucketAddress | None = None) -> "StoreFolder":
        """Open a store that is there already: as :meth:`adopt`, but nothing becomes a store that holds nothing.

        ``algorithm`` counts only where the store does not say itself what it names new blobs by. Raises StartError.
        A machine that has no spool of a bucket yet gets one: whether the bucket is a store is seen when it is opened.
        """
        try:
            mark = _read_mark(path) if path.is_dir() else None
            is_empty = mark is None and not (path.is_dir() and any(_entries(path)))
        except OSError as error:
            raise StartError(f"the store {path} cannot be used: {error.strerror or error}") from error
        if is_empty and bucket is None:
            raise StartError(f"there is no store at {path}; name it with --store")
        return cls.adopt(path, Algorithm(mark.algorithms[-1]) if mark else algorithm, bucket)


def _require_kind(path: Path, marked: str | None, bucket: BucketAddress | None) -> None:
    """Raise StartError unless a marked folder is what it is to be: a store, or the spool of a bucket."""
    if marked is not None and bucket is None:
        raise StartError(f"{path} is the spool of the bucket {marked}: name that with --store, and {path} with --spool")
    if marked is None and bucket is not None:
        raise StartError(f"{path} is a store itself, not the spool of {bucket}: name another folder with --spool")
    if bucket is not None and marked != str(bucket):
        raise StartError(f"{path} is the spool of {marked}, not of {bucket}: name another folder with --spool")


def _require_empty(path: Path) -> list[str]:
    """Raise StartError unless a folder that is to be a spool is empty; no blob of it is named by anything."""
    for entry in _entries(path):
        if entry.name not in (PRIVATE, "lost+found"):
            raise StartError(
                f"{path} is neither empty nor a spool (it holds {_shown(entry.name)}); name another folder with --spool"
            )
    return []


def _require_no_links(private: Path) -> None:
    """Raise StartError where what the program writes would end up outside the store."""
    store = private.parent.resolve()
    for name in (*_FOLDERS, "catalogue.sqlite3", "log/filestored.log", "log/startup.log"):
        path = private / name
        if path.is_symlink() and not path.resolve().is_relative_to(store):
            raise StartError(
                f"{path} is a symbolic link that leads out of the store; to keep catalogue or log elsewhere remove it "
                "and use --catalogue or --log-file"
            )


def _make_folder(path: Path) -> None:
    """Make a folder, and its parents, so that it survives a power cut."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    flush_folder(path.parent)
    if not path.is_dir():
        raise NotADirectoryError(20, "it is not a folder")


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, _DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Mark(NamedTuple):
    """What ``format.json`` says: the algorithms of the blobs, that of new ones last, and the bucket of a spool."""

    algorithms: list[str]
    bucket: str | None


def _read_mark(path: Path) -> _Mark | None:
    """Return what an existing mark says, None where there is no mark."""
    private = path / PRIVATE
    if private.is_symlink():
        raise StartError(f"{private} is a symbolic link; a store does not follow one")
    try:
        mark = json.loads((private / "format.json").read_bytes())
        version, algorithms, bucket = mark["layout"], mark["algorithms"], mark.get("bucket")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartError(f"{private / 'format.json'} is damaged; restore it from a backup or remove it") from error
    if not isinstance(version, int) or version > LAYOUT_VERSION:
        raise StartError(f"the store {path} was made by a newer version (layout {version}); upgrade this program")
    return _Mark([str(name) for name in algorithms], None if bucket is None else str(bucket))


def _write_mark(path: Path, mark: _Mark) -> None:
    private = path / PRIVATE
    _make_folder(private)
    private.chmod(0o700)
    written: dict[str, Any] = {"layout": LAYOUT_VERSION, "algorithms": mark.algorithms}
    if mark.bucket is not None:
        written["bucket"] = mark.bucket
    draft = private / "format.json.new"
    with draft.open("w") as file:
        json.dump(written, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(private / "format.json")
    flush_folder(private)


def _require_store_layout(path: Path, algorithm: Algorithm) -> list[str]:
    """Return the algorithms seen in an unmarked folder; raise StartError unless it is empty or a store.

    Looks at the first few names of each of at most 256 folders: the cost does not grow with the store.
    """
    seen: set[str] = set()
    for entry in _entries(path):
        if entry.name in (PRIVATE, "lost+found"):
            continue
        if not (_SHARD.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)):
            raise _not_a_store(path, entry.name)
        for number, blob in enumerate(_entries(Path(entry.path))):
            if number == _PEEKED_PER_SHARD:
                break
            digest = parse_digest(blob.name)
            if digest != blob.name or not digest.startswith(entry.name) or not blob.is_file(follow_symlinks=False):
                raise _not_a_store(path, f"{entry.name}/{blob.name}")
            seen.add(algorithm_of(digest, algorithm).value)
    return sorted(seen - {algorithm.value})


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from entries


def _not_a_store(path: Path, name: str) -> StartError:
    return StartError(
        f"{path} is neither empty nor a store (it holds {_shown(name)}); name another folder with --store"
    )


def _shown(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()


def is_laid_out_as_store(path: Path) -> bool:
    """Tell whether a folder holds blobs, and nothing else, marked or not. Raises OSError.

    Looks at a few names only, as :meth:`StoreFolder.adopt` does.
    """
    try:
        _require_store_layout(path, Algorithm.SHA256)
    except StartError:
        return False
    return any(entry.name not in (PRIVATE, "lost+found") for entry in _entries(path))


class StoreMark:
    """What a store's mark says of the algorithms that name its blobs, as it is now: copying may add some."""

    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder
        self._path = folder.private / "format.json"
        self._read_at = -1
        self._known: list[Algorithm] = []

    def names_alike(self, algorithm: Algorithm) -> bool:
        """Tell whether another algorithm has given hashes as long, as far as the mark could be read last."""
        # what is stored is served also where the mark was damaged or taken away meanwhile
        with contextlib.suppress(OSError, StartError):
            changed = self._path.stat().st_mtime_ns
            if changed != self._read_at:
                self._known, self._read_at = self._folder.algorithms(), changed
        return any(known.hex_length == algorithm.hex_length for known in self._known if known is not algorithm)


def require_in_place(path: Path, handle: int) -> None:
    """Raise OSError unless a folder held open is the one under its path, and files can be made there."""
    named, held = path.stat(), os.fstat(handle)
    if (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino):
        raise OSError(errno.ESTALE, f"{path} was removed or replaced while it was in use; start the daemon anew")
    if os.fstatvfs(handle).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
    if not os.access(path, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def is_regular(status: os.stat_result) -> bool:
    """Tell whether a name is an ordinary file: never a link, a folder, a device or a pipe."""
    return stat.S_ISREG(status.st_mode)
