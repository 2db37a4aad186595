"""Linux's ways to bring bytes to the disk that Python has no name for."""

import ctypes
import os
import platform
import re

_WRITE = 2
_MAX_DIRTY_KIB = 32 * 1024
_DIRTY = re.compile(rb"^(?:Dirty|Writeback): +(\d+) kB", re.MULTILINE)

_libc = ctypes.CDLL(None, use_errno=True)


def _kernel() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])


# before 5.8 syncfs told of no error that happened while it wrote
_REPORTS_ERRORS = _kernel() >= (5, 8)


def start_writeback(descriptor: int) -> None:
    """Begin to write a file's bytes to the disk, without waiting; a hint, whose failure the flush will show."""
    _libc.sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _WRITE)


def flush_filesystem(descriptor: int, *, however_much: bool = False) -> bool:
    """Flush everything on the file system of an open file at once: bytes, names and folders.

    For a batch of small files it takes two flushes of the disk instead of two for each file. Returns False,
    with nothing done, where it would wait for much that others have written, or would not tell of errors; then
    flush file by file. ``however_much`` waits in any case. Raises OSError where the disk fails.
    """
    if not however_much and (not _REPORTS_ERRORS or _dirty_kib() > _MAX_DIRTY_KIB):
        return False
    if _libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return True


def _dirty_kib() -> int:
    """Return how much the whole machine has still to write, in KiB."""
    try:
        with open("/proc/meminfo", "rb") as file:
            return sum(int(match) for match in _DIRTY.findall(file.read()))
    except OSError:
        return _MAX_DIRTY_KIB + 1
