"""Blobs in a local folder: ``<store>/ab/abcdef…``."""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from filestored.blobs.flushing import flush_filesystem
from filestored.blobs.layout import StoreFolder, is_regular, require_in_place
from filestored.blobs.store import BlobHandle, BlobStat, Failed, Identity, Permit, StagedBytes, pread_all
from filestored.blobs.walking import Walk
from filestored.digest import Digest

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that somebody put there must not hang; it means nothing for files
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


# what opening or looking at nothing, a link, a folder or a name below a file ends with: no blob lies there
_NOT_A_BLOB = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})

# what a read that must not wait ends with where it would have to, or cannot be asked not to
_WOULD_WAIT = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})

# how long a folder held open is taken for the one that bears the name, without looking
_TRUSTED_SECONDS = 1.0
_PIECE = 1 << 20

T = TypeVar("T")


class DiskHandle(BlobHandle):
    """A blob's file held open: it can be read to its end whatever happens to its name meanwhile."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int, status: os.stat_result) -> None:
        self.descriptor = descriptor
        super().__init__(_identity(status))

    def read(self, start: int, stop: int) -> bytes:
        """See BlobHandle. OSError where the file is shorter than it was when it was opened."""
        return pread_all(self.descriptor, start, stop)

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See BlobHandle."""
        end = self.size if stop is None else stop
        for position in range(start, end, _PIECE):
            yield self.read(position, min(position + _PIECE, end))

    def read_cached(self, start: int, stop: int, buffer: memoryview) -> bytes:
        """See BlobHandle."""
        span = buffer[: stop - start]
        try:
            count = os.preadv(self.descriptor, [span], start, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in _WOULD_WAIT:
                return b""
            raise
        return bytes(span[:count])

    def close(self) -> None:
        """See BlobHandle."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class DiskBlobStore:
    """A :class:`~filestored.blobs.store.BlobStore` in a folder.

    Every path is a validated digest relative to the handle of its folder, so no link is ever followed. Safe
    to use from several threads and processes at once. The promises of the methods are those of BlobStore.
    """

    removes_at_once = True

    def __init__(self, folder: StoreFolder, *, for_reading: bool = False) -> None:
        """``for_reading`` opens what another program may have left as well: nothing can be published then."""
        self._folder = folder
        self._root = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.staging = -1 if for_reading else os.open(folder.private / "tmp", _DIRECTORY)
        self._quarantine = folder.quarantine
        self._shards: dict[str, int] = {}
        self._replaced: list[int] = []
        self._trusted_until: dict[str, float] = {}
        self._unflushed_shards: set[str] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the folders. Open blobs stay readable."""
        for handle in (self._root, self.staging, *self._shards.values(), *self._replaced):
            if handle >= 0:
                os.close(handle)
        self._shards.clear()
        self._replaced.clear()

    @property
    def id(self) -> str:
        """See BlobStore. Raises OSError."""
        return self._folder.identity()

    def keep_for(self, catalogue: str, *, take_over: bool = False) -> str:
        """See BlobStore."""
        return catalogue

    def keeper(self) -> str:
        """See BlobStore."""
        return ""

    def open(self, digest: Digest, size: int | None = None) -> DiskHandle | None:
        """See BlobStore."""
        descriptor = self._at(digest, _open_for_reading)
        if descriptor is None:
            return None
        status = os.fstat(descriptor)
        if not is_regular(status):
            os.close(descriptor)
            return None
        return DiskHandle(descriptor, status)

    def identity(self, digest: Digest) -> Identity | None:
        """See BlobStore."""
        status = self._status(digest)
        return None if status is None else _identity(status)

    def is_in_place(self, digest: Digest, identity: Identity) -> bool:
        """See BlobStore."""
        return self.identity(digest) == identity

    def stat(self, digest: Digest) -> BlobStat | None:
        """See BlobStore."""
        status = self._status(digest)
        return None if status is None else BlobStat(status.st_size, int(status.st_mtime))

    def bring(self, staged: StagedBytes, *, anew: bool = False) -> bool:
        """See BlobStore."""
        return False

    def foresee(self, digests: Iterable[Digest], *, for_reader: bool = False) -> None:
        """See BlobStore."""

    def forget_foreseen(self) -> None:
        """See BlobStore."""

    def publish(self, staged: StagedBytes) -> bool:
        """See BlobStore."""
        if not self.needs(staged):
            return False
        name = staged.name_in(self.staging)
        shard = self._shard_for_writing(staged.digest[:2])
        os.rename(name, staged.digest, src_dir_fd=self.staging, dst_dir_fd=shard)
        return True

    def needs(self, staged: StagedBytes) -> bool:
        """See BlobStore."""
        status = self._status(staged.digest)
        return status is None or status.st_size != staged.size

    def flush(self, digests: Iterable[Digest]) -> None:
        """See BlobStore."""
        shards = {digest[:2] for digest in digests}
        for name in shards:
            handle = self._shards.get(name)
            if handle is not None:
                os.fsync(handle)
        if not self._unflushed_shards.isdisjoint(shards):
            os.fsync(self._root)
            self._unflushed_shards -= shards

    def flush_everything(self) -> bool:
        """See BlobStore."""
        if not flush_filesystem(self._root):
            return False
        self._unflushed_shards.clear()
        return True

    def permits(self, digests: Sequence[Digest]) -> Mapping[Digest, Permit]:
        """See BlobStore."""
        return {}

    def remove(self, digest: Digest, permit: Permit | None = None) -> bool:
        """See BlobStore."""
        return self._at(digest, _unlink) is not None

    def quarantine(self, digest: Digest, identity: Identity) -> Path | None:
        """See BlobStore."""
        room = os.open(self._quarantine, _DIRECTORY)
        try:
            free = _free_name(digest, room)
            moved = self._at(digest, partial(_move, identity=identity, room=room, new_name=free))
            if moved:
                os.fsync(room)
                self.flush([digest])
        finally:
            os.close(room)
        return self._quarantine / free if moved else None

    def walk(self, after: str = "", *, failed: Failed) -> Walk:
        """See BlobStore."""
        return Walk(self._folder, after, failed=failed)

    def require_usable(self) -> None:
        """See BlobStore."""
        require_in_place(self._folder.path, self._root)
        require_in_place(self._folder.private / "tmp", self.staging)

    def presigned(self, digest: Digest, seconds: float, headers: Mapping[str, str]) -> None:
        """See BlobStore."""
        return

    def free_bytes(self) -> int:
        """See BlobStore."""
        space = os.fstatvfs(self._root)
        return space.f_bavail * space.f_frsize

    def _status(self, digest: Digest) -> os.stat_result | None:
        status = self._at(digest, _look)
        return status if status is not None and is_regular(status) else None

    def _at(self, digest: Digest, act: Callable[[str, int], T]) -> T | None:
        """Do something to a blob's name in its folder; None where no blob can lie there."""
        shard = self._shard(digest[:2])
        if shard is None:
            return None
        found = _attempt(act, digest, shard)
        if found is None:
            # the folder may have been replaced, by one restored from a backup, since it was looked at last
            current = self._look_at_shard(digest[:2])
            if current not in (None, shard):
                found = _attempt(act, digest, current)
        return found

    def _shard(self, name: str) -> int | None:
        """Return the handle of a folder of blobs; None where there is none, or something else, by that name."""
        if time.monotonic() < self._trusted_until.get(name, 0.0):
            return self._shards[name]
        return self._look_at_shard(name)

    def _look_at_shard(self, name: str) -> int | None:
        """Return the folder that bears the name now, which may not be the one held open."""
        with self._lock:
            held = self._shards.get(name)
            if held is None or not self._is_in_place(name, held):
                self._trusted_until.pop(name, None)
                if held is not None:
                    # another thread may be using it this moment: it is closed only with the store
                    self._replaced.append(self._shards.pop(name))
                try:
                    self._shards[name] = os.open(name, _DIRECTORY, dir_fd=self._root)
                except OSError as error:
                    if error.errno in _NOT_A_BLOB:
                        return None
                    raise
            self._trusted_until[name] = time.monotonic() + _TRUSTED_SECONDS
            return self._shards[name]

    def _is_in_place(self, name: str, handle: int) -> bool:
        try:
            status = os.stat(name, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        held = os.fstat(handle)
        return (status.st_ino, status.st_dev) == (held.st_ino, held.st_dev)

    def _shard_for_writing(self, name: str) -> int:
        handle = self._shard(name)
        if handle is None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._root)
            self._unflushed_shards.add(name)
            handle = self._shard(name)
        if handle is None:
            raise NotADirectoryError(errno.ENOTDIR, f"{name} in the store is not a folder")
        return handle


def _attempt(act: Callable[[str, int], T], name: str, shard: int) -> T | None:
    try:
        return act(name, shard)
    except OSError as error:
        if error.errno in _NOT_A_BLOB:
            return None
        raise


def _open_for_reading(name: str, shard: int) -> int:
    return os.open(name, _READ, dir_fd=shard)


def _look(name: str, shard: int) -> os.stat_result:
    return os.stat(name, dir_fd=shard, follow_symlinks=False)


def _unlink(name: str, shard: int) -> bool:
    os.unlink(name, dir_fd=shard)
    return True


def _identity(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _free_name(digest: Digest, room: int) -> str:
    """Return a name that nothing in a folder has: the digest, or with a number after it."""
    name, number = str(digest), 0
    while os.access(name, os.F_OK, dir_fd=room, follow_symlinks=False):
        number += 1
        name = f"{digest}.{number}"
    return name


def _move(name: str, shard: int, *, identity: Identity, room: int, new_name: str) -> bool:
    if _identity(_look(name, shard)) != identity:
        return False
    os.rename(name, new_name, src_dir_fd=shard, dst_dir_fd=room)
    return True
