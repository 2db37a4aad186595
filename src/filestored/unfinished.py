"""The bytes of uploads under way: ``<store>/.filestored/uploads/<id>``, each locked by the one who writes to it.

How many of a file's bytes count is what the catalogue says was flushed; what lies behind that is cut off.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from filestored.blobs.flushing import start_writeback
from filestored.digest import Digest
from filestored.staging import Staged, Staging, copy_all, write_all

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE = 0o600
_READ_ONLY = 0o444
COPY_SUFFIX = ".copy"
"""What follows the id in the name of bytes that are being copied."""

_TRIES = 8


class UnfinishedFile:
    """The bytes of one upload, locked until :meth:`close`. Used by one thread at a time; its methods block."""

    def __init__(self, descriptor: int, area: Staging) -> None:
        self.written = 0
        """How many bytes are there, flushed or not."""
        self._descriptor = descriptor
        self._area = area
        self._has_lost_bytes = False

    def cut(self, size: int) -> bool:
        """Leave nothing but the first ``size`` bytes; False, and nothing done, where there are fewer."""
        if os.fstat(self._descriptor).st_size < size:
            return False
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)
        self.written = size
        return True

    def cut_rest(self, size: int) -> None:
        """Leave nothing but the first ``size`` bytes, unless they are a blob's too, or are about to be."""
        if os.fstat(self._descriptor).st_nlink == 1:
            self.cut(size)

    def append(self, piece: bytes | memoryview) -> None:
        """Write more bytes; what a full disk still took is in ``written``, too. Raises OSError."""
        try:
            write_all(self._descriptor, [piece])
        finally:
            self.written = os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def start_flush(self) -> None:
        """Begin to bring the bytes to the disk without waiting for them."""
        start_writeback(self._descriptor)

    def flush(self) -> None:
        """Wait until the bytes survive a power cut, where the store's are to. Raises OSError.

        Having failed once it fails for good: the system reports a lost page once, then forgets it.
        """
        if not self._area.durable:
            return
        if self._has_lost_bytes:
            raise OSError(errno.EIO, "a flush of these bytes has failed before")
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            self._has_lost_bytes = True
            self._area.flush_failed()
            raise

    def read(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes from a position on, none at the end."""
        return os.pread(self._descriptor, size, position)

    def stage(self, digest: Digest, others: dict[str, bytes]) -> Staged:
        """Return the bytes, which must have been flushed, as a body that can be published.

        They stay here, too, until they are removed: what fails after this can be tried again.
        """
        os.fchmod(self._descriptor, _READ_ONLY)
        # what is old in the staging folder is taken for a leftover; it is also the blob's time
        os.utime(self._descriptor)
        staged = self._area.link(self._descriptor, digest, self.written)
        staged.others = others
        return staged

    def close(self) -> None:
        """Let go of the bytes, and let others write to them."""
        os.close(self._descriptor)


class UnfinishedFolder:
    """The folder ``uploads/``. Ids must be those of the catalogue: they are names here. Its methods block."""

    def __init__(self, path: Path, area: Staging) -> None:
        """``area`` is where bytes go that are whole. Raises OSError."""
        self._handle = os.open(path, _FOLDER)
        self._area = area

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._handle)

    def take(self, upload_id: str, *, is_new: bool = False) -> UnfinishedFile | None:
        """Return an upload's bytes, locked; None where somebody else has them. Raises OSError.

        Where none are there, ``is_new`` makes an empty file for them; otherwise FileNotFoundError is raised.
        """
        for _ in range(_TRIES):
            descriptor = self._open(upload_id, is_new=is_new)
            if not _lock(descriptor, fcntl.LOCK_EX):
                os.close(descriptor)
                return None
            if not self._is_in_place(upload_id, descriptor):
                # it was ended, or replaced by a copy, between opening and locking
                os.close(descriptor)
            elif os.fstat(descriptor).st_nlink > 1:
                # a crash came between publishing it and noting that: the blob must not change with it
                self._replace_by_copy(upload_id, descriptor)
            else:
                return UnfinishedFile(descriptor, self._area)
        return None

    def is_taken(self, upload_id: str) -> bool:
        """Tell whether somebody writes to an upload at this moment."""
        try:
            with _no_link():
                descriptor = os.open(upload_id, _LOOK, dir_fd=self._handle)
        except FileNotFoundError:
            return False
        try:
            return not _lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def has(self, upload_id: str, size: int) -> bool:
        """Tell whether at least so many bytes of an upload are there."""
        try:
            return size == 0 or os.stat(upload_id, dir_fd=self._handle, follow_symlinks=False).st_size >= size
        except FileNotFoundError:
            return False

    def cut_rest(self, upload_id: str, flushed: Callable[[str], int]) -> None:
        """Cut off what lies behind an upload's offset, which ``flushed`` tells, unless somebody writes to it."""
        with contextlib.suppress(FileNotFoundError, PermissionError), _no_link():
            descriptor = os.open(upload_id, _OLD, dir_fd=self._handle)
            file = UnfinishedFile(descriptor, self._area)
            try:
                if _lock(descriptor, fcntl.LOCK_EX):
                    file.cut_rest(flushed(upload_id))
            finally:
                file.close()

    def remove(self, upload_id: str) -> int:
        """Remove an upload's bytes; return how many there were."""
        try:
            size = os.stat(upload_id, dir_fd=self._handle, follow_symlinks=False).st_size
            os.unlink(upload_id, dir_fd=self._handle)
        except FileNotFoundError:
            return 0
        return size

    def names(self) -> list[str]:
        """Return what lies in the folder."""
        return os.listdir(self._handle)

    def _open(self, upload_id: str, *, is_new: bool) -> int:
        try:
            return self._open_old(upload_id)
        except FileNotFoundError:
            if not is_new:
                raise
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(upload_id, _NEW, _WRITABLE, dir_fd=self._handle)
                if self._area.durable:
                    os.fsync(self._handle)
                return descriptor
            return self._open_old(upload_id)

    def _open_old(self, upload_id: str) -> int:
        """Open the bytes that are there. Raises FileNotFoundError also where a link has their name: none are."""
        try:
            with _no_link():
                return os.open(upload_id, _OLD, dir_fd=self._handle)
        except PermissionError:
            # it was to be published, which failed
            descriptor = os.open(upload_id, _LOOK, dir_fd=self._handle)
            try:
                os.fchmod(descriptor, _WRITABLE)
            finally:
                os.close(descriptor)
            return os.open(upload_id, _OLD, dir_fd=self._handle)

    def _is_in_place(self, upload_id: str, descriptor: int) -> bool:
        try:
            named = os.stat(upload_id, dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return False
        held = os.fstat(descriptor)
        return stat.S_ISREG(held.st_mode) and (named.st_ino, named.st_dev) == (held.st_ino, held.st_dev)

    def _replace_by_copy(self, upload_id: str, descriptor: int) -> None:
        """Give an upload whose bytes are a blob's by now bytes of its own. Lets go of the descriptor."""
        name = upload_id + COPY_SUFFIX
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._handle)
            copy = os.open(name, _NEW, _WRITABLE, dir_fd=self._handle)
            try:
                copy_all(descriptor, copy)
                os.fdatasync(copy)
            finally:
                os.close(copy)
            os.rename(name, upload_id, src_dir_fd=self._handle, dst_dir_fd=self._handle)
            os.fsync(self._handle)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _no_link() -> Iterator[None]:
    """Turn the error of opening what is a symbolic link into that for what is not there."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileNotFoundError(errno.ENOENT, "a symbolic link lies where an upload's bytes belong") from error
        raise


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
